"""The comparison in the terminal: what differs, what got worse, which kernel to use, the answer last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from suite.report.compare import Comparison
from suite.report.compare_page import (
    answer,
    base_alone,
    best_kernels,
    environments,
    error_rows,
    first_notices,
    reasons_of,
    run_names,
    shown,
    speed_rows,
    status_rows,
)

ROWS = 12
"""Rows of a table; the page and the files have more."""
COLORS = {"slower": "red", "faster": "green", "ambiguous": "yellow"}


def print_comparison(comparisons: Sequence[Comparison], *, show_paths: bool = False) -> None:
    """Prints the comparisons, which share their base, and why gates refuse; texts of strangers as
    shown() leaves them.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    runs = [comparisons[0].base, *(one.new for one in comparisons)]
    names = run_names(runs)

    def say(text: str, style: str = "") -> None:
        console.print(shown(text, show_paths=show_paths), style=style or None, markup=False, soft_wrap=True)

    def table(
        title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str | None] = ()
    ) -> None:
        if not rows:
            return
        console.print()
        say(title, "bold")
        made = Table(box=None, pad_edge=False, header_style="dim")
        for column in columns:
            made.add_column(escape(shown(column, show_paths=show_paths)), overflow="fold")
        for number, row in enumerate(rows[:ROWS]):
            style = styles[number] if number < len(styles) else None
            made.add_row(*(escape(text) for text in shown(list(row), show_paths=show_paths)), style=style)
        console.print(made)
        if len(rows) > ROWS:
            say(f"and {len(rows) - ROWS:,} more", "dim")

    for name, run in zip(names, runs, strict=True):
        for notice in first_notices(run):
            say(f"{name}: {notice}", "yellow")
    differing = environments(runs)["unlike"]
    table("what differs", ["", *names], [[row["fact"], *row["values"]] for row in differing])
    for name, comparison in zip(names[1:], comparisons, strict=True):
        _print_one(name, names[0], comparison, table)
    best = best_kernels(runs)
    table("which kernel to use", ["op", "dtype", "input", *names], [_best(row) for row in best["rows"]])
    if left_out := base_alone(best, names[0]):
        say(left_out, "dim")
    console.print()
    reasons = reasons_of(comparisons)
    for reason in reasons[:ROWS]:
        say(reason, "red")
    if len(reasons) > ROWS:
        say(f"and {len(reasons) - ROWS:,} more", "red")
    for name, comparison in zip(names[1:], comparisons, strict=True):
        verdict, rest = answer(comparison)
        say(f"{name} against {names[0]}. {rest}")
        say(verdict, "bold")
    if len(comparisons) > 1:
        refused = [
            name for name, comparison in zip(names[1:], comparisons, strict=True) if comparison.reasons
        ]
        say(f"Gates refuse {', '.join(refused) or 'none'}.", "bold")


def _print_one(name: str, base: str, comparison: Comparison, table: Any) -> None:
    failures = status_rows(comparison, "new failure")
    table(
        f"new failures in {name}",
        ["op", "kernel", "dtype", "case", "before", "now"],
        [
            [
                row["op"],
                row["kernel"],
                row["dtype"],
                row["case"],
                row["before"],
                f"{row['now']} {row['timed']}".strip(),
            ]
            for row in failures
        ],
    )
    table(
        f"meaningfully larger errors in {name}",
        ["op", "kernel", "dtype", "case", "before", "now"],
        [
            [row[key] for key in ("op", "kernel", "dtype", "case", "before", "after")]
            for row in error_rows(comparison.worse())
        ],
    )
    speeds = [row for row in speed_rows(comparison) if row["verdict"] != "SAME"]
    table(
        f"time of {name} over that of {base}, where they differ or may",
        ["", "op", "kernel", "dtype", "input", base, name, "ratio", "95 % interval"],
        [
            [
                *(
                    row[key]
                    for key in ("verdict", "op", "kernel", "dtype", "input", "before", "after", "ratio")
                ),
                " ".join(filter(None, (row["interval"], row["note"]))),
            ]
            for row in speeds
        ],
        [COLORS.get(row["kind"]) for row in speeds],
    )


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
    op = row["op"] if row["direction"] == "forward" else f"{row['op']} {row['direction']}"
    return [op, row["dtype"], row["input"], *cells]
