"""Which attention kernel is safe for what, in a terminal: the page's matrix with a sign for each
cell, and its sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from suite.records.record import Record
from suite.report.attention import ANSWERS, OPEN, Evaluations, answer, matrix, safe, unsafe
from suite.report.attention_columns import COLUMNS, PARTS
from suite.report.tables import rich_table
from suite.report.visible import NAME, visible

WIDTH = 120
"""Characters of the table at most."""
KERNEL = 28
"""Characters of a kernel's name in it."""
NOTHING = "."
STYLES = {"X": "red", "!": "yellow", "?": "yellow"}


def print_attention(console: Console, records: Iterable[Record]) -> None:
    """Prints both parts of the matrix, what signs and headings mean, and who is safe; nothing of
    fewer than two columns.
    """
    found = matrix(records)
    if len(found.columns) < 2:
        return
    width = min(WIDTH, console.width)
    for part in PARTS.values():
        shown = [column for column in part if column.name in found.columns]
        table = rich_table(padding=(0, 1, 0, 0))
        table.add_column("attention", no_wrap=True, max_width=KERNEL, overflow="ellipsis")
        for column in shown:
            table.add_column(column.code, no_wrap=True, min_width=4)
        for kernel, row in sorted(found.cells.items()):
            cells = [_signs(row.get(column.name, {}), found.formats) for column in shown]
            table.add_row(Text(visible(kernel, limit=NAME, lines=False)), *cells)
        if shown:
            console.print()
            console.print(table, width=width)
    legend = ", ".join(f"{given.sign} {given.words}" for given in ANSWERS)
    formats = f"one sign for all formats, or one for each of {' '.join(found.formats)}"
    codes = [COLUMNS[name] for name in found.columns]
    headings = ", ".join(
        f"{column.code} = {column.heading}" for column in codes if column.code != column.heading
    )
    console.print(f"{legend}, {NOTHING} no case; {formats}", style="dim", markup=False, width=width)
    console.print(headings, style="dim", markup=False, width=width)
    everywhere, partly = safe(found)
    named = ", ".join(f"{kernel} ({whole})" for kernel, whole in partly)
    lines = [f"Safe for everything: {', '.join(everywhere)}"] if everywhere else []
    lines += (
        [f"Safe wherever they go, with how many of {len(codes)} columns they have whole: {named}"]
        if partly
        else []
    )
    for given, kernel, places in unsafe(found):
        lines.append(f"Not {'known' if given is OPEN else 'safe'}: {kernel} {'; '.join(places)}")
    for line in lines:
        console.print(visible(line, lines=False), markup=False, soft_wrap=True)


def _signs(formats: dict[str, Evaluations], every: Sequence[str]) -> Text:
    """One sign where the formats that were run agree, else one for each format of the run."""
    signs = [answer(formats[dtype]).sign if dtype in formats else NOTHING for dtype in every]
    agreed = set(signs) - {NOTHING}
    text = "".join(signs) if len(agreed) > 1 else "".join(agreed) or NOTHING
    return Text(text, style=next((style for sign, style in STYLES.items() if sign in text), ""))
