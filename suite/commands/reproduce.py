"""`reproduce`: runs one recorded evaluation again."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from suite.commands.options import RUNS, misuse, opened
from suite.records.record import PASSING


@click.command("reproduce")
@click.argument("record", metavar="RECORD")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=RUNS, show_default=True, help="Where run folders are."
)
def command(record: str, runs: Path) -> None:
    """Runs one recorded evaluation again: RECORD is a record id, or FILE:LINE of a records-*.jsonl.

    It runs the kernel that the record names: of a record from a stranger, look at that first.
    """
    from suite.case import Case
    from suite.records.store import find_record

    try:
        recorded = find_record(record, runs)
        case = Case.from_id(recorded.case, laws=recorded.laws)
    except ValueError as error:
        misuse(str(error))
    with opened(
        ops=[recorded.op], kernels=(recorded.kernel,), device=recorded.device, strict=recorded.strict
    ) as session:
        again = session.evaluate(case, session.kernels[recorded.op][0], recorded.dtype)
    click.echo(again.message or f"{again.case} {again.dtype} {again.kernel}: {again.status}")
    same = (
        "the same output bits" if again.judgement.digest == recorded.judgement.digest else "other output bits"
    )
    if again.kernel_version != recorded.kernel_version:
        same += (
            f"; the kernel's source has changed ({recorded.kernel_version} then, {again.kernel_version} now)"
        )
    click.echo(f"recorded {recorded.status}, now {again.status}; {same}")
    sys.exit(0 if again.status in PASSING else 1)
