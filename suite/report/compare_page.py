"""The page of `compare`: one self-contained file without scripts or outside requests, light and dark.

It answers two questions: is the new version worse, and which kernel should be used here? Every text
of strangers passes shown() once, when the page's context is whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from suite.report.compare import CHANGES, Comparison
from suite.report.compare_best import base_alone, best_kernels
from suite.report.compare_tables import (
    accuracy_table,
    error_table,
    one_sided_table,
    speed_table,
    status_table,
)
from suite.report.compare_words import answer, environments, notices_of, reasons_of, run_names
from suite.report.pages import fill
from suite.report.privacy import private
from suite.report.speed import SPEEDS
from suite.report.tables import Cell, Column, Table
from suite.report.visible import NAME, visible

ROWS = 200
"""Rows of a table that are shown; the file of --csv has them all."""
REASONS = 12
TITLES = {
    "new failure": "New failures",
    "no verdict now": "Unsupported now",
    "mended": "Mended",
    "other verdict": "Other changes",
}


def render(comparisons: Sequence[Comparison], *, gates: str = "", show_paths: bool = False) -> str:
    """The page of these comparisons, which share their base, as text.

    gates: what --fail-on and --baseline asked, in words. show_paths: leave home directories, user
    and host names as they are.
    """
    runs = [comparisons[0].base, *(one.new for one in comparisons)]
    names = run_names(runs)
    reasons, facts = reasons_of(comparisons), environments(runs)
    best, alone = best_kernels(runs)
    context = {
        "names": names,
        "answers": [(name, *answer(one)) for name, one in zip(names[1:], comparisons, strict=True)],
        "gates": gates,
        "reasons": reasons[:REASONS],
        "more_reasons": max(len(reasons) - REASONS, 0),
        "unlike": _environment_table(names, facts["unlike"]),
        "alike": [(fact, values[0]) for fact, values in facts["alike"]],
        "facts_left_out": facts["left_out"],
        "best": best[:ROWS],
        "more_best": max(len(best) - ROWS, 0),
        "base_alone": base_alone(alone, names[0]),
        "comparisons": [
            _chapter(names[0], name, one) for name, one in zip(names[1:], comparisons, strict=True)
        ],
        "notices": [line for name, run in zip(names, runs, strict=True) for line in notices_of(name, run)],
    }
    return fill("compare.html", **shown(context, show_paths=show_paths))


def shown(value: Any, *, show_paths: bool = False) -> Any:
    """The value with each text in it private and visible; what names or styles a part of the page is
    ours and stays.
    """
    known: dict[str, str] = {}

    def text(raw: str) -> str:
        if raw not in known:
            known[raw] = visible(raw if show_paths else private(raw), limit=2 * NAME, lines=False)
        return known[raw]

    def change(item: Any) -> Any:
        if isinstance(item, Markup):
            return item
        if isinstance(item, str):
            return text(item)
        if isinstance(item, Table):
            return replace(item, columns=change(item.columns), rows=change(item.rows))
        if isinstance(item, Column):
            return item._replace(heading=text(item.heading), over=text(item.over))
        if isinstance(item, Cell):
            return item._replace(text=text(item.text), small=change(item.small), title=text(item.title))
        if isinstance(item, dict):
            return {key: change(inner) for key, inner in item.items()}
        return [change(inner) for inner in item] if isinstance(item, list | tuple) else item

    return change(value)


def _environment_table(names: Sequence[str], unlike: Sequence[tuple[str, Sequence[str]]]) -> Table:
    rows = [
        [fact, *(Cell(value, kind="differs" if value != values[0] else "") for value in values)]
        for fact, values in unlike
    ]
    return Table(
        columns=[Column("what differs", "row"), *(Column(name, "words") for name in names)], rows=rows
    )


def _chapter(base: str, name: str, comparison: Comparison) -> dict[str, Any]:
    changes, counts = comparison.changes(), comparison.count()
    titles = []
    for change in CHANGES:
        timed = f"times {change}" if change in ("new", "gone") else f"{change} while timed"
        titles += [(change, counts["change"][change]), (timed, counts["timed"][change])]
    return {
        "name": name,
        "titles": [(title, count) for title, count in titles if count],
        "verdicts": [(verdict, count) for verdict in SPEEDS if (count := counts["speed"][verdict])],
        "same_environment": comparison.same_environment,
        "threshold": f"{100 * comparison.threshold:g} %",
        "changes": [
            (title, status_table(comparison, change).cut(ROWS))
            for change, title in TITLES.items()
            if changes[change]
        ],
        "one_sided": [
            (title, one_sided_table(changes[change]).cut(ROWS))
            for change, title in (("new", f"Only in {name}"), ("gone", f"Gone: only in {base}"))
            if changes[change]
        ],
        "speeds": speed_table(comparison, base, name).cut(ROWS),
        "accuracy": accuracy_table(comparison.pairs).cut(ROWS),
        "moved": [
            (title, error_table(pairs).cut(ROWS))
            for title, pairs in (
                ("Meaningfully worse", comparison.worse()),
                ("Meaningfully better", comparison.better()),
            )
            if pairs
        ],
    }
