"""Which attention kernel is safe for what: kernels down, what a user asks for across, one answer for each format.

Safe means: every case of the column passed. A failure that is known or declared is no surprise, and yet no safe place.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from suite.formats import DTYPES
from suite.records import PASSING, Record
from suite.report.attention_columns import COLUMNS, PARTS, Column, asked
from suite.report.summaries import first_line, how_bad, times, worst

NAMED = 5
"""Places where a kernel is not safe that a sentence names."""


@dataclass(frozen=True, slots=True)
class Answer:
    """May one use it? kind: its CSS class. mark: on the page. sign: in a terminal. words: in the legend."""

    kind: str
    mark: str
    sign: str
    words: str


FAILED = Answer("failed", "✗", "X", "failed")
KNOWN = Answer("known", "!", "!", "known or declared failure")
OPEN = Answer("open", "?", "?", "not judged, or not run")
PASSED = Answer("passed", "✓", "+", "safe")
PARTLY = Answer("passed partly", "◐", "~", "safe, but supported in part")
UNSUPPORTED = Answer("absent", "–", "-", "not supported")
ANSWERS = (PASSED, PARTLY, FAILED, KNOWN, OPEN, UNSUPPORTED)

Evaluations = list[tuple[Record, bool]]
"""Records of one cell, each with whether its case asks for this one thing only."""


def answer(found: Evaluations) -> Answer:
    """The answer of the records of one kernel, column and format: the worst one counts.

    A case that asks for two things and is not supported says nothing about either; one that asks for this thing alone does.
    """
    statuses = {record.status for record, _ in found}
    if statuses - {*PASSING, "unjudged", "not_run"}:
        return FAILED
    if "known_failure" in statuses:
        return KNOWN
    if statuses & {"unjudged", "not_run"}:
        return OPEN
    if "passed" in statuses:
        return PARTLY if any(alone and record.status == "unsupported" for record, alone in found) else PASSED
    return UNSUPPORTED


@dataclass(frozen=True, slots=True)
class Matrix:
    """The records of attention by row (kernel, with its device where there are several), column and format.

    formats: of the run, widest first. astray: how many records stand in no column.
    """

    cells: dict[str, dict[str, dict[str, Evaluations]]]
    formats: tuple[str, ...]
    astray: int

    @property
    def columns(self) -> list[str]:
        """The columns that hold a record, in order."""
        return [name for name in COLUMNS if any(name in row for row in self.cells.values())]


def matrix(records: Iterable[Record]) -> Matrix:
    """Records of other ops are left out; those whose case or format this version does not know are counted as astray."""
    own = [record for record in records if record.op == "attention"]
    several = len({record.device for record in own}) > 1
    cells: dict[str, dict[str, dict[str, Evaluations]]] = {}
    astray, formats = 0, set()
    for record in own:
        names, alone = asked(record.case)
        if not names or record.dtype not in DTYPES:
            astray += 1
            continue
        formats.add(record.dtype)
        row = cells.setdefault(f"{record.kernel} ({record.device})" if several else record.kernel, {})
        for name in names:
            row.setdefault(name, {}).setdefault(record.dtype, []).append((record, alone))
    for row in cells.values():
        _explain(row)
    return Matrix(cells, tuple(dtype for dtype in DTYPES if dtype in formats), astray)


def _explain(row: dict[str, dict[str, Evaluations]]) -> None:
    """Takes failures of two things at once out of the columns of those that work alone, where the other one fails alone too."""
    alone = {
        (name, dtype)
        for name, formats in row.items()
        for dtype, found in formats.items()
        if any(one and record.status not in ("passed", "unsupported") for record, one in found)
    }
    for name, formats in row.items():
        for dtype, found in formats.items():
            if (name, dtype) not in alone:
                found[:] = [
                    (record, one)
                    for record, one in found
                    if record.status in ("passed", "unsupported") or not any((n, dtype) in alone for n in asked(record.case)[0])
                ] or found


def attention_context(records: Iterable[Record]) -> dict[str, Any] | None:
    """What templates/attention.html shows; None where no record of attention stands in a column."""
    found = matrix(records)
    if not found.cells:
        return None
    everywhere, partly = safe(found)
    parts = []
    for title, columns in PARTS.items():
        shown = [column for column in columns if column.name in found.columns]
        rows = [(kernel, [_chips(row.get(column.name, {})) for column in shown]) for kernel, row in sorted(found.cells.items())]
        if shown:
            parts.append({"title": title, "columns": shown, "rows": rows})
    return {
        "everywhere": everywhere,
        "partly": partly,
        "count": len(found.columns),
        "unsafe": unsafe(found),
        "parts": parts,
        "legend": ANSWERS,
        "astray": found.astray,
    }


def _chips(formats: dict[str, Evaluations]) -> list[tuple[Answer, list[str], str]]:
    """(answer, short names of the formats that have it, what was counted) for each answer in the cell."""
    chips: dict[Answer, tuple[list[str], list[str]]] = {}
    for dtype in DTYPES:
        if dtype in formats:
            names, titles = chips.setdefault(answer(formats[dtype]), ([], []))
            names.append(short(dtype))
            titles.append(_counted(dtype, formats[dtype]))
    return [(given, names, "\n".join(titles)) for given, (names, titles) in chips.items()]


def short(dtype: str) -> str:
    """f32 for float32, bf16 for bfloat16."""
    return dtype.replace("float", "f")


def _counted(dtype: str, found: Evaluations) -> str:
    """How many cases had which status, and the worst of them."""
    records = [record for record, _ in found]
    count = Counter(record.status for record in records)
    text = f"{dtype}: " + ", ".join(f"{n:,} {status.replace('_', ' ')}" for status, n in count.most_common())
    failing = [record for record in records if record.status not in ("passed", "unsupported")]
    if failing:
        bad = worst(failing)
        return f"{text}; the worst is {how(bad)}: {bad.case}"
    if count["unsupported"]:
        reason = next(record.message for record in records if record.status == "unsupported")
        return f"{text} ({first_line(reason)})"
    return text


def how(record: Record) -> str:
    """How a result is wrong, in a word or two."""
    got = (record.got or "").lower()
    if record.overflow and got in ("nan", "inf", "-inf"):
        return "NaN" if got == "nan" else "infinite"
    if record.status in ("unjudged", "not_run"):
        return record.status.replace("_", " ")
    bad = how_bad(record)
    return f"{bad} times of bound" if record.ratio is not None and bad == times(record.ratio) else bad


def safe(found: Matrix) -> tuple[list[str], list[tuple[str, int]]]:
    """(kernels that passed everything, kernels that passed wherever they go, with the number of columns they passed whole)."""
    everywhere, partly = [], []
    for kernel, row in sorted(found.cells.items()):
        answers = {name: {answer(records) for records in formats.values()} for name, formats in row.items()}
        given = set().union(*answers.values())
        if PASSED not in given or given & {FAILED, KNOWN, OPEN}:
            continue
        whole = sum(one == {PASSED} for one in answers.values())
        if whole == len(found.columns):
            everywhere.append(kernel)
        else:
            partly.append((kernel, whole))
    return everywhere, sorted(partly, key=lambda one: -one[1])


def unsafe(found: Matrix) -> list[tuple[str, list[str]]]:
    """(kernel, places) of the kernels that are not safe everywhere: where, how wrong, in which formats, and if that is known."""
    lines = []
    for kernel, row in sorted(found.cells.items()):
        places = _places(row)
        if places:
            more = [f"and in {len(places) - NAMED} more columns"] if len(places) > NAMED else []
            lines.append((kernel, [_place(column, records, row) for column, records in places[:NAMED]] + more))
    return lines


def _places(row: dict[str, dict[str, Evaluations]]) -> list[tuple[Column, list[Record]]]:
    """The fewest columns that hold all that failed: first the one most of whose cases fail."""
    judged = {name: _records(formats, but=("unsupported",)) for name, formats in row.items()}
    left = {id(r): r for records in judged.values() for r in records if r.status != "passed"}
    places = []
    while left:
        bad = {name: [r for r in records if id(r) in left] for name, records in judged.items()}
        name = max((n for n in bad if bad[n]), key=lambda n: (_share(judged[n]), len(bad[n])))
        places.append((COLUMNS[name], bad[name]))
        left = {key: r for key, r in left.items() if all(r is not one for one in bad[name])}
    return places


def _records(formats: dict[str, Evaluations], *, but: tuple[str, ...]) -> list[Record]:
    return [record for found in formats.values() for record, _ in found if record.status not in but]


def _share(records: Sequence[Record]) -> float:
    return sum(record.status != "passed" for record in records) / len(records)


def _place(column: Column, records: Sequence[Record], row: dict[str, dict[str, Evaluations]]) -> str:
    wrong = {record.dtype for record in records}
    judged = {record.dtype for record in _records(row[column.name], but=("unsupported",))}
    where = "" if wrong == judged else " in " + ", ".join(dtype for dtype in DTYPES if dtype in wrong)
    known = ", known" if all(record.status == "known_failure" for record in records) else ""
    return f"{column.where}{where} ({how(worst(records))}{known})"


def print_attention(console: Any, records: Iterable[Record], *, width: int = 120) -> None:
    """Prints the matrix and its sentences into a rich console; nothing where fewer than two columns hold records."""
    from rich.table import Table
    from rich.text import Text

    from suite.report.visible import NAME, visible

    found = matrix(records)
    if len(found.columns) < 2:
        return
    name_width = 28
    for columns in PARTS.values():
        shown = [column for column in columns if column.name in found.columns]
        if not shown:
            continue
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0), width=None)
        table.add_column("attention", no_wrap=True, max_width=name_width, overflow="ellipsis")
        for column in shown:
            table.add_column(column.code, no_wrap=True, min_width=4)
        for kernel, row in sorted(found.cells.items()):
            signs = [_signs(row.get(column.name, {}), found.formats) for column in shown]
            styles = ["red" if "X" in s else "yellow" if "!" in s or "?" in s else "" for s in signs]
            label = visible(kernel, limit=NAME, lines=False)
            table.add_row(Text(label), *(Text(s, style=style) for s, style in zip(signs, styles, strict=True)))
        console.print()
        console.print(table, width=min(width, console.width))
    formats = " ".join(found.formats)
    legend = ", ".join(f"{a.sign} {a.words}" for a in ANSWERS)
    console.print(f"{legend}, . not run; one sign for all formats, or one for each of {formats}", style="dim", markup=False, width=min(width, console.width))
    codes = ", ".join(f"{COLUMNS[n].code} = {COLUMNS[n].heading}" for n in found.columns if COLUMNS[n].code != COLUMNS[n].heading)
    console.print(codes, style="dim", markup=False, width=min(width, console.width))
    everywhere, partly = safe(found)
    if everywhere:
        console.print(visible(f"Safe for everything: {', '.join(everywhere)}", lines=False), markup=False)
    if partly:
        named = ", ".join(f"{kernel} ({whole})" for kernel, whole in partly)
        text = f"Safe wherever they go (columns of {len(found.columns)} that they have whole): {named}"
        console.print(visible(text, lines=False), markup=False)
    for kernel, places in unsafe(found):
        console.print(f"Not safe: {visible(kernel, limit=NAME, lines=False)} {'; '.join(places)}", markup=False)


def _signs(formats: dict[str, Evaluations], every: Sequence[str]) -> str:
    """One sign where the formats that were run agree, else one for each format of the run."""
    signs = [answer(formats[d]).sign if d in formats else "." for d in every]
    agreed = set(signs) - {"."}
    return "".join(signs) if len(agreed) > 1 else agreed.pop() if agreed else "."


PLACES = {"key": "which keys", "head": "which heads", "query": "which queries"}


def where(record: Record) -> list[tuple[str, str]]:
    """Where a record's failures sit, with a label for each: of attention keys, heads and queries, of rows the place in the tile."""
    named = [(label, record.tiles[name]) for name, label in PLACES.items() if name in record.tiles]
    tiles = [words for name, words in record.tiles.items() if name not in PLACES]
    return [*named, *([("in the tile", "; ".join(tiles))] if tiles else [])]
