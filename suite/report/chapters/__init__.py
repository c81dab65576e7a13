"""The chapters of report.html. Every module of this package is one: it is found because it is here.

A chapter has a template of its name in suite/report/templates, and defines
    PLACE       where it stands on the page: chapters are in the order of their numbers
    context     Found -> what its template shows, by name; None leaves the chapter out
One that shows measurements also defines
    KIND        the kind of measurement that it shows
    is_sound    Measurement -> whether it has the documented shape: strangers wrote it
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from suite.records.record import Measurement, Record
from suite.records.store import Run
from suite.report.pages import fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What chapters are made of. Every text in it is private and visible."""

    runs: Sequence[Run] = ()
    records: Sequence[Record] = ()
    """Of the kernels, families and formats that tables show. The op of a backward pass says so."""
    of_kernels: Sequence[Record] = ()
    """The records of the same kernels in every family and format."""
    judged: Sequence[Record] = ()
    """Every record, with its op as it is."""
    measurements: Sequence[Measurement] = ()
    timed_alone: bool = False
    """Only the easy inputs that were timed were judged."""

    def measured(self, kind: str) -> list[Measurement]:
        return [m for m in self.measurements if m.kind == kind]


@dataclass(frozen=True, slots=True)
class Chapter:
    """What a chapter's module defines."""

    name: str
    place: int
    context: Callable[[Found], dict[str, Any] | None]
    kind: str
    """"" for a chapter that shows no measurements."""
    is_sound: Callable[[Measurement], bool]

    def render(self, found: Found) -> Markup:
        """The chapter as HTML, "" where it is left out."""
        context = self.context(found)
        return Markup("") if context is None else Markup(fill(f"{self.name}.html", **context))


@functools.cache
def chapters() -> dict[str, Chapter]:
    """The chapters by name, in the order of the page."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        one = importlib.import_module(f"{__name__}.{module.name}")
        kind, is_sound = getattr(one, "KIND", ""), getattr(one, "is_sound", lambda _: True)
        found.append(Chapter(module.name, one.PLACE, one.context, kind, is_sound))
    return {chapter.name: chapter for chapter in sorted(found, key=lambda chapter: chapter.place)}


def sound(measurements: Sequence[Measurement]) -> tuple[list[Measurement], list[str]]:
    """The measurements that a chapter can show, and a sentence for each kind that has others."""
    checks = {chapter.kind: chapter.is_sound for chapter in chapters().values() if chapter.kind}
    kept, left_out = [], Counter[str]()
    for m in measurements:
        if m.kind in checks:
            if checks[m.kind](m):
                kept.append(m)
            else:
                left_out[m.kind] += 1
    return kept, [
        f"{left_out[kind]:,} measurements of kind {kind} are of no known shape."
        for kind in checks
        if left_out[kind]
    ]
