"""The charts of a section of throughput: error against throughput, throughput and memory against
length, a roofline.

A few kernels have a colour and a marker of their own, the same in all three; all others are grey,
and in the table. What is not safe to use has open markers and broken lines.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from suite.ops import get_op
from suite.records.record import Measurement
from suite.report.figures import GRAY, drawn, dress, figure_of, inline_svg, legend_below
from suite.report.tables import by
from suite.report.words import shortened

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

STYLES = (
    ("#0072b2", "o"),
    ("#e69f00", "s"),
    ("#009e73", "^"),
    ("#cc79a7", "D"),
    ("#56b4e9", "v"),
    ("#d55e00", "P"),
)
"""Colours for colour-blind readers too (Okabe and Ito, "Color universal design", 2008), and a marker
with each.
"""
DRAWN = 48
"""Kernels of a chart, the fastest."""
WIDEST = 6
"""Ticks of an axis."""
MANY = 300
"""The range of an axis from which on powers of ten suffice."""
LEAST_SHARE = 1e-9
"""The smallest error that is drawn in its place, as a share of the largest."""
HEIGHT = 3.4
"""Inches of every chart."""


def error(m: Measurement) -> float:
    """Over the bound; NaN where it is not known."""
    return math.nan if m.data["ratio"] is None else float(m.data["ratio"])


def per_second(m: Measurement, amount: str) -> float:
    """Of a measurement with times. amount: "bytes" or "operations"."""
    return float(m.data[amount] / m.data["median_seconds"])


def work(op: str) -> str:
    """What a kernel of the op is fast at: attention multiplies matrices, all else moves memory."""
    return get_op(op).limited_by


def roof(group: Sequence[Measurement], name: str) -> float | None:
    """The most that this machine reached, in a run of the section."""
    return max((m.data[name] for m in group if m.data[name] is not None), default=None)


class Look(NamedTuple):
    """How a kernel is drawn; one without a colour of its own is grey."""

    color: str
    marker: str
    safe: bool
    own: bool

    @property
    def points(self) -> dict[str, Any]:
        filled = self.color if self.safe else "none"
        return {
            "color": self.color,
            "marker": self.marker,
            "markerfacecolor": filled,
            "markersize": 5 if self.own else 3,
        }

    @property
    def line(self) -> dict[str, Any]:
        return {"linestyle": "-" if self.safe else "--", "linewidth": 1.4 if self.own else 0.5}


def charts(
    title: str,
    timed: Sequence[Measurement],
    ranked: Sequence[Measurement],
    front: Sequence[Measurement],
    *,
    named: Sequence[str],
    safe: Collection[str],
) -> list[Markup]:
    """timed: what has times. ranked: of it, that of the longest input, fastest first. front: of
    that, the Pareto front. named: the kernels that are to have a colour, as far as there are
    colours. safe: the kernels that nothing speaks against.
    """
    shown = [m.kernel for m in ranked[:DRAWN]]
    kernels = [kernel for kernel in named if kernel in shown] + [
        kernel for kernel in shown if kernel not in named
    ]
    looks = {
        kernel: Look(
            *(STYLES[i] if i < len(STYLES) else (GRAY, "o")), safe=kernel in safe, own=i < len(STYLES)
        )
        for i, kernel in enumerate(kernels)
    }
    timed = [m for m in timed if m.kernel in looks]
    found = (
        drawn(_error_chart, title, [m for m in ranked if m.kernel in looks], front, looks),
        drawn(_length_chart, title, timed, looks),
        drawn(_roofline, title, timed, ranked[0].data["length"], looks),
    )
    return [chart for chart in found if chart is not None]


def _error_chart(
    title: str, ranked: Sequence[Measurement], front: Sequence[Measurement], looks: Mapping[str, Look]
) -> Markup | None:
    figure, [[axes]] = figure_of(3.9, HEIGHT)
    known = [m for m in ranked if not math.isnan(error(m))]
    largest = max((error(m) for m in known), default=0.0)
    if not largest:
        return None  # nothing to set apart on a logarithmic axis: the table says 0
    least = min(error(m) for m in known if error(m) > LEAST_SHARE * largest) / 3  # where an error of 0 stands
    scale, unit = _unit(ranked, work(ranked[0].op))

    def place(m: Measurement) -> tuple[float, float]:
        return max(error(m), least), per_second(m, work(m.op)) / scale

    at_edge = " (0 at the left edge)" if any(not error(m) for m in known) else ""
    heading = f"Length {ranked[0].data['length']}; dashed: the Pareto front"
    _logarithmic(axes, f"worst error over the bound{at_edge}", f"throughput, {unit}", title=heading)
    if front:
        steps = sorted(place(m) for m in front)
        axes.step(*zip(*steps, strict=True), where="post", color=GRAY, linestyle="--", linewidth=1, zorder=1)
    for m in reversed(known):
        axes.plot(*place(m), linestyle="none", zorder=2, **looks[m.kernel].points)
    axes.margins(0.15)
    _ticks(axes.xaxis, axes.yaxis)
    _legend(figure, looks)
    return inline_svg(figure, title=f"Error against throughput: {title}")


def _length_chart(title: str, timed: Sequence[Measurement], looks: Mapping[str, Look]) -> Markup | None:
    figure, [[speed, memory]] = figure_of(5.8, HEIGHT, columns=2)
    scale, unit = _unit(timed, work(timed[0].op))
    lengths = sorted({m.data["length"] for m in timed})
    shown = lengths[:: math.ceil(len(lengths) / WIDEST)]
    zero = "; 0 is not drawn" if any(m.data["peak_bytes"] == 0 for m in timed) else ""
    _logarithmic(speed, "length", f"throughput, {unit}", title="Throughput against length")
    _logarithmic(memory, "length", "MB beside inputs and output", title=f"Peak memory{zero}")
    for axes in (speed, memory):
        axes.set_xticks(shown, map(str, shown))
        axes.minorticks_off()
    kernels = by(sorted(timed, key=lambda m: int(m.data["length"])), lambda m: m.kernel)
    for kernel in reversed(list(looks)):  # the grey ones lie below
        look, own = looks[kernel], kernels.get(kernel, [])
        points = [(m.data["length"], per_second(m, work(m.op)) / scale) for m in own]
        peaks = [(m.data["length"], m.data["peak_bytes"] / 1e6) for m in own if m.data["peak_bytes"]]
        for axes, places in ((speed, points), (memory, peaks)):
            if places:
                marked = look.points if look.own or len(places) == 1 else {"color": look.color}
                axes.plot(*zip(*places, strict=True), **marked, **look.line)
    if not memory.lines:
        memory.set_axis_off()
        middle: dict[str, Any] = {"transform": memory.transAxes, "ha": "center"}
        memory.text(0.5, 0.5, "0, or not measured", fontsize=8, color=GRAY, **middle)
    _ticks(speed.yaxis, *([memory.yaxis] if memory.lines else []))
    _legend(figure, looks)
    return inline_svg(figure, title=f"Throughput and peak memory against length: {title}")


def _roofline(
    title: str, timed: Sequence[Measurement], longest: int, looks: Mapping[str, Look]
) -> Markup | None:
    figure, [[axes]] = figure_of(3.7, HEIGHT)
    points = [(m, m.data["operations"] / m.data["bytes"]) for m in timed if m.data["operations"]]
    if not points:
        return None
    copies, products = roof(timed, "copy_bytes_per_second"), roof(timed, "matmul_operations_per_second")
    scale, unit = _unit(timed, "operations", products or 0.0)
    heading = "Roofline: what copies and products reach here"
    _logarithmic(axes, "operations per byte of least traffic", f"throughput, {unit}", title=heading)
    for m, intensity in sorted(points, key=lambda point: looks[point[0].kernel].own):
        if looks[m.kernel].own or m.data["length"] == longest:
            axes.plot(
                intensity, per_second(m, "operations") / scale, linestyle="none", **looks[m.kernel].points
            )
    ridge = products / copies if products and copies else 1.0
    ends = min(ridge, *(x for _, x in points)) / 3, max(ridge, *(x for _, x in points)) * 3
    places = sorted((ends[0], ridge, ends[1]))
    if copies or products:
        ceiling = [min(copies * x if copies else math.inf, products or math.inf) / scale for x in places]
        axes.plot(places, ceiling, color="black", linewidth=1.2)
    _ticks(axes.xaxis, axes.yaxis)
    _legend(figure, looks)
    return inline_svg(figure, title=f"Roofline: {title}")


def _logarithmic(axes: Axes, x: str, y: str, *, title: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    dress(axes, x, y)
    axes.tick_params(labelsize=7)
    axes.set_title(title, fontsize=8.5)


def _ticks(*ruled: Axis) -> None:
    """Plain numbers at powers of ten, and between them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axis in ruled:
        low, high = axis.get_view_interval()
        axis.set_major_locator(
            LogLocator(subs=(1.0,) if high / low > MANY else (1.0, 2.0, 5.0), numticks=WIDEST)
        )
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(figure: Figure, looks: Mapping[str, Look]) -> None:
    entries = [
        (shortened(kernel) + ("" if look.safe else " (not safe)"), {**look.points, **look.line})
        for kernel, look in looks.items()
        if look.own
    ]
    if others := len(looks) - len(entries):
        gray = Look(GRAY, "o", safe=True, own=False)
        entries.append((f"{others} more", {**gray.points, **gray.line}))
    legend_below(figure, entries, columns=round(figure.get_figwidth() / 2), letters=7.5)


def _unit(timed: Sequence[Measurement], work: str, at_least: float = 0.0) -> tuple[float, str]:
    """The scale of an axis and its unit, by its largest value."""
    top = max(at_least, *(per_second(m, work) for m in timed))
    scale, prefix = (1e12, "T") if top >= 1e12 else (1e9, "G")
    return scale, prefix + ("B/s" if work == "bytes" else "FLOP/s")
