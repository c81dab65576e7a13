"""`run`: runs the cases on kernels and writes records.csv, env.json and report.html."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any, Literal

import click

from suite.commands.options import RUNS, kernels_option, misuse, opened, out_option, profile_option, selection
from suite.commands.output import finish, print_summary, write_json, write_report
from suite.commands.progress import ShownProgress


@click.command("run")
@kernels_option()
@profile_option("smoke")
@out_option("Run folder. Default: runs/<time>.")
@click.option(
    "--measure/--no-measure",
    default=None,
    help=(
        "Measure each kernel for the chapters. Default: from profile standard on; before, torch's own for"
        " those of gradients."
    ),
)
@selection
def command(out: Path | None, measure: bool | None, json_file: Path | None, **asked: Any) -> None:
    """Runs the cases on kernels and writes records.csv, env.json and report.html."""
    if asked["resume"] and out is None:
        misuse("--resume goes on with the run in a folder: name it with --out")
    folder = out or RUNS / datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    chapters = _chapters(measure, asked["profile"], asked["direction"])
    with opened(out=folder, measure=chapters, **asked) as session:
        result = session.run(ShownProgress(sys.stderr))
        write_json(json_file, result)
        if result.records:
            print_summary(result, verbose=False)
            write_report(folder)
    finish(result)


def _chapters(measure: bool | None, profile: str, direction: str) -> Literal["none", "torch", "all"]:
    """What is measured for the report's chapters, where --measure and --no-measure may not say it."""
    if measure is not None:
        return "all" if measure else "none"
    if profile in ("standard", "full"):
        return "all"
    return "none" if direction == "forward" else "torch"
