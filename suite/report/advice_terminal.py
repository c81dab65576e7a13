"""Which kernel to use, in the terminal: a line for each input, narrow enough for 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
from suite.report.compare_page import seconds
from suite.report.summaries import times
from suite.report.visible import NAME, visible

INPUTS, UNSAFE = 40, 4
"""Inputs up to which each has its line; kernels of an op that are named as faster and not safe."""


def print_advice(console: Console, measurements: Sequence[Measurement], records: Sequence[Record]) -> None:
    """Prints a table for each op and direction; of many inputs only the longest of each setting.
    records: what was judged.
    """
    groups = grouped(measurements)
    shown = list(groups) if len(groups) <= INPUTS else _longest(groups)
    where = " at the longest inputs" if len(shown) < len(groups) else ""
    standing = standings(records, measurements)
    alone = set[str]()
    for op, direction in dict.fromkeys(group[:2] for group in shown):
        own = [group for group in shown if group[:2] == (op, direction)]
        console.print()
        console.print(f"{op} {direction}: which kernel to use{where}", style="bold")
        advised = {group: advise(ranked(groups[group]), standing) for group in own}
        _print_table(console, advised, standing)
        if (names := torch_kernels(op)) and not any(advice.torch for advice in advised.values()):
            alone.add(f"{op}'s {names[0]}")
    console.print()
    if alone:
        console.print(
            f"torch's own was not timed beside them; --kernel names it, too: {', '.join(sorted(alone))}",
            style="dim",
        )
    easy = len({record.family for record in records}) == 1
    console.print(
        "the fastest of those that passed all that was judged here and do not declare that they work without"
        " a shift or in a domain alone; bound: its error in times of the bound; report.html has the rest"
        + ("; only what was timed was judged, softmax-suite run judges hard inputs" if easy else ""),
        style="dim",
    )


def _longest(groups: Mapping[Group, Sequence[Measurement]]) -> list[Group]:
    """Of the groups that differ in nothing but the length those of the longest, in order."""
    found: dict[tuple[Any, ...], Group] = {}
    for group, [first, *_] in groups.items():
        shape, options = first.data["shape"], group.case.split("/")[3:]
        setting = (*group[:4], *options, *((*shape[:2], shape[3]) if len(shape) == 4 else ()))
        other = found.setdefault(setting, group)
        if groups[other][0].data["length"] < first.data["length"]:
            found[setting] = group
    chosen = set(found.values())
    return [group for group in groups if group in chosen]


def _print_table(
    console: Console, advised: Mapping[Group, Advice], standing: Mapping[Subject, Standing]
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("dtype", no_wrap=True)
    table.add_column("input", overflow="fold")
    table.add_column("use", overflow="fold", style="bold")
    for name in ("latency", "times torch", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    reasons: dict[str, None] = {}
    for group, advice in advised.items():
        reasons |= {f"{m.kernel} in {group.dtype} ({reason})": None for m, reason in advice.unsafe}
        table.add_row(group.dtype, _input(group), *_cells(advice, standing))
    console.print(table)
    if reasons:
        more = f" and {len(reasons) - UNSAFE} more" if len(reasons) > UNSAFE else ""
        console.print(_shown(f"not safe: {', '.join(list(reasons)[:UNSAFE])}{more}"), style="yellow")


def _cells(advice: Advice, standing: Mapping[Subject, Standing]) -> list[str]:
    use = advice.use
    if use is None:
        return ["none is safe" if advice.unsafe else "none passes", "", "", ""]
    declares = standing[Subject.of(use)].declares
    ratio = "" if advice.torch is None else f"{times_as_fast(use, advice.torch)[0]:.3g}"
    return [
        _shown(use.kernel + (f" ({declares})" if declares else "")),
        seconds(use.data["median_seconds"]),
        "its own" if use is advice.torch else ratio,
        times(use.data["ratio"]),
    ]


def _input(group: Group) -> str:
    """The shape and the options."""
    return _shown(
        " ".join(s for s in group.case.split("/")[2:-1] if not s.startswith(("upstream=", "reduction=")))
    )


def _shown(text: str) -> str:
    return escape(visible(text, limit=NAME, lines=False))
