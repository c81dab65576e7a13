"""The charts of vanishing gradients: an axis a row, a quantity a column.

Kernels are lines, theory's places vertical dots, and what no kernel of the format avoids is dashed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from suite.records.record import Measurement
from suite.report.chapters.thresholds import covered
from suite.report.figures import COLORS, GRAY, dress, figure_of, inline_svg, names_in_legend
from suite.report.tables import kernel_of

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

Curve = Mapping[str, Any]
Values = Sequence[float | None]

AXES = {
    "scale": "logit scale, n = {n}",
    "length": "row length n, logit scale {scale:g}",
    "gap": "gap of a row of two",
}
TICKS = {
    "scale": (0.25, 1, 4, 16, 64),
    "length": (10, 100, 1000, 10000, 100000),
    "gap": (1, 3, 10, 30, 100, 300),
}
FIRST = ("fused", "sdpa_flash", "sdpa_math")
"""torch's own kernels, which come first where they are there."""
SAME = 0.02
"""Kernels whose curves differ by no more share a line."""


def total(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def _each(
    combine: Callable[[float | None, float | None], float | None], *names: str
) -> Callable[[Curve], Values]:
    return lambda curve: list(map(combine, *(curve[name] for name in names)))


class Panel(NamedTuple):
    """A quantity of a chart."""

    title: str
    values: Callable[[Curve], Values]
    floor: str = ""
    """What no kernel of the format avoids: a list of the curve, "" for none."""
    theory: tuple[str, ...] = ()
    """The closed thresholds that are marked."""


PANELS = {
    "zero": Panel("entries that are 0", lambda c: c["zero"], "underflow", ("underflow",)),
    "lost": Panel(
        "false zeros + flushed", _each(total, "false_zero", "flushed"), "", ("rounded", "absorbed")
    ),
    "top": Panel("largest logit lost, rows", lambda c: c["top_lost"], "", ("rounded", "absorbed")),
    "dead": Panel("dead rows", lambda c: c["dead"], "dead_floor", ("underflow",)),
    "defect": Panel("row-sum defect", lambda c: c["defect"], "", ("rounded", "absorbed")),
    "gain": Panel("norm, times of exact", _each(ratio, "gain", "exact_gain")),
}


def is_first(names: str) -> bool:
    """Whether torch's own kernel is one of these."""
    return any(name in names.split(", ") for name in FIRST)


def chart(op: str, dtype: str, group: Sequence[Measurement]) -> Markup | None:
    from matplotlib.figure import Figure

    lines = _lines(group)
    handles, labels = _legend(lines)
    legend = 0.19 * ((len(labels) + 1) // 2)  # inches, for lines of two entries
    width, height = 2.25 * len(PANELS), 1.8 * len(AXES) + 0.75 + legend
    # Laid out by hand: a constrained layout of so many panels takes a second.
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        len(AXES), len(PANELS), left=0.5 / width, right=1 - 0.1 / width, top=1 - 0.35 / height,
        bottom=(0.35 + legend) / height, wspace=0.28, hspace=0.28,
    )  # fmt: skip
    for row, (axis, label) in enumerate(AXES.items()):
        curves = [m.data[axis] for _, m in lines]
        for column, panel in enumerate(PANELS.values()):
            box = grid[row, column].get_position(figure)
            middle = (box.y0 + box.y1) / 2
            if row == 0:
                figure.text(box.x0, 1 - 0.2 / height, panel.title, fontsize=8.5)
            if column == 0:
                name = label.format(**group[0].data[axis])
                figure.text(0.12 / width, middle, name, fontsize=8, rotation=90, ha="center", va="center")
            if flat := _flat(panel, curves):
                figure.text((box.x0 + box.x1) / 2, middle, flat, fontsize=8, ha="center", color=GRAY)
            else:
                _draw(figure.add_subplot(grid[row, column]), axis, panel, curves)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.2 / width, 0)}
    figure.legend(handles, labels, fontsize=8, ncols=2, frameon=False, **place)
    return inline_svg(
        figure, title=f"Vanishing gradients of {op} in {dtype} over logit scale, row length and gap"
    )


def _legend(lines: Sequence[tuple[list[str], Measurement]]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    found = [
        (names_in_legend(sorted(names)), {"color": color})
        for (names, _), color in zip(lines, COLORS, strict=False)
    ]
    found.append(("no kernel of the format avoids it", {"color": GRAY, "linestyle": "--"}))
    found.append(("closed threshold", {"color": GRAY, "linestyle": ":"}))
    if len(lines) > len(COLORS):
        more = len(lines) - len(COLORS)
        found.append((f"not drawn, only in the table: {more} more groups", {"linestyle": "none"}))
    handles = [Line2D([], [], **look) for _, look in found]  # type: ignore[arg-type]
    return handles, [label for label, _ in found]


def _flat(panel: Panel, curves: Sequence[Curve]) -> str:
    """What is said in place of a panel on which nothing could be seen; "" where there is something."""
    every = [v for c in curves for v in (*panel.values(c), *(c[panel.floor] if panel.floor else ()))]
    found = [value for value in every if value is not None]
    if not found:
        return "not finite"
    if panel is PANELS["gain"]:
        return "1 everywhere" if all(abs(value - 1) <= SAME for value in found) else ""
    if all(value == 0 for value in found):
        return "0 everywhere"
    return "below 0.01" if panel is not PANELS["lost"] and max(found) < 0.01 else ""


def _lines(group: Sequence[Measurement]) -> list[tuple[list[str], Measurement]]:
    """Kernels whose curves cover each other, with the measurement that is drawn for them."""
    most_points_first = sorted(group, key=lambda m: -sum(len(m.data[axis]["at"]) for axis in AXES))
    found = covered(
        [(kernel_of(m), m) for m in most_points_first],
        lambda known, other: all(_covers(known.data[axis], other.data[axis]) for axis in AXES),
    )
    return sorted(found, key=lambda pair: not any(map(is_first, pair[0])))


def _covers(known: Curve, other: Curve) -> bool:
    """Whether all that `other` has lies on the curves of `known`."""
    places = {place: index for index, place in enumerate(known["at"])}
    if not all(place in places for place in other["at"]):
        return False
    for panel in PANELS.values():
        mine = panel.values(known)
        for place, value in zip(other["at"], panel.values(other), strict=True):
            reference = mine[places[place]]
            if reference is None or value is None:
                if reference is not value:
                    return False
            elif abs(reference - value) > SAME:
                return False
    return True


def _draw(axes: Axes, axis: str, panel: Panel, curves: Sequence[Curve]) -> None:
    widest = max(curves, key=lambda curve: len(curve["at"]))
    first, last = widest["at"][0], widest["at"][-1]
    axes.set_xscale("log")
    axes.set_xlim(first, max(last, first * 1.01))
    dress(axes, letters=7)
    ticks = [place for place in TICKS[axis] if first <= place <= last]
    axes.set_xticks(
        ticks, [f"{tick:g}" if tick < 1e4 else f"{tick:.0e}".replace("e+0", "e") for tick in ticks]
    )
    for place in (widest["theory"].get(mark) for mark in panel.theory):
        if place is not None and first < place < last:
            axes.axvline(place, color=GRAY, linestyle=":", linewidth=1.1, zorder=1)
    shown = curves[: len(COLORS)]
    top = max((value for curve in shown for value in panel.values(curve) if value is not None), default=0.0)
    if panel is PANELS["lost"] and 0 < top < 0.5:
        axes.set_ylim(0, 1.25 * top)
        axes.locator_params(axis="y", nbins=3)
    else:
        axes.set_ylim(0, 1.6 if panel is PANELS["gain"] else 1.04)
        axes.set_yticks([0, 0.5, 1])
    if panel.floor:
        floor = numbers(widest[panel.floor])
        axes.plot(widest["at"], floor, color=GRAY, linestyle="--", linewidth=1.2, zorder=2)
    for color, curve in reversed(list(zip(COLORS, shown, strict=False))):
        values = [min(value, 1e3) for value in numbers(panel.values(curve))]
        axes.plot(curve["at"], values, color=color, linewidth=1.5, zorder=3)


def entropy_chart(data: Mapping[str, Any]) -> Markup | None:
    figure, [panels] = figure_of(6.6, 2.2, columns=2)
    for axes, axis in zip(panels, ("scale", "length"), strict=True):
        curve = data[axis]
        axes.plot(curve["at"], numbers(curve["entropy"]), color=COLORS[0], label="entropy of the rows, nats")
        bound = numbers(curve["entropy_bound"])
        axes.plot(curve["at"], bound, color=GRAY, linestyle="--", label="lower bound")
        axes.set_xscale("log")
        dress(axes, AXES[axis].format(**curve))
    panels[0].legend(fontsize=8)
    return inline_svg(figure, title="Entropy of the rows that gradients were taken at, and its lower bound")


def numbers(values: Values) -> list[float]:
    return [float("nan") if value is None else value for value in values]
