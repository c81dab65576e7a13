"""Which kernel to use, in the terminal: a line for each input, narrow enough for 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from suite.records.record import Measurement, Record
from suite.report.advice import (
    Advice,
    Group,
    Standing,
    Subject,
    advise,
    grouped,
    ranked,
    standings,
    times_as_fast,
    torch_kernels,
)
from suite.report.tables import by, rich_table, shown
from suite.report.words import seconds, shape_and_options, some, times

INPUTS = 40
"""Inputs up to which each has its line."""
LEGEND = (
    "the fastest of those that passed all that was judged here and do not declare that they work without"
    " a shift or in a domain alone; bound: its error over its bound; report.html has the rest"
)


def print_advice(console: Console, measurements: Sequence[Measurement], records: Sequence[Record]) -> None:
    """Prints a table for each op and direction; of many inputs only the longest of each setting.
    records: what was judged.
    """
    groups = grouped(measurements)
    chosen = list(groups) if len(groups) <= INPUTS else _longest(groups)
    where = " at the longest inputs" if len(chosen) < len(groups) else ""
    standing = standings(records, measurements)
    alone = set[str]()
    for (op, direction), inputs in by(chosen, lambda group: group[:2]).items():
        console.print()
        console.print(f"{op} {direction}: which kernel to use{where}", style="bold")
        advised = {group: advise(ranked(groups[group]), standing) for group in inputs}
        _print_table(console, advised, standing)
        if (torch := torch_kernels(op)) and not any(advice.torch for advice in advised.values()):
            alone.add(f"{op}'s {torch[0]}")
    console.print()
    if alone:
        own = ", ".join(sorted(alone))
        console.print(f"torch's own was not timed beside them; --kernel names it, too: {own}", style="dim")
    easy = len({record.family for record in records}) == 1
    more = "; only what was timed was judged, softmax-suite run judges hard inputs" if easy else ""
    console.print(LEGEND + more, style="dim")


def _longest(groups: Mapping[Group, Sequence[Measurement]]) -> list[Group]:
    """Of the groups that differ in nothing but the length, those of the longest, in order."""

    def length(group: Group) -> int:
        return int(groups[group][0].data["length"])

    def setting(group: Group) -> tuple[Any, ...]:
        shape = groups[group][0].data["shape"]
        sizes = (*shape[:2], shape[3]) if len(shape) == 4 else ()
        return (*group[:4], *group.case.split("/")[3:], *sizes)

    found = {max(own, key=length) for own in by(groups, setting).values()}
    return [group for group in groups if group in found]


def _print_table(
    console: Console, advised: Mapping[Group, Advice], standing: Mapping[Subject, Standing]
) -> None:
    table = rich_table()
    table.add_column("dtype", no_wrap=True)
    table.add_column("input", overflow="fold")
    table.add_column("use", overflow="fold", style="bold")
    for name in ("latency", "times torch", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    reasons: dict[str, None] = {}
    for group, advice in advised.items():
        reasons |= {f"{m.kernel} in {group.dtype} ({reason})": None for m, reason in advice.unsafe}
        table.add_row(group.dtype, shown(shape_and_options(group.case)), *_cells(advice, standing))
    console.print(table)
    if reasons:
        console.print(shown(f"not safe: {some(list(reasons))}"), style="yellow")


def _cells(advice: Advice, standing: Mapping[Subject, Standing]) -> list[str]:
    use = advice.use
    if use is None:
        return ["none is safe" if advice.unsafe else "none passes", "", "", ""]
    declares = standing[Subject.of(use)].declares
    ratio = "" if advice.torch is None else f"{times_as_fast(use, advice.torch)[0]:.3g}"
    return [
        shown(use.kernel + (f" ({declares})" if declares else "")),
        seconds(use.data["median_seconds"]),
        "its own" if use is advice.torch else ratio,
        times(use.data["ratio"]),
    ]
