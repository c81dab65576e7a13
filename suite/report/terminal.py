"""The summary of a run in the terminal: one table, then the worst failures with their reproduce commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from suite.records.record import PASSING, SUMMARY_CLASSES, Record, summary_class
from suite.report.attention_terminal import print_attention
from suite.report.summaries import how_bad, labelled, verdict, worst, worst_cases
from suite.report.tables import by, console_of, rich_table, shown
from suite.report.visible import NAME, visible
from suite.report.words import spaced, times


def print_summary(records: Sequence[Record], *, verbose: bool, interrupted: bool) -> None:
    """Prints the table of kernels and the worst failure. verbose: a row for each dtype, and every
    kind of failure.
    """
    records = labelled(records)
    console = console_of(140)
    _print_table(console, records, ("op", "kernel", "dtype") if verbose else ("op", "kernel"))
    console.print("worst: the largest error over its bound, before output rounding", style="dim")
    print_attention(console, records)
    failures = [r for r in worst_cases(records) if r.status not in PASSING]
    for record in failures if verbose else failures[:1]:
        _print_failure(console, record)
    console.print()
    text, _ = verdict(records)
    before = "Interrupted. This covers what had run: " if interrupted else ""
    console.print(before + visible(text, lines=False), style="bold", markup=False)


def _print_table(console: Console, records: Sequence[Record], labels: Sequence[str]) -> None:
    numbers = ("passed", "failed", "known", "unjudged", "unsupported", "worst passing", "worst")
    table = rich_table(*labels, numbers=numbers, wrap=False)
    groups = by(records, lambda r: (r.op, r.kernel, r.dtype)[: len(labels)])
    for names, group in sorted(groups.items(), key=lambda item: item[0]):
        count = Counter(summary_class(r.status) for r in group)
        cells = {name: str(count[name] or "") for name in SUMMARY_CLASSES}
        if aside := sum(r.status == "not_run" for r in group):
            cells["failed"] = f"{count['failed']} ({aside} not run)"
        passing = [r.judgement.ratio or 0.0 for r in group if r.status == "passed"]
        failing = [r for r in group if r.status not in ("passed", "unsupported")]
        table.add_row(
            *map(shown, names),
            *cells.values(),
            times(max(passing)) if passing else "",
            how_bad(worst(failing)) if failing else "",
            style="red" if count["failed"] else "yellow" if count["known_failure"] else None,
        )
    console.print(table, soft_wrap=False)


def _print_failure(console: Console, record: Record) -> None:
    console.print()
    title = f"{record.case}  {record.dtype}  {record.kernel}  {spaced(record.status)}"
    console.print(visible(title, lines=False), style="bold red", markup=False)
    console.print(visible(record.message), markup=False, soft_wrap=True)
    if record.outcome.warnings:
        console.print(
            f"  warned    {visible(record.outcome.warnings[0], limit=NAME, lines=False)}", markup=False
        )
    if record.outcome.output.strip():
        console.print(f"  printed   {record.outcome.output.strip()[-200:]!r}", markup=False)
    console.print(f"  reproduce {visible(record.reproduce, lines=False)}", markup=False, soft_wrap=True)
