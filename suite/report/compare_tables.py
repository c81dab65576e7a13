"""The tables of a comparison, for its page and for the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from suite.records.record import Measurement, Record
from suite.report.compare import Comparison, Pair, statuses_of
from suite.report.speed import SPEEDS, Speed, median, times_of
from suite.report.tables import Cell, Column, Table, by, numbers
from suite.report.words import count, digits, first_line, seconds, spaced, times, with_direction

WIDTH = 180
"""Pixels of the drawing of an interval."""
OCTAVE = 85
"""Pixels for a factor of 2."""
CHIPS = {"new failure": "failed", "mended": "passed"}
WHAT = (Column("op"), Column("kernel", "words"), Column("dtype"), Column("case", "words"))


def status_table(comparison: Comparison, change: str) -> Table:
    """What has this change: its status before and now, and why."""
    why = Column("why, and the command to run it again", "words command")
    rows = [_status_row(one, change) for one in comparison.changes()[change]]
    return Table(columns=(*WHAT, Column("before", "tight"), Column("now", "tight"), why), rows=rows)


def _status_row(one: Pair | Speed, change: str) -> list[str | Cell]:
    row, before, now = statuses_of(one)
    timed = ["while timed"] if isinstance(row, Measurement) else []
    message = row.message if isinstance(row, Record) else row.data.get("note", "")
    command = [row.reproduce] if isinstance(row, Record) and change == "new failure" and row.reproduce else []
    return [
        *_what(row),
        spaced(before or "–"),
        Cell(spaced(now or "–"), chip=CHIPS.get(change, "plain"), small=timed),
        Cell(first_line(message), small=command),
    ]


def _what(row: Record | Measurement) -> list[str | Cell]:
    return [row.op, row.kernel, row.dtype, Cell(row.case, code=True)]


def error_table(pairs: Sequence[tuple[Record, Record]]) -> Table:
    """The errors of evaluations (base, new), before and now."""
    rows = [
        [
            *_what(new),
            error(base),
            Cell(error(new), small=[] if new.status == "passed" else [spaced(new.status)]),
        ]
        for base, new in pairs
    ]
    return Table(columns=(*WHAT, Column("before", "tight"), Column("now", "tight")), rows=rows)


def error(m: Measurement | Record) -> str:
    """The error of a judged output: over its bound, and in ulps."""
    ratio, ulp = (
        (m.judgement.ratio, m.judgement.max_ulp)
        if isinstance(m, Record)
        else (m.data.get("ratio"), m.data.get("max_ulp"))
    )
    return of_bound(ratio) + (f", {digits(_number(ulp))} ulp" if ulp is not None else "")


def of_bound(ratio: Any) -> str:
    return f"{times(_number(ratio))} × bound"


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def input_of(case: str) -> str:
    """A case id without its op and a seed of 0."""
    return case.partition("/")[2].removesuffix("/s0") or case


def speed_table(comparison: Comparison, base: str, new: str) -> Table:
    """The measurements that both runs have, SLOWER first, the furthest from 1 first."""
    columns = (
        Column("verdict"),
        Column("op", "tight"),
        Column("kernel", "words"),
        Column("dtype"),
        Column("input", "words input"),
        *numbers(base, new, "ratio"),
        Column("95 % interval", "tight"),
        Column("½ … 1 … 2"),
    )
    failures = Counter(
        (r.op, r.kernel, r.dtype) for r, _, _ in map(statuses_of, comparison.changes()["new failure"])
    )
    speeds = [speed for speed in comparison.speeds if speed.verdict]
    speeds.sort(key=lambda s: (SPEEDS.index(s.verdict), -abs(math.log(s.ratio or 1.0))))
    rows = []
    for speed in speeds:
        m = speed.measurement
        failed = failures[m.op, m.kernel, m.dtype] if speed.verdict == "FASTER" else 0
        rows.append(_speed_row(speed, failed))
    return Table(columns=columns, rows=rows)


def _speed_row(speed: Speed, failures: int) -> list[Any]:
    """failures: new ones of that kernel and format, which make FASTER no gain."""
    m = speed.measurement
    sides = [times_of(one) if one is not None else [] for one in (speed.base, speed.new)]
    interval = (
        "" if speed.low is None or speed.high is None else f"{_factor(speed.low)} to {_factor(speed.high)}"
    )
    note = but(failures) or speed.note
    return [
        Cell(speed.verdict, chip="plain" if failures else speed.verdict.lower().replace(" ", "-")),
        with_direction(m.op, m.data["direction"]),
        m.kernel,
        m.dtype,
        Cell(input_of(m.case), code=True),
        *(seconds(median(side)) if side else "" for side in sides),
        "" if speed.ratio is None else _factor(speed.ratio),
        Cell(interval, small=[note] if note else []),
        _drawn(speed),
    ]


def _factor(value: float) -> str:
    return f"{value:.3f}" if 0.1 <= value < 10 else f"{value:.3g}"


def _drawn(speed: Speed) -> Markup:
    """The interval on an axis of factors, 1 in the middle."""
    if speed.low is None or speed.high is None or speed.ratio is None:
        return Markup("")

    def at(ratio: float) -> float:
        return round(min(max(WIDTH / 2 + OCTAVE * math.log2(ratio), 3), WIDTH - 3), 1)

    low, high, middle = at(speed.low), at(speed.high), at(speed.ratio)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} 16" width="{WIDTH}" height="16" aria-hidden="true">'
        f'<line class="axis" x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="0" y2="16"/>'
        f'<line class="range" x1="{low}" x2="{max(high, low + 1.5)}" y1="8" y2="8"/>'
        f'<circle class="middle" cx="{middle}" cy="8" r="3.2"/></svg>'
    )


def but(failures: int) -> str:
    """What stands beside a gain of a kernel that newly fails."""
    return f"but {count(failures, 'new failure')}" if failures else ""


def one_sided_table(changes: Sequence[Pair | Speed]) -> Table:
    """For each kernel how many evaluations, and how many measurements of time."""
    groups = by((statuses_of(one)[0] for one in changes), lambda row: (row.op, row.kernel))
    rows = []
    for (op, kernel), group in sorted(groups.items(), key=lambda item: item[0]):
        evaluations = sum(isinstance(row, Record) for row in group)
        rows.append([op, kernel, *map(_counted, (evaluations, len(group) - evaluations))])
    return Table(
        columns=(Column("op"), Column("kernel", "words"), *numbers("evaluations", "times")), rows=rows
    )


def _counted(number: int) -> str:
    return f"{number:,}" if number else ""


def accuracy_table(pairs: Sequence[Pair]) -> Table:
    """A row for each op, kernel and format: the worst passing errors, how the errors changed, and
    the bits.
    """
    columns = (
        Column("op"),
        Column("kernel", "words"),
        Column("dtype"),
        Column("version", "note"),
        *numbers("before", "now", over="worst passing error"),
        *numbers("equal", "better", "worse", over="evaluations with an error that is"),
        *numbers("better", "worse", over="of them meaningfully"),
        *numbers("same", "other", "not comparable", over="bits of the output"),
    )
    failures = Counter(_subject(pair) for pair in pairs if pair.change == "new failure")
    groups = by((pair for pair in pairs if pair.accuracy.change), _subject)
    rows = []
    for subject, group in sorted(groups.items(), key=lambda item: item[0]):
        much_worse = sum(pair.accuracy == ("worse", True) for pair in group)
        rows.append((much_worse, failures[subject], _accuracy_row(group, but(failures[subject]))))
    rows.sort(key=lambda row: (not row[1], -row[0]))
    styles = ["worse" if worse or failed else "" for worse, failed, _ in rows]
    return Table(columns=columns, rows=[row for _, _, row in rows], styles=styles)


def _subject(pair: Pair) -> tuple[str, str, str, str]:
    r = pair.record
    return r.op, r.kernel, r.direction, r.dtype


def _accuracy_row(group: Sequence[Pair], failing: str) -> list[str | Cell]:
    r = group[0].record
    versions = dict.fromkeys(r.kernel_version for r in (group[0].base, group[0].new) if r is not None)
    changes = Counter(pair.accuracy.change for pair in group)
    meaningful = Counter(pair.accuracy.change for pair in group if pair.accuracy.meaningful)
    bits = Counter(pair.bits for pair in group)
    return [
        with_direction(r.op, r.direction),
        r.kernel,
        r.dtype,
        Cell(" → ".join(versions), code=True),
        _worst_passing([pair.base for pair in group]),
        Cell(_worst_passing([pair.new for pair in group]), small=[failing] if failing else []),
        *(_counted(changes[name]) for name in ("equal", "better", "worse")),
        *(_counted(meaningful[name]) for name in ("better", "worse")),
        *(_counted(bits[name]) for name in ("same", "other", "not comparable")),
    ]


def _worst_passing(side: Sequence[Record | None]) -> str:
    errors = [
        r.judgement.ratio
        for r in side
        if r is not None and r.status == "passed" and r.judgement.ratio is not None
    ]
    return times(max(errors)) if errors else ""
