"""Which attention kernel is safe for what: kernels down, what a user asks for across, one answer
for each format.

Safe means: every case of the column passed. A failure that is known or declared is no surprise, and
yet no safe place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from suite.formats import DTYPES
from suite.ops.attention import OP as ATTENTION
from suite.records.record import PASSING, Record
from suite.report.attention_columns import COLUMNS, Asked, asked
from suite.report.summaries import how_bad, worst
from suite.report.words import in_order, spaced, times
from suite.settings import Wording

MOST_DRAWN = 2**27
"""Entries of masks that are drawn for one report at most: ten seconds or so."""
NAMED = 5
"""Places where a kernel is not safe that a sentence names."""


@dataclass(frozen=True, slots=True)
class Answer:
    """May one use it?"""

    kind: str
    """Its CSS class."""
    mark: str
    """Its sign on the page."""
    sign: str
    """Its sign in a terminal."""
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
Row = dict[str, dict[str, Evaluations]]
"""The records of one kernel, by column and format."""


def answer(found: Evaluations) -> Answer:
    """The answer of the records of one kernel, column and format: the worst one counts.

    A case that asks for two things and is not supported says nothing about either; one that asks
    for this thing alone does.
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
    """The records of attention by row (the kernel; its device too, of several), column and format."""

    cells: dict[str, Row]
    formats: tuple[str, ...]
    """Of the run, widest first."""
    astray: int
    """How many records stand in no column."""

    @property
    def columns(self) -> list[str]:
        """The columns that hold a record, in order."""
        return [name for name in COLUMNS if any(name in row for row in self.cells.values())]


def matrix(records: Iterable[Record]) -> Matrix:
    """Records of other ops are left out; those whose case or format this version does not know are
    counted as astray.
    """
    own = [record for record in records if record.op == ATTENTION.name]
    several = len({record.device for record in own}) > 1
    cells: dict[str, Row] = {}
    of_cases = _asked(record.case for record in own)
    astray, formats = 0, set()
    for record in own:
        names, alone, _ = of_cases[record.case]
        if not names or record.dtype not in DTYPES:
            astray += 1
            continue
        formats.add(record.dtype)
        row = cells.setdefault(f"{record.kernel} ({record.device})" if several else record.kernel, {})
        for name in names:
            row.setdefault(name, {}).setdefault(record.dtype, []).append((record, alone))
    cells = {kernel: _explained(row) for kernel, row in cells.items()}
    return Matrix(cells, tuple(in_order(formats)), astray)


def _asked(cases: Iterable[str]) -> dict[str, Asked]:
    """What each of these cases asks for; nothing, once masks of MOST_DRAWN entries have been drawn
    to say so.
    """
    found: dict[str, Asked] = {}
    drawn = 0
    for case in cases:
        if case not in found:
            found[case] = asked(case) if drawn < MOST_DRAWN else Asked()
            drawn += found[case].drawn
    return found


def _explained(row: Row) -> Row:
    """The row without the records of two things at once of which the other one is to blame: they
    say nothing of this one.

    To blame for a failure is what also fails alone, in the same format; for no support, what is
    never asked with anything but supported things and yet is not supported.
    """
    failing = {
        (name, dtype)
        for name, formats in row.items()
        for dtype, found in formats.items()
        if any(alone and record.status not in ("passed", "unsupported") for record, alone in found)
    }
    supported = {name for name, formats in row.items() if _records(formats, but=("unsupported",))}
    lacking = {
        name
        for name, formats in row.items()
        for record in _records(formats, but=())
        if record.status == "unsupported" and supported.issuperset(set(asked(record.case).columns) - {name})
    }

    def innocent(name: str, record: Record) -> bool:
        columns = asked(record.case).columns
        if record.status == "unsupported":
            return name not in lacking and not lacking.isdisjoint(columns)
        failed = {column for column in columns if (column, record.dtype) in failing}
        return record.status != "passed" and name not in failed and bool(failed)

    explained: Row = {}
    for name, formats in row.items():
        for dtype, found in formats.items():
            kept = [(record, alone) for record, alone in found if not innocent(name, record)]
            if kept:
                explained.setdefault(name, {})[dtype] = kept
    return explained


def how(record: Record) -> str:
    """How a result is wrong, in a word or two."""
    got = (record.judgement.got or "").lower()
    if record.judgement.overflow and got in ("nan", "inf", "-inf"):
        return "NaN" if got == "nan" else "infinite"
    if record.status in ("unjudged", "not_run"):
        return spaced(record.status)
    bad = how_bad(record)
    return (
        f"{bad} × bound"
        if record.judgement.ratio is not None and bad == times(record.judgement.ratio)
        else bad
    )


def safe(found: Matrix) -> tuple[list[str], list[tuple[str, int]]]:
    """(kernels that passed everything, kernels that passed wherever they go, with the number of
    columns they passed whole).
    """
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


def unsafe(found: Matrix) -> list[tuple[Answer, str, list[str]]]:
    """(worst answer, kernel, places) of kernels that are not safe everywhere; a place: where, in
    which formats, how wrong.
    """
    lines = []
    for kernel, row in sorted(found.cells.items()):
        places = _places(row)
        if places:
            more = [f"and in {len(places) - NAMED} more columns"] if len(places) > NAMED else []
            given = {answer(records) for formats in row.values() for records in formats.values()}
            worst_answer = next(one for one in (FAILED, KNOWN, OPEN) if one in given)
            lines.append(
                (
                    worst_answer,
                    kernel,
                    [_place(column, records, row) for column, records in places[:NAMED]] + more,
                )
            )
    return lines


def _places(row: Row) -> list[tuple[Wording, list[Record]]]:
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


def _place(column: Wording, records: Sequence[Record], row: Row) -> str:
    wrong = {record.dtype for record in records}
    judged = {record.dtype for record in _records(row[column.name], but=("unsupported",))}
    where = "" if wrong == judged else " in " + ", ".join(in_order(wrong))
    known = ", known" if all(record.status == "known_failure" for record in records) else ""
    return f"{column.where}{where} ({how(worst(records))}{known})"


PLACES = {"key": "which keys", "head": "which heads", "query": "which queries"}


def where(record: Record) -> list[tuple[str, str]]:
    """Where a record's failures sit, each with a label: which keys, heads and queries, else the
    place in the tile.
    """
    named = [
        (label, record.judgement.tiles[name])
        for name, label in PLACES.items()
        if name in record.judgement.tiles
    ]
    tiles = [words for name, words in record.judgement.tiles.items() if name not in PLACES]
    return [*named, *([("in the tile", "; ".join(tiles))] if tiles else [])]
