"""`compare`: is a run worse than another one?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from suite.commands.options import misuse, show_paths_option
from suite.commands.output import full, write

if TYPE_CHECKING:
    from suite.records.record import Record
    from suite.report.baseline import Baseline


@click.command("compare")
@click.argument("base", type=click.Path(path_type=Path), metavar="BASE")
@click.argument("new", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="NEW...")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html", help="Write the page here."
)
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all rows as CSV."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all rows as JSON."
)
@click.option(
    "--fail-on",
    default="status,accuracy",
    show_default=True,
    metavar="GATES",
    help=(
        "What ends with exit code 1: status (a new failure), accuracy (a meaningfully larger error),"
        " speed:10%; or none."
    ),
)
@click.option("--threshold", default="5%", show_default=True, metavar="P%", help="Of FASTER and SLOWER.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Fail also on errors above this file's.",
)
@click.option(
    "--update-baseline",
    is_flag=True,
    help="Tighten --baseline by the errors of the new runs; it never loosens.",
)
@show_paths_option()
def command(
    base: Path,
    new: tuple[Path, ...],
    out: Path | None,
    csv_file: Path | None,
    json_file: Path | None,
    fail_on: str,
    threshold: str,
    baseline: Path | None,
    update_baseline: bool,
    show_paths: bool,
) -> None:
    """Compares runs: is NEW worse than BASE, and which kernel should be used on which machine?

    Exit code 1 where a gate of --fail-on or the baseline fails, 0 otherwise.
    """
    from suite.report import baseline as ratchet
    from suite.report.compare import compare as join
    from suite.report.compare_files import check_targets, to_csv, to_json
    from suite.report.compare_page import render
    from suite.report.compare_runs import read_runs
    from suite.report.compare_terminal import print_comparison
    from suite.report.gates import gate, parse_gates, parse_share
    from suite.report.visible import visible

    if update_baseline and baseline is None:
        misuse("--update-baseline tightens the file that --baseline names; name it")
    named = {"--baseline": baseline, "--csv": csv_file, "--json": json_file, "--out": out}
    written = {option: path for option, path in named.items() if path is not None and str(path) != "-"}
    try:
        check_targets(written, [base, *new])
        gates, share = parse_gates(fail_on), parse_share(threshold)
        best: ratchet.Baseline = {}
        if baseline is not None and (baseline.exists() or not update_baseline):
            best = ratchet.read_baseline(baseline)
        first, *others = read_runs([base, *new])
        joined = [join(first, other, threshold=share) for other in others]
        comparisons = [
            replace(one, reasons=(*gate(one, gates), *ratchet.broken_by(best, one.new))) for one in joined
        ]
        records = [record for other in others for record in other.records]
        if baseline is not None and not update_baseline and not ratchet.covers(best, records):
            raise ValueError(f"baseline {str(baseline)!r} has no entry for any evaluation of these runs")
    except (ValueError, OSError) as error:
        misuse(visible(str(error), lines=False))
    print_comparison(comparisons, show_paths=show_paths)
    if baseline is not None and update_baseline:
        _tighten(baseline, best, records)
    if csv_file is not None:
        write(csv_file, to_csv(comparisons, show_paths=show_paths).removesuffix("\n"))
    if json_file is not None:
        write(json_file, json.dumps(to_json(comparisons), allow_nan=False))
    if out is not None:
        asked = f"--fail-on {fail_on}" + (f" --baseline {baseline}" if baseline is not None else "")
        write(out, render(comparisons, gates=asked, show_paths=show_paths))
        click.echo(f"page: {out}")
    sys.exit(1 if any(one.reasons for one in comparisons) else 0)


def _tighten(path: Path, best: Baseline, records: Sequence[Record]) -> None:
    """Writes the baseline with the errors of these records where they are smaller."""
    from suite.report import FullDiskError
    from suite.report.baseline import tightened, write_baseline

    try:
        write_baseline(path, tightened(best, records))
    except FullDiskError as error:
        full(str(error))
    except ValueError as error:
        misuse(str(error))
