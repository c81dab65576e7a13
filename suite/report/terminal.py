"""The summary of a run in the terminal: one table, then the worst failures with their reproduce commands."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from suite.records.record import PASSING, SUMMARY_CLASSES, Record, summary_class
from suite.report.attention_terminal import print_attention
from suite.report.gradients import labelled
from suite.report.summaries import how_bad, times, verdict, worst, worst_cases
from suite.report.visible import NAME, visible


def print_summary(records: Sequence[Record], *, verbose: bool, interrupted: bool) -> None:
    """Prints the table of kernels; verbose splits it by dtype and shows every kind of failure,
    otherwise only the worst.
    """
    records = labelled(records)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("op", "kernel", "dtype") if verbose else ("op", "kernel"):
        table.add_column(name, no_wrap=True, overflow="fold")
    for name in ("passed", "failed", "known", "unjudged", "unsupported", "worst passing", "worst"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        key: tuple[str, ...] = (record.op, record.kernel, record.dtype)
        groups.setdefault(key if verbose else key[:2], []).append(record)
    for labels, group in sorted(groups.items()):
        count = dict.fromkeys(SUMMARY_CLASSES, 0)
        for record in group:
            count[summary_class(record.status)] += 1
        aside = sum(r.status == "not_run" for r in group)
        passing = [r.ratio or 0.0 for r in group if r.status == "passed"]
        failing = [r for r in group if r.status not in ("passed", "unsupported")]
        table.add_row(
            *(escape(visible(label, limit=NAME, lines=False)) for label in labels),
            *(_counted(name, n, aside) for name, n in count.items()), times(max(passing)) if passing else "",
            how_bad(worst(failing)) if failing else "",
            style="red" if count["failed"] else "yellow" if count["known_failure"] else None,
        )  # fmt: skip
    console.print(table, soft_wrap=False)
    console.print("worst: largest error in times of the bound, before the output's rounding", style="dim")
    print_attention(console, records)
    shown = [r for r in worst_cases(records) if r.status not in PASSING]
    for record in shown if verbose else shown[:1]:
        console.print()
        title = visible(
            f"{record.case}  {record.dtype}  {record.kernel}  {record.status.replace('_', ' ')}", lines=False
        )
        console.print(title, style="bold red", markup=False)
        console.print(visible(record.message), markup=False, soft_wrap=True)
        if record.warnings:
            console.print(f"  warned    {visible(record.warnings[0], limit=NAME, lines=False)}", markup=False)
        if record.output.strip():
            console.print(f"  printed   {record.output.strip()[-200:]!r}", markup=False)
        console.print(f"  reproduce {visible(record.reproduce, lines=False)}", markup=False, soft_wrap=True)
    console.print()
    text, _ = verdict(records)
    before = "Interrupted: what follows is what was done. " if interrupted else ""
    console.print(before + visible(text, lines=False), style="bold", markup=False)


def _counted(name: str, count: int, aside: int) -> str:
    if name == "failed" and aside:
        return f"{count} ({aside} not run)"
    return str(count) if count else ""
