"""One table for the page, the terminal and Markdown; and the grouping that tables begin with."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from suite.records.record import Measurement
from suite.report.visible import NAME, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def by(rows: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The rows of each key, keys and rows in the order in which they come."""
    groups: dict[K, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def alike(rows: Iterable[tuple[str, K]]) -> list[tuple[str, K]]:
    """(names, cells) of rows (name, cells): those with the same cells become one."""
    groups = by(rows, lambda row: row[1])
    return [(", ".join(dict.fromkeys(name for name, _ in group)), cells) for cells, group in groups.items()]


def kernel_of(m: Measurement) -> str:
    """The kernel, with its device unless that is the CPU."""
    return m.kernel if m.device == "cpu" else f"{m.kernel} ({m.device})"


def reasons(measurements: Iterable[Measurement], field: str) -> list[tuple[str, str]]:
    """(kernels, what this field of their data says), where it says something."""
    said = sorted((kernel_of(m), m.data[field]) for m in measurements if m.data.get(field))
    return alike(said)


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    kind: str = ""
    """How it looks on a page, a CSS class: "n" for numbers, "words", "tight", "note"; "row" names the row."""
    over: str = ""
    """The heading above this one and its neighbours with the same."""


def numbers(*headings: str, over: str = "") -> list[Column]:
    return [Column(heading, "n", over) for heading in headings]


class Cell(NamedTuple):
    """A cell that is more than its text."""

    text: str
    chip: str = ""
    """What the text means, a CSS class: "failed", "passed", "known"; on a page it stands in a box."""
    small: Sequence[str] = ()
    """Lines below the text."""
    kind: str = ""
    """A CSS class of the cell itself."""
    title: str = ""
    """What a page shows when one points at the cell."""
    code: bool = False
    """The text is an identifier, in the page's fixed-width letters."""
    bold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows below columns. Cells are text, Cell, or markup of ours."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    styles: Sequence[str] = field(default=())
    """What each row means: a CSS class on a page."""
    left_out: int = 0
    """How many further rows there are."""
    kind: str = ""
    """A CSS class."""

    def cut(self, most: int) -> Table:
        """The first rows, with the number of the others."""
        return Table(
            columns=self.columns,
            rows=self.rows[:most],
            styles=self.styles[:most],
            left_out=self.left_out + max(len(self.rows) - most, 0),
            kind=self.kind,
        )

    @property
    def heads(self) -> list[tuple[Column, int]]:
        """The upper row of headings, each with the number of columns below it; 0 for a column of its
        own. [] where no columns share a heading.
        """
        if not any(column.over for column in self.columns):
            return []
        found: list[tuple[Column, int]] = []
        for column in self.columns:
            if column.over and found and found[-1][0].heading == column.over and found[-1][1]:
                found[-1] = (found[-1][0], found[-1][1] + 1)
            else:
                found.append((Column(column.over), 1) if column.over else (column, 0))
        return found


def console_of(width: int) -> Console:
    """Standard output, so many characters wide where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = width
    return console


def rich_table(*names: str, numbers: Iterable[str] = (), wrap: bool = True, **options: Any) -> RichTable:
    """An empty table of the terminal; numbers stand to the right. wrap: names may take several lines;
    else the headings of the numbers may.
    """
    from rich.table import Table as RichTable

    table = RichTable(box=None, pad_edge=False, header_style="bold", **options)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=not wrap)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=wrap)
    return table


def shown(text: str) -> str:
    """A name of strangers as rich prints it."""
    from rich.markup import escape

    return escape(visible(text, limit=NAME, lines=False))


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: range) -> list[str]:
    """The lines of a table of Markdown; the columns of these numbers stand to the right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(headings))]
    return [f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)]
