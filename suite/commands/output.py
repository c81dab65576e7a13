"""What commands print and write about a run, and how they end."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from suite.commands.options import misuse
from suite.version import __version__

if TYPE_CHECKING:
    from suite.records.record import Record
    from suite.session import Result


def write_report(folder: Path) -> None:
    """Writes the report of a run folder; a disk that does not take it costs the report, not the
    records or the exit code.
    """
    from suite.report import write_report

    try:
        click.echo(f"report: {write_report([folder])}")
    except ValueError as error:
        click.echo(f"no report: {error}", err=True)


def finish(result: Result) -> NoReturn:
    if result.stopped:
        click.echo(result.stopped, err=True)
    for line in result.errors[:5]:
        click.echo(f"internal error: {line}", err=True)
    for line in result.stale:
        click.echo(f"known failure that passed: {line}", err=True)
    if result.empty_shard:
        click.echo("nothing to judge in this shard: the cases that were selected are in others", err=True)
    if result.exit_code == 3 and not result.records:
        click.echo("nothing was judged: no case of this profile matches what was selected", err=True)
    elif result.exit_code == 3:
        from suite.report.visible import visible

        reasons = Counter(record.message for record in result.records)
        reason, _ = reasons.most_common(1)[0]
        more = f", and {len(reasons) - 1} other reasons" if len(reasons) > 1 else ""
        click.echo(
            "nothing was judged: no kernel supports what was selected"
            f" ({visible(reason, lines=False)[:300]}{more})",
            err=True,
        )
    sys.exit(result.exit_code)


def summary(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Counts by kernel: passed, failed, unsupported, unjudged, known_failure."""
    from suite.records.record import SUMMARY_CLASSES, summary_class

    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(record.kernel, Counter())[summary_class(record.status)] += 1
    return {kernel: {name: count[name] for name in SUMMARY_CLASSES} for kernel, count in counts.items()}


def write_json(path: Path | None, result: Result) -> None:
    from suite.records.record import SCHEMA

    if path is None:
        return
    data = {
        "schema": SCHEMA,
        "suite_version": __version__,
        "environment": result.environment,
        "summary": summary(result.records),
        "records": [record.to_dict() for record in result.records],
    }
    write(path, json.dumps(data, allow_nan=False, indent=1))


def write(path: Path, text: str) -> None:
    from suite.records.store import FULL

    if str(path) == "-":
        click.echo(text)
        return
    if any(path.match(f"{kind}-*.jsonl{end}") for kind in ("records", "measurements") for end in ("", ".gz")):
        misuse(
            f"{str(path)!r} is the name of a run's records: writing there would lose them; name another file"
        )
    try:
        # Without waiting, so that a named pipe that nobody reads is an error.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.set_blocking(descriptor, True)
            file.write(text + "\n")
    except (OSError, ValueError) as error:
        reason = f"{str(path)!r} cannot be written: {getattr(error, 'strerror', None) or error}"
        if getattr(error, "errno", None) in FULL:
            full(reason)
        misuse(reason)


def full(reason: str) -> NoReturn:
    click.echo(f"{reason}; make room and ask again", err=True)
    sys.exit(4)


def print_summary(result: Result, *, verbose: bool) -> None:
    from suite.report.terminal import print_summary

    print_summary(result.records, verbose=verbose, interrupted=result.interrupted or bool(result.stopped))
