"""What a run folder holds, made fit for a page: every text of it private and visible, every list of
a bounded length.

A page is made of these alone, so that no chapter has to remember where its words come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from suite.records.flat import flat, nested
from suite.records.record import Measurement, Record
from suite.records.store import Run
from suite.report.privacy import private
from suite.report.summaries import severity
from suite.report.tables import by
from suite.report.visible import NAME, TEXT, visible

T = TypeVar("T", Record, Measurement)
Change = Callable[[str], str]

ITEMS = 32
"""Entries of a record's list that are shown."""
POINTS = 512
"""Entries of a measurement's list that are shown."""
NOTICES = 50
"""How many notices a page shows; it says what it leaves out, here and below."""
KERNELS = 200
FAMILIES = 64
FORMATS = 12
MEASUREMENTS = {"throughput": 10_000}
"""How many measurements of a kind a run's page shows. A bench has thousands of points, each a cell
of a table; others have a curve or a table each, and ANY suffice.
"""
ANY = 1000
LONG = ("message", "known", "reproduce", "output", "warnings", "note")


def presentable(run: Run, *, show_paths: bool) -> Run:
    """The run as a page shows it."""
    keep: Change = str if show_paths else private
    name, text = _memoised(keep, NAME), _memoised(keep, TEXT)
    notices = [text(notice) for notice in run.notices[:NOTICES]]
    if len(run.notices) > NOTICES:
        notices.append(f"{len(run.notices) - NOTICES:,} more notices")
    measurements, left_out = _of_each_kind(run.measurements)
    notices += [f"{n:,} measurements of kind {text(kind)} are left out" for kind, n in left_out.items()]
    return Run(
        Path(name(run.folder.name) or "."),
        mapped(run.environment, name, POINTS),
        tuple(changed(record, name, long=text) for record in run.records),
        tuple(notices),
        tuple(changed(m, name, long=text, items=POINTS) for m in measurements),
    )


def _of_each_kind(measurements: Sequence[Measurement]) -> tuple[list[Measurement], Counter[str]]:
    """(the first of each kind, how many of which kind are left out)."""
    seen, left_out, kept = Counter[str](), Counter[str](), []
    for m in measurements:
        seen[m.kind] += 1
        if seen[m.kind] <= MEASUREMENTS.get(m.kind, ANY):
            kept.append(m)
        else:
            left_out[m.kind] += 1
    return kept, left_out


def fit(text: str, *, show_paths: bool) -> str:
    """A text of this suite's own with names of strangers in it, as a page shows it."""
    return visible(text if show_paths else private(text), lines=False)


def unnamed(records: Iterable[Record]) -> Iterator[Record]:
    """The records without home directories, user and host names; whole, as records.csv has them."""
    change = _remembered(private)
    return (changed(record, change, items=None) for record in records)


def changed(row: T, name: Change, *, long: Change | None = None, items: int | None = ITEMS) -> T:
    """The record or measurement with its texts changed, those of LONG by `long`, and its lists cut
    to so many items.
    """
    texts = {}
    values = flat(row)
    for column, value in values.items():
        if value and isinstance(value, (str, tuple, dict)):
            shown = mapped(value, long if long is not None and column in LONG else name, items, long=long)
            if shown != value:
                texts[column] = shown
    return nested(type(row), values | texts) if texts else row


def mapped(value: Any, change: Change, items: int | None, *, long: Change | None = None) -> Any:
    """The value with each text in it changed, at any depth, those of a dict's LONG by `long`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {
            change(str(key)): mapped(item, long if long is not None and key in LONG else change, items)
            for key, item in islice(value.items(), items)
        }
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, change, items) for item in value[:items])
    return value


def bounded(records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record], list[str]]:
    """(all records of the kernels that the tables show, those of them whose families and formats
    are shown too, what is left out), the worst of each where there are too many.
    """
    notes, of_kernels = [], records
    groups: list[tuple[str, int, Callable[[Record], tuple[str, ...]]]] = [
        ("kernels", KERNELS, lambda r: (r.op, r.kernel)),
        ("families of inputs", FAMILIES, lambda r: (r.op, r.family)),
        ("formats", FORMATS, lambda r: (r.dtype,)),
    ]
    for noun, most, key in groups:
        found = by(records, key)
        if len(found) > most:
            worst = {name: max(map(severity, group)) for name, group in found.items()}
            kept = set(sorted(worst, key=lambda one: worst[one], reverse=True)[:most])
            records = [record for record in records if key(record) in kept]
            of_kernels = records if noun == "kernels" else of_kernels
            notes.append(
                f"The tables show the {most} worst of {len(found):,} {noun}; the records beside this page"
                " have them all."
            )
    return of_kernels, records, notes


def _memoised(keep: Change, limit: int) -> Change:
    """The change from text to what is shown of it; most texts of a run stand in many of its records."""
    return _remembered(lambda text: visible(keep(text), limit=limit, lines=limit == TEXT))


def _remembered(change: Change) -> Change:
    known: dict[str, str] = {}

    def remembered(text: str) -> str:
        if text not in known:
            known[text] = change(text)
        return known[text]

    return remembered
