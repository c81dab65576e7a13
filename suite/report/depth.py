"""The chapter of depth: gradients through many layers, rank collapse, and what attention in front
of softmax changes.

Reads measurements of kind "depth" (suite/measure/depth.py) and nothing else; is_sound() says which
have their shape.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suite.formats import DTYPES
from suite.records import schema
from suite.records.record import Measurement
from suite.report.figures import drawn, inline_svg, literal

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

Values = Sequence[float | None]
Found = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Of one op: kernel -> dtype -> data."""

COLORS = ("#3b82c4", "#d9822b", "#2e9e6b", "#b5559a", "#7a6fd0", "#c2564b", "#8a7a3a")
GRAY = "#888888"
FLOOR = 1e-20
"""What is smaller is drawn at the lower edge, where zeros are."""
QUANTITIES = {
    "zeros": "gradients that are 0",
    "false_zeros": "gradients that are 0 and should be normal numbers",
    "dead": "rows without gradient",
    "lost": "rows with no right digit",
    "saturated": "rows that are exactly 1",
}
MOST = 12
"""Modules of a section; the suite measures at most seven."""
COLUMNS = {"depths", "scales", "lengths"}
"""What makes the columns of tables: shared by all that stands in one section."""

NUMBER = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}


def _list(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


NUMBERS = _list(NUMBER)
GAPPED = _list({"anyOf": [NUMBER, {"type": "null"}]})
SHARES = _list(SHARE)
SHAPES = {
    "transformer_stack": _object(
        depths=_list(COUNT),
        **dict.fromkeys(("gain", "error", "layers", "query"), GAPPED),
        false_zeros=SHARES,
        overflow={"anyOf": [COUNT, {"type": "null"}]},
        one_hot=SHARE,
        check=NUMBER,
    ),
    "rank_collapse": _object(**dict.fromkeys(("smallest", "median", "largest"), GAPPED)),
    "rank_collapse_exact": _object(log10=NUMBERS),
    "lipschitz": _object(lengths=_list(COUNT), infinity=NUMBERS, two=NUMBERS),
    "attention_softmax": _object(
        scales=NUMBERS, gain=NUMBERS, **dict.fromkeys(("tiny", *QUANTITIES), SHARES)
    ),
}
AXES = {
    "transformer_stack": ("depths", "gain", "error", "false_zeros"),
    "rank_collapse": ("median", "smallest", "largest"),
    "rank_collapse_exact": ("log10",),
    "lipschitz": ("lengths", "infinity", "two"),
    "attention_softmax": ("scales", "gain", "tiny", *QUANTITIES),
}
"""Lists that are as long as the first of them, which is not empty."""


def is_sound(measurement: Measurement) -> bool:
    """Whether the chapter can show a measurement of kind "depth": a known op and format, and data
    of its shape.
    """
    shape = SHAPES.get(measurement.op)
    if shape is None or measurement.dtype not in DTYPES or not schema.conforms(measurement.data, shape):
        return False
    lengths = {len(measurement.data[name]) for name in AXES[measurement.op]}
    return len(lengths) == 1 and lengths != {0}


def depth_context(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What depth.html shows: {"depth": a list of sections, [] without measurements of this kind}.

    A section has its op, notes, a chart or None, and tables: (caption, headings, rows of a name and cells).
    """
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    left_out: Counter[str] = Counter()
    for m in measurements:
        if m.kind == "depth":
            kernels = found.setdefault(m.op, {})
            first = next((data for of in kernels.values() for data in of.values()), m.data)
            if all(m.data[key] == first[key] for key in COLUMNS & m.data.keys()) and (
                m.kernel in kernels or len(kernels) < MOST
            ):
                kernels.setdefault(m.kernel, {})[m.dtype] = m.data
            else:
                left_out[m.op] += 1
    parts = (
        (_gradients, "transformer_stack"),
        (_collapse, "rank_collapse"),
        (_contenders, "attention_softmax"),
        (_lipschitz, "lipschitz"),
    )
    exact = found.get("rank_collapse_exact", {})
    sections = []
    for part, op in parts:
        if found.get(op):
            section = part(found[op], exact)
            if left_out[op]:
                section["notes"].append(
                    f"Not shown: {left_out[op]:,} measurements of other columns or of more than {MOST}"
                    " modules."
                )
            sections.append(section)
    return {"depth": sections}


def _gradients(kernels: Found, exact: Found) -> dict[str, Any]:
    widest = _formats(kernels)[0]
    gains = _rows(kernels, widest, "gain")
    captions = [(f"‖dx at the input‖ / ‖dx at the output‖, {widest}, by number of layers", gains)]
    captions += [
        (f"Relative error of the input’s gradient in {f} against the float64 run", _rows(kernels, f, "error"))
        for f in _formats(kernels)
        if f != "float64"
    ]
    depths = next(of[widest]["depths"] for of in kernels.values() if widest in of)
    tables = [
        (
            caption,
            ["layers", *depths],
            [(name, [_number(v) for v in values]) for name, values in rows.items()],
        )
        for caption, rows in captions
    ]
    return {
        "op": "transformer_stack",
        "notes": [
            (
                "The float64 run agrees with the exact gradient of a small stack within"
                f" {_worst_check(kernels):.1e}."
            ),
            *_overflows(kernels),
        ],
        "chart": drawn(_gradient_chart, kernels),
        "tables": tables,
    }


def _worst_check(kernels: Found) -> float:
    return max(float(data["check"]) for of in kernels.values() for data in of.values())


def _overflows(kernels: Found) -> list[str]:
    found = [
        f"{name} in {dtype} from layer {data['overflow']} on"
        for name, of in kernels.items()
        for dtype, data in of.items()
        if data["overflow"] is not None
    ]
    return [f"The forward pass itself is not finite: {'; '.join(found)}."] if found else []


def _collapse(kernels: Found, exact: Found) -> dict[str, Any]:
    notes = []
    for name, of in exact.items():
        logs = next(iter(of.values()))["log10"]
        notes.append(
            f"Exactly, for 8 tokens ({name}): 10 to the power of {', '.join(f'{v:.1f}' for v in logs)}."
        )
    widest = _formats(kernels)[0]
    rows = _rows(kernels, widest, "median")
    heads = ["layer", *range(max(len(values) for values in rows.values()))]
    return {
        "op": "rank_collapse",
        "notes": notes,
        "chart": drawn(_collapse_chart, kernels),
        "tables": [
            (
                f"Median relative residual, {widest}",
                heads,
                [(n, [_number(v) for v in vs]) for n, vs in rows.items()],
            )
        ],
    }


def _contenders(kernels: Found, exact: Found) -> dict[str, Any]:
    formats = _formats(kernels)
    scales = next(iter(next(iter(kernels.values())).values()))["scales"]
    columns = [(dtype, number) for dtype in formats for number in range(len(scales))[-2:]]
    heads = ["logits times", *(f"{scales[number]:g}, {dtype}" for dtype, number in columns)]
    tables = []
    for quantity, text in QUANTITIES.items():
        rows = [
            (name, [_share(of[dtype][quantity][number]) if dtype in of else "" for dtype, number in columns])
            for name, of in kernels.items()
        ]
        tables.append((f"Share of {text}", heads, rows))
    return {
        "op": "attention_softmax",
        "notes": [],
        "chart": drawn(_contender_chart, kernels),
        "tables": tables,
    }


def _lipschitz(kernels: Found, exact: Found) -> dict[str, Any]:
    rows = []
    lengths = next(iter(next(iter(kernels.values())).values()))["lengths"]
    for name, of in kernels.items():
        for dtype in _ordered(of):
            rows += [
                (f"{name}, {dtype}, {norm}-norm", [f"{v:.6f}" for v in of[dtype][key]])
                for norm, key in (("∞", "infinity"), ("2", "two"))
            ]
    return {
        "op": "lipschitz",
        "notes": [],
        "chart": None,
        "tables": [("Largest norm found", ["n", *lengths], rows)],
    }


def _formats(kernels: Found) -> list[str]:
    return [dtype for dtype in DTYPES if any(dtype in of for of in kernels.values())]


def _ordered(of: Mapping[str, Any]) -> list[str]:
    return [dtype for dtype in DTYPES if dtype in of]


def _rows(kernels: Found, dtype: str, quantity: str) -> dict[str, Values]:
    return {name: of[dtype][quantity] for name, of in kernels.items() if dtype in of}


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _share(value: float) -> str:
    return "0" if value == 0 else f"{100 * value:.1f} %"


# The charts: panels side by side with one legend below them.


def _gradient_chart(kernels: Found) -> Markup | None:
    formats = _formats(kernels)
    panels = [(f"gain by layer, {formats[0]}", _rows(kernels, formats[0], "layers"))]
    panels += [(f"W_q over W_v, {dtype}", _rows(kernels, dtype, "query")) for dtype in formats]
    return _panels(panels, title="Gradients through the layers of a deep stack", first=1, alone=1)


def _collapse_chart(kernels: Found) -> Markup | None:
    panels = [(dtype, _rows(kernels, dtype, "median")) for dtype in _formats(kernels)]
    return _panels(panels, title="Relative residual after each layer")


def _panels(
    panels: Sequence[tuple[str, Mapping[str, Values]]], *, title: str, first: int = 0, alone: int = 0
) -> Markup | None:
    """Panels of values by layer from `first` on; all but the first `alone` panels share their
    vertical axis.
    """
    from matplotlib.figure import Figure

    columns = len(panels) if len(panels) < 5 else 3
    lines = -(-len(panels) // columns)
    figure = Figure(
        figsize=((2.9 if columns == 4 else 3.9) * columns, 2.7 * lines + 0.7), layout="constrained"
    )
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    colors = _colors(name for _, rows in panels for name in rows)
    for axes, (heading, rows) in zip(grid, panels, strict=False):
        axes.set_yscale("log")
        for name, values in rows.items():
            shown = {first + number: max(abs(v), FLOOR) for number, v in enumerate(values) if v is not None}
            axes.plot(list(shown), list(shown.values()), color=colors[name], linewidth=1.4)
        _dress(axes, heading, "layer")
    limits = [axes.get_ylim() for axes in grid[alone : len(panels)]]
    for axes in grid[alone : len(panels)]:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    _legend(figure, colors)
    return inline_svg(figure, title=title)


def _contender_chart(kernels: Found) -> Markup | None:
    from matplotlib.figure import Figure

    formats = _formats(kernels)
    figure = Figure(figsize=(2.9 * len(formats), 5.4), layout="constrained")
    grid = figure.subplots(2, len(formats), squeeze=False)
    colors = _colors(kernels)
    for column, dtype in enumerate(formats):
        for axes, quantity in zip(grid[:, column], ("zeros", "lost"), strict=True):
            for name, of in kernels.items():
                if dtype in of:
                    shares = [100 * v for v in of[dtype][quantity]]
                    axes.plot(
                        of[dtype]["scales"],
                        shares,
                        color=colors[name],
                        marker="o",
                        markersize=3.5,
                        linewidth=1.4,
                    )
            axes.set_xscale("log", base=2)
            scales = next(of[dtype]["scales"] for of in kernels.values() if dtype in of)
            axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
            axes.set_ylim(-4, 104)
            _dress(axes, f"{QUANTITIES[quantity]}, %\n{dtype}", "scale of the logits")
    _legend(figure, colors)
    return inline_svg(figure, title="Vanished gradients of softmax and of softmax behind attention")


def _colors(names: Any) -> dict[str, str]:
    distinct = list(dict.fromkeys(names))
    return {name: COLORS[number] if number < len(COLORS) else GRAY for number, name in enumerate(distinct)}


def _dress(axes: Axes, heading: str, label: str) -> None:
    axes.set_title(heading, fontsize=9, loc="left")
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, colors: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, label=literal(name[:40])) for name, color in colors.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=8, frameon=False)
