"""The chapter of speed beside accuracy: which passing kernel is fastest, how fast it could be, and what error it has.

Reads measurements of kind "throughput" (suite/bench.py, docs/bench.md) and nothing else. A section is what can be compared:
one op, format, direction and setting, on one machine, timed in one way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from suite import schema
from suite.formats import DTYPES
from suite.ops import NAMES
from suite.records import STATUSES, Measurement
from suite.report.compare_page import seconds
from suite.report.figures import drawn, inline_svg, literal
from suite.report.summaries import first_line
from suite.timing.statistics import MOST

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLORS = ("#3b82c4", "#d9822b", "#2e9e6b", "#b5559a", "#7a6fd0", "#c2564b")
GRAY = "#888888"
LETTERS, NAMED = 28, 4
CHARTED = 24
"""Sections whose charts are drawn; the tables show all."""
WIDEST, MANY, LEAST_SHARE = 6, 300, 1e-9
"""Ticks of an axis; its range from which on powers of ten suffice; the smallest error that is drawn in its place, as a share
of the largest."""


# What a stranger's measurement must look like before anything is drawn.

_TEXT, _NULL = {"type": "string"}, {"type": "null"}
_SECONDS = {"type": "number", "minimum": 1e-12, "maximum": 1e9}
_AMOUNT = {"type": "integer", "minimum": 0, "maximum": 2**63}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 2**53}
_RATE = {"anyOf": [{"type": "number", "minimum": 1, "maximum": 1e24}, _NULL]}
_PROPERTIES: dict[str, schema.Schema] = {
    "status": {"type": "string", "enum": [*STATUSES, "known_failure"]},
    "ratio": {"anyOf": [*schema.REAL["anyOf"], _NULL]},
    "direction": {"type": "string", "enum": ["forward", "backward"]},
    "shape": {"type": "array", "items": _COUNT},
    "length": _COUNT,
    "bytes": {**_AMOUNT, "minimum": 1},
    "operations": _AMOUNT,
    "clock": {"type": "string", "enum": ["perf_counter", "cuda_event", "cuda_graph"]},
    "cache": {"type": "string", "enum": ["warm", "flushed"]},
    "threads": _COUNT,
    "samples_seconds": {"type": "array", "items": _SECONDS},
    **{name: {"anyOf": [_SECONDS, _NULL]} for name in ("median_seconds", "low_seconds", "high_seconds")},
    "peak_bytes": {"anyOf": [_AMOUNT, _NULL]},
    "copy_bytes_per_second": _RATE,
    "matmul_operations_per_second": _RATE,
    "note": _TEXT,
}
SHAPE: schema.Schema = {"type": "object", "properties": _PROPERTIES, "required": list(_PROPERTIES)}


def is_sound(measurement: Measurement) -> bool:
    """Whether the chapter can show it: a known op and format, the documented shape, the length that its shape has, an interval
    that its samples can have, and times only of a kernel that passes, with an error that is a number.
    """
    m, data = measurement, measurement.data
    if m.op not in NAMES or m.dtype not in DTYPES or not schema.conforms(data, SHAPE):
        return False
    shape = data["shape"]
    if len(shape) not in (2, 4) or data["length"] != (shape[2] if len(shape) == 4 else shape[1]):
        return False
    samples, interval = data["samples_seconds"], [data["low_seconds"], data["median_seconds"], data["high_seconds"]]
    if not samples:
        return interval == [None, None, None]
    if data["status"] != "passed" or len(samples) > MOST or None in interval:
        return False
    ordered = [min(samples), *interval, max(samples)]
    return ordered == sorted(ordered) and (data["ratio"] is None or 0 <= float(data["ratio"]) < math.inf)


# What is compared with what.


class Setting(NamedTuple):
    """What the measurements of a section share. sizes: of attention, its shape without the length. options: of the case."""

    op: str
    dtype: str
    direction: str
    sizes: str
    options: str
    device: str
    env_id: str
    cache: str
    threads: int


class Input(NamedTuple):
    """A column of a table: a case, shortest first."""

    length: int
    shape: tuple[int, ...]
    case: str


def _setting(m: Measurement) -> Setting:
    shape, data = m.data["shape"], m.data
    sizes = f"{shape[0]}x{shape[1]}xLENGTHx{shape[3]}" if len(shape) == 4 else ""
    options = " ".join(part for part in m.case.split("/")[3:-1] if not part.startswith(("upstream=", "reduction=")))
    return Setting(m.op, m.dtype, data["direction"], sizes, options, m.device, m.env_id, data["cache"], data["threads"])


def _order(setting: Setting) -> tuple[Any, ...]:
    return (NAMES.index(setting.op), DTYPES.index(setting.dtype), setting.direction == "backward", *setting[3:])


def _input(m: Measurement) -> Input:
    return Input(m.data["length"], tuple(m.data["shape"]), m.case)


def _passes(m: Measurement) -> bool:
    """Whether it has a time that counts: a wrong kernel gets no speed, whatever its samples say."""
    return m.data["status"] == "passed" and m.data["median_seconds"] is not None


def _error(m: Measurement) -> float:
    """In times of the bound; NaN where it is not known."""
    return math.nan if m.data["ratio"] is None else float(m.data["ratio"])


def _per_second(m: Measurement, amount: str) -> float:
    return float(m.data[amount] / m.data["median_seconds"])


def _work(op: str) -> str:
    """What a kernel of the op is fast at: attention multiplies matrices, all else moves memory."""
    return "operations" if op == "attention" else "bytes"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (error, throughput) no other beats: none has a throughput at least as high and an error at most as
    high, and one of them better.
    """

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one != other and one[0] <= other[0] and one[1] >= other[1]

    return [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]


# The chapter.


def throughput_context(measurements: Iterable[Measurement]) -> dict[str, Any]:
    """What throughput.html shows: {"throughput": a section for each setting, [] without measurements}. Measurements of other
    kinds are left out; of two of one kernel and case in one setting the later one is shown.
    """
    groups: dict[Setting, dict[tuple[str, Input], Measurement]] = {}
    for m in measurements:
        if m.kind == "throughput":
            groups.setdefault(_setting(m), {})[m.kernel, _input(m)] = m
    machines = {setting.env_id for setting in groups}
    return {
        "throughput": [
            _section(setting, list(groups[setting].values()), several=len(machines) > 1, charted=number < CHARTED)
            for number, setting in enumerate(sorted(groups, key=_order))
        ]
    }


def _section(setting: Setting, group: Sequence[Measurement], *, several: bool, charted: bool) -> dict[str, Any]:
    """several: machines are on the page, so that each section names its own."""
    inputs = sorted({_input(m) for m in group})
    at = {(m.kernel, _input(m)): m for m in group}
    last = [at[kernel, inputs[-1]] for kernel in {m.kernel for m in group} if (kernel, inputs[-1]) in at]
    ranked = sorted((m for m in last if _passes(m)), key=lambda m: (m.data["median_seconds"], m.kernel))
    known = [m for m in ranked if not math.isnan(_error(m))]
    front = [known[i] for i in pareto_front([(_error(m), _per_second(m, _work(m.op))) for m in known])]
    fastest = [next((m.kernel for m in _ranked(group, one)), None) for one in inputs]
    place = {m.kernel: number for number, m in enumerate(ranked)}
    kernels = sorted({m.kernel for m in group}, key=lambda kernel: (place.get(kernel, len(place)), kernel))
    title = _title(setting, several)
    return {
        "op": setting.op,
        "dtype": setting.dtype,
        "direction": setting.direction,
        "options": setting.options,
        "title": title,
        "where": _where(setting, several),
        "how": _how(setting, group),
        "inputs": [_shape(one) for one in inputs],
        "rows": [
            (kernel, [_cell(at.get((kernel, one)), best=kernel == fastest[i]) for i, one in enumerate(inputs)])
            for kernel in kernels
        ],
        "best": _best(ranked, [m for m in last if m.data["status"] != "passed"]) | {"input": _shape(inputs[-1])},
        "front": [m.kernel for m in front],
        "remarks": _remarks(group),
        "charts": _charts(title, group, ranked, front) if charted and ranked else [],
        "charted": charted,
    }


def _ranked(group: Sequence[Measurement], wanted: Input) -> list[Measurement]:
    """Those of an input that pass, fastest first."""
    found = [m for m in group if _input(m) == wanted and _passes(m)]
    return sorted(found, key=lambda m: (m.data["median_seconds"], m.kernel))


def _best(ranked: Sequence[Measurement], wrong: Sequence[Measurement]) -> dict[str, Any]:
    """The row of the glance: the fastest that passes, and those whose intervals overlap with its own."""
    found: dict[str, Any] = {"wrong": _some(sorted(f"{m.kernel} ({m.data['status'].replace('_', ' ')})" for m in wrong))}
    if not ranked:
        return found | {"kernel": ""}
    best = ranked[0]
    as_fast = _some([m.kernel for m in ranked[1:] if m.data["low_seconds"] <= best.data["high_seconds"]])
    return found | {"kernel": best.kernel, "as_fast": as_fast, "cell": _cell(best, best=True)}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _cell(m: Measurement | None, *, best: bool) -> dict[str, Any]:
    """What stands at a kernel and an input: times, or why there are none."""
    if m is None:
        return {"kind": "absent"}
    data = m.data
    if not _passes(m):
        wrong = data["status"] != "passed"
        return {"kind": data["status"].replace("_", " ") if wrong else "not timed", "reason": first_line(data["note"])}
    return {
        "kind": "timed",
        "best": best,
        "latency": seconds(data["median_seconds"]),
        "interval": f"{seconds(data['low_seconds'])} … {seconds(data['high_seconds'])}",
        "bandwidth": f"{_per_second(m, 'bytes') / 1e9:.3g} GB/s",
        "of_copy": _share(_per_second(m, "bytes"), data["copy_bytes_per_second"], "copy"),
        "compute": f"{_per_second(m, 'operations') / 1e12:.3g} TFLOP/s",
        "of_matmul": _share(_per_second(m, "operations"), data["matmul_operations_per_second"], "matmul"),
        "peak": "" if data["peak_bytes"] is None else f"{data['peak_bytes'] / 1e6:.3g} MB",
        "error": "?" if data["ratio"] is None else f"{_error(m):.2g} × bound",
    }


def _share(rate: float, most: float | None, of: str) -> str:
    percent = 100 * rate / most if most else 0.0
    return (f"{percent:.0f} % of {of}" if percent >= 10 else f"{percent:.2g} % of {of}") if most else ""


def _title(setting: Setting, several: bool) -> str:
    words = (setting.op, setting.dtype, setting.direction, setting.sizes, setting.options, _where(setting, several))
    return ", ".join(word for word in words if word)


def _where(setting: Setting, several: bool) -> str:
    """The device, and the environment where there is more than one; the threads and the cache, where they are not the usual."""
    words = [setting.device] if setting.device != "cpu" else []
    words += [f"environment {setting.env_id or 'unknown'}"] if several else []
    words += [f"{setting.threads} threads"] if setting.threads > 1 else []
    words += ["cache flushed"] if setting.cache == "flushed" and setting.device == "cpu" else []
    return ", ".join(words)


def _how(setting: Setting, group: Sequence[Measurement]) -> str:
    clocks = ", ".join(sorted({m.data["clock"] for m in group}))
    threads = f"{setting.threads} thread{'s' if setting.threads > 1 else ''}"
    words = [f"Clock {clocks}", f"{setting.cache} cache", threads]
    copies, products = (_roof(group, name) for name in ("copy_bytes_per_second", "matmul_operations_per_second"))
    words += [f"this machine copies {copies / 1e9:.3g} GB/s"] if copies else []
    words += [f"multiplies matrices of {setting.dtype} at {products / 1e12:.3g} TFLOP/s"] if products else []
    return ", ".join(words)


def _shape(one: Input) -> str:
    seed = one.case.rpartition("/")[2]
    return "x".join(map(str, one.shape)) + (f" {seed}" if seed not in ("s0", one.case) else "")


def _remarks(group: Sequence[Measurement]) -> list[tuple[str, str]]:
    """(remark, the kernels that it is about) of what has times."""
    found: dict[str, set[str]] = {}
    for m in group:
        if _passes(m) and m.data["note"]:
            found.setdefault(first_line(m.data["note"]), set()).add(m.kernel)
    return [(note, ", ".join(sorted(kernels))) for note, kernels in sorted(found.items())]


def _roof(group: Sequence[Measurement], name: str) -> float | None:
    """The most that this machine reached, in a run of the section."""
    return max((m.data[name] for m in group if m.data[name] is not None), default=None)


# Charts. The front and the fastest have colours, the same in all three; all others are grey, and in the table.


def _charts(
    title: str, group: Sequence[Measurement], ranked: Sequence[Measurement], front: Sequence[Measurement]
) -> list[Markup]:
    timed = [m for m in group if _passes(m)]
    named = [m.kernel for m in front] + [m.kernel for m in ranked if m not in front]
    colors = dict(zip(named, COLORS, strict=False))
    found = (
        drawn(_error_chart, title, ranked, front, colors),
        drawn(_length_chart, title, timed, colors),
        drawn(_roofline, title, timed, colors),
    )
    return [chart for chart in found if chart is not None]


def _error_chart(
    title: str, ranked: Sequence[Measurement], front: Sequence[Measurement], colors: dict[str, str]
) -> Markup | None:
    figure, [axes] = _figure(4.0, 1)
    known = [m for m in ranked if not math.isnan(_error(m))]
    largest = max((_error(m) for m in known), default=0.0)
    if not largest:
        return None  # nothing to set apart on a logarithmic axis: the table says 0
    least = min(_error(m) for m in known if _error(m) > LEAST_SHARE * largest) / 3  # where an error of 0 stands
    scale, unit = _unit(ranked, _work(ranked[0].op))

    def place(m: Measurement) -> tuple[float, float]:
        return max(_error(m), least), _per_second(m, _work(m.op)) / scale

    _logarithmic(axes, "error, times of bound" + (" (0 at the left edge)" if any(not _error(m) for m in known) else ""), unit)
    steps = sorted(place(m) for m in front)
    axes.step(*zip(*steps, strict=True), where="post", color=GRAY, linestyle="--", linewidth=1, zorder=1)
    for m in known:
        axes.plot(*place(m), "o" if m in front else ".", color=colors.get(m.kernel, GRAY), markersize=6, zorder=2)
    for m in front:
        axes.annotate(_short(m.kernel), place(m), (4, 4), textcoords="offset points", fontsize=7.5)
    axes.margins(0.15)
    _ticks(axes.xaxis, axes.yaxis)
    axes.set_title(f"length {ranked[0].data['length']}; dashed: the Pareto front", fontsize=8.5)
    return inline_svg(figure, title=f"Error against throughput: {title}")


def _length_chart(title: str, timed: Sequence[Measurement], colors: dict[str, str]) -> Markup | None:
    figure, [speed, memory] = _figure(6.0, 2)
    scale, unit = _unit(timed, _work(timed[0].op))
    lengths = sorted({m.data["length"] for m in timed})
    shown = lengths[:: math.ceil(len(lengths) / WIDEST)]
    zero = ", where not 0" if any(m.data["peak_bytes"] == 0 for m in timed) else ""
    for axes, name in ((speed, unit), (memory, f"peak memory, MB{zero}")):
        _logarithmic(axes, "length", "")
        axes.set_title(name, fontsize=8.5)
        axes.set_xticks(shown, map(str, shown))
        axes.minorticks_off()
    for kernel in sorted({m.kernel for m in timed}, key=lambda kernel: kernel in colors):
        own = sorted((m for m in timed if m.kernel == kernel), key=_input)
        style: dict[str, Any] = {"color": colors.get(kernel, GRAY), "linewidth": 1.4 if kernel in colors else 0.6}
        places = [m.data["length"] for m in own]
        speed.plot(places, [_per_second(m, _work(m.op)) / scale for m in own], ".-", **style)
        peaks = [(m.data["length"], m.data["peak_bytes"] / 1e6) for m in own if m.data["peak_bytes"]]
        if peaks:
            memory.plot(*zip(*peaks, strict=True), ".-", **style)
    if not memory.lines:
        memory.set_axis_off()
        memory.text(0.5, 0.5, "0, or not measured", transform=memory.transAxes, ha="center", fontsize=8, color=GRAY)
    _ticks(speed.yaxis, *([memory.yaxis] if memory.lines else []))
    _legend(figure, colors, others=len({m.kernel for m in timed}) - len(colors))
    return inline_svg(figure, title=f"Throughput and peak memory against length: {title}")


def _roofline(title: str, timed: Sequence[Measurement], colors: dict[str, str]) -> Markup | None:
    figure, [axes] = _figure(3.7, 1)
    points = [(m, m.data["operations"] / m.data["bytes"]) for m in timed if m.data["operations"]]
    if not points:
        return None
    copies, products = (_roof(timed, name) for name in ("copy_bytes_per_second", "matmul_operations_per_second"))
    scale, unit = _unit(timed, "operations", products or 0.0)
    _logarithmic(axes, "operations per byte", unit)
    for m, intensity in sorted(points, key=lambda point: point[0].kernel in colors):
        axes.plot(intensity, _per_second(m, "operations") / scale, ".", color=colors.get(m.kernel, GRAY))
    ridge = products / copies if products and copies else 1.0
    ends = min(ridge, *(x for _, x in points)) / 3, max(ridge, *(x for _, x in points)) * 3
    places = sorted((ends[0], ridge, ends[1]))
    if copies or products:
        roof = [min(copies * x if copies else math.inf, products or math.inf) / scale for x in places]
        axes.plot(places, roof, color="black", linewidth=1.2)
    _ticks(axes.xaxis, axes.yaxis)
    axes.set_title("line: what copies and products reach here", fontsize=8.5)
    _legend(figure, colors, others=len({m.kernel for m in timed}) - len(colors))
    return inline_svg(figure, title=f"Roofline: {title}")


def _figure(width: float, panels: int) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.0), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _logarithmic(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(*ruled: Axis) -> None:
    """Plain numbers at powers of ten, and between them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axis in ruled:
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0,) if high / low > MANY else (1.0, 2.0, 5.0), numticks=WIDEST))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(figure: Figure, colors: dict[str, str], *, others: int) -> None:
    from matplotlib.lines import Line2D

    lines = [(Line2D([], [], color=color, marker="."), _short(kernel)) for kernel, color in colors.items()]
    if others > 0:
        lines.append((Line2D([], [], color=GRAY, linewidth=0.6, marker="."), f"{others} more"))
    handles, labels = zip(*lines, strict=True)
    figure.legend(handles, labels, loc="outside lower left", fontsize=7.5, ncols=3, frameon=False)


def _unit(timed: Sequence[Measurement], work: str, at_least: float = 0.0) -> tuple[float, str]:
    """The scale of an axis and its unit, by its largest value."""
    top = max(at_least, *(_per_second(m, work) for m in timed))
    scale, prefix = (1e12, "T") if top >= 1e12 else (1e9, "G")
    return scale, prefix + ("B/s" if work == "bytes" else "FLOP/s")


def _short(kernel: str) -> str:
    return literal(kernel if len(kernel) <= LETTERS else f"…{kernel[1 - LETTERS :]}")
