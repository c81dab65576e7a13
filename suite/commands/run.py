"""`run`: runs the cases on kernels and writes records.csv, env.json and report.html."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Literal

import click

from suite.commands.options import (
    RUNS,
    Selection,
    kernels_option,
    misuse,
    out_option,
    profile_option,
    run,
    selection,
)
from suite.commands.output import finish, holding, print_summary, write_json, write_report


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
def command(
    kernels: tuple[str, ...],
    profile: str,
    out: Path | None,
    measure: bool | None,
    json_file: Path | None,
    **selected: Any,
) -> None:
    """Runs the cases on kernels and writes records.csv, env.json and report.html."""
    folder = out or RUNS / datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    chapters: Literal["none", "torch", "all"] = (
        "all" if measure or (measure is None and profile in ("standard", "full")) else "none"
    )
    if measure is None and chapters == "none" and selected["direction"] != "forward":
        chapters = "torch"
    if selected["resume"] and out is None:
        misuse("--resume goes on with the run in a folder: name it with --out")
    with holding(folder, resume=selected["resume"]):
        result = run(kernels, profile, Selection(**selected), out=folder, measure=chapters)
        write_json(json_file, result)
        if result.records:
            print_summary(result, verbose=False)
            write_report(folder)
    finish(result)
