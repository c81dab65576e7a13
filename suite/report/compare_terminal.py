"""The comparison in the terminal: what differs, what got worse, which kernel to use, the answer last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape

from suite.report.compare import Comparison
from suite.report.compare_best import base_alone, best_kernels
from suite.report.compare_page import shown
from suite.report.compare_tables import error_table, speed_table, status_table
from suite.report.compare_words import answer, environments, notices_of, reasons_of, run_names
from suite.report.tables import Cell, Column, Table, console_of, rich_table

ROWS = 12
"""Rows of a table; the page and the files have more."""
COLORS = {"slower": "red", "faster": "green", "ambiguous": "yellow"}


def print_comparison(comparisons: Sequence[Comparison], *, show_paths: bool = False) -> None:
    """Prints the comparisons, which share their base, and why gates refuse; texts of strangers as
    shown() leaves them.
    """
    console = console_of(160)
    say = partial(_say, console, show_paths)
    show = partial(_print_table, console, show_paths)
    runs = [comparisons[0].base, *(one.new for one in comparisons)]
    names = run_names(runs)
    named = list(zip(names[1:], comparisons, strict=True))
    for name, run in zip(names, runs, strict=True):
        for notice in notices_of(name, run):
            say(notice, "yellow")
    unlike = [[fact, *values] for fact, values in environments(runs)["unlike"]]
    show("what differs", Table(columns=list(map(Column, ("", *names))), rows=unlike))
    for name, comparison in named:
        show(f"new failures in {name}", status_table(comparison, "new failure"), columns=6)
        show(f"meaningfully larger errors in {name}", error_table(comparison.worse()))
        speeds = speed_table(comparison, names[0], name)
        unclear = replace(speeds, rows=[row for row in speeds.rows if row[0].text != "SAME"])
        show(f"time of {name} over that of {names[0]}, where they differ or may", unclear, columns=9)
    best, alone = best_kernels(runs)
    columns = list(map(Column, ("op", "dtype", "input", *names)))
    show("which kernel to use", Table(columns=columns, rows=list(map(_best, best))))
    if left_out := base_alone(alone, names[0]):
        say(left_out, "dim")
    console.print()
    reasons = reasons_of(comparisons)
    for reason in reasons[:ROWS]:
        say(reason, "red")
    if len(reasons) > ROWS:
        say(f"and {len(reasons) - ROWS:,} more", "red")
    for name, comparison in named:
        verdict, rest = answer(comparison)
        say(f"{name} against {names[0]}. {rest}")
        say(verdict, "bold")
    if len(comparisons) > 1:
        refused = [name for name, comparison in named if comparison.reasons]
        say(f"Gates refuse {', '.join(refused) or 'none'}.", "bold")


def _say(console: Console, show_paths: bool, text: str, style: str | None = None) -> None:
    console.print(shown(text, show_paths=show_paths), style=style, markup=False, soft_wrap=True)


def _print_table(
    console: Console, show_paths: bool, title: str, table: Table, *, columns: int | None = None
) -> None:
    """columns: how many of the first are shown; None for all."""
    if not table.rows:
        return
    cut = shown(table.cut(ROWS), show_paths=show_paths)
    console.print()
    _say(console, show_paths, title, "bold")
    made = rich_table(*(escape(column.heading) for column in cut.columns[:columns]))
    for row in cut.rows:
        chip = row[0].chip if isinstance(row[0], Cell) else ""
        made.add_row(*(escape(_text(cell)) for cell in row[:columns]), style=COLORS.get(chip))
    console.print(made)
    if cut.left_out:
        _say(console, show_paths, f"and {cut.left_out:,} more", "dim")


def _text(cell: str | Cell) -> str:
    return " ".join(filter(None, (cell.text, *cell.small))) if isinstance(cell, Cell) else cell


def _best(row: dict[str, Any]) -> list[str]:
    cells = []
    for by_device in row["cells"]:
        words = [
            f"{cell['kernel'] or 'none is safe'} {cell['time']}  {cell['error']}"
            + (f" ({cell['declares']})" if cell["declares"] else "")
            + (f" on {cell['device']}" if len(by_device) > 1 else "")
            for cell in by_device
        ]
        cells.append("; ".join(words) or "–")
    return [row["op"], row["dtype"], row["input"], *cells]
