"""Depth: gradients through many layers, rank collapse, and what attention in front of softmax changes.

Reads measurements of kind "depth" (suite/studies/depth/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suite.formats import DTYPES
from suite.records import schema
from suite.records.record import Measurement
from suite.report.chapters import Found
from suite.report.figures import COLORS, GRAY, drawn, dress, figure_of, inline_svg, legend_below
from suite.report.shapes import COUNT, NUMBER, SHARE, fields, many, or_null
from suite.report.words import in_order, share

if TYPE_CHECKING:
    from markupsafe import Markup

PLACE = 110
KIND = "depth"
Values = Sequence[float | None]
Modules = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Of one op: module -> dtype -> data."""
Table = tuple[str, list[Any], list[tuple[str, list[str]]]]
"""Caption, headings, and rows of a name and its cells."""

FLOOR = 1e-20
"""Smaller values are drawn at the lower edge, where zeros are."""
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
"""What makes the columns of tables: the same for all measurements of a section."""

NUMBERS = many(NUMBER)
GAPPED = many(or_null(NUMBER))
SHARES = many(SHARE)
NATURAL = COUNT | {"minimum": 0, "maximum": 2**31}
SHAPES = {
    "transformer_stack": fields(
        dict.fromkeys(("gain", "error", "layers", "query"), GAPPED),
        depths=many(NATURAL),
        false_zeros=SHARES,
        overflow=or_null(NATURAL),
        one_hot=SHARE,
        check=NUMBER,
    ),
    "rank_collapse": fields(dict.fromkeys(("smallest", "median", "largest"), GAPPED)),
    "rank_collapse_exact": fields(log10=NUMBERS),
    "lipschitz": fields(lengths=many(NATURAL), infinity=NUMBERS, two=NUMBERS),
    "attention_softmax": fields(dict.fromkeys(("tiny", *QUANTITIES), SHARES), scales=NUMBERS, gain=NUMBERS),
}
AXES = {
    "transformer_stack": ("depths", "gain", "error", "false_zeros"),
    "rank_collapse": ("median", "smallest", "largest"),
    "rank_collapse_exact": ("log10",),
    "lipschitz": ("lengths", "infinity", "two"),
    "attention_softmax": ("scales", "gain", "tiny", *QUANTITIES),
}
"""Lists that are as long as the first of them, which is not empty."""


def is_sound(m: Measurement) -> bool:
    """A known op and format, and data of its shape, whose lists are of one length."""
    shape = SHAPES.get(m.op)
    if shape is None or m.dtype not in DTYPES or not schema.conforms(m.data, shape):
        return False
    lengths = {len(m.data[name]) for name in AXES[m.op]}
    return len(lengths) == 1 and lengths != {0}


def context(found: Found) -> dict[str, Any] | None:
    """depth: sections with an op, notes, a chart or None, and tables."""
    ops: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    left_out: Counter[str] = Counter()
    for m in found.measured(KIND):
        modules = ops.setdefault(m.op, {})
        first = next((data for of in modules.values() for data in of.values()), m.data)
        alike = all(m.data[key] == first[key] for key in COLUMNS & m.data.keys())
        if alike and (m.kernel in modules or len(modules) < MOST):
            modules.setdefault(m.kernel, {})[m.dtype] = m.data
        else:
            left_out[m.op] += 1
    sections = []
    for op, part in SECTIONS.items():
        if ops.get(op):
            notes, chart, tables = part(ops[op], ops.get("rank_collapse_exact", {}))
            if left_out[op]:
                others = f"measurements of other columns or of more than {MOST} modules"
                notes.append(f"Not shown: {left_out[op]:,} {others}.")
            sections.append({"op": op, "notes": notes, "chart": chart, "tables": tables})
    return {"depth": sections} if sections else None


Section = tuple[list[str], "Markup | None", list[Table]]


def _gradients(modules: Modules, exact: Modules) -> Section:
    formats = _formats(modules)
    gains = _rows(modules, formats[0], "gain")
    captions = [(f"‖dx at the input‖ / ‖dx at the output‖, {formats[0]}, by number of layers", gains)]
    captions += [
        (f"Relative error of the input’s gradient in {f} against the float64 run", _rows(modules, f, "error"))
        for f in formats
        if f != "float64"
    ]
    depths = next(of[formats[0]]["depths"] for of in modules.values() if formats[0] in of)
    worst = max(float(data["check"]) for of in modules.values() for data in of.values())
    notes = [f"The float64 run agrees with the exact gradient of a small stack within {worst:.1e}."]
    overflows = [
        f"{name} in {dtype} from layer {data['overflow']} on"
        for name, of in modules.items()
        for dtype, data in of.items()
        if data["overflow"] is not None
    ]
    if overflows:
        notes.append(f"The forward pass itself is not finite: {'; '.join(overflows)}.")
    tables: list[Table] = [(caption, ["layers", *depths], _written(rows)) for caption, rows in captions]
    return notes, drawn(_gradient_chart, modules), tables


def _collapse(modules: Modules, exact: Modules) -> Section:
    logs = {name: next(iter(of.values()))["log10"] for name, of in exact.items()}
    notes = [
        f"Exactly, for 8 tokens ({name}): 10 to the power of {', '.join(f'{v:.1f}' for v in values)}."
        for name, values in logs.items()
    ]
    widest = _formats(modules)[0]
    rows = _rows(modules, widest, "median")
    heads = ["layer", *range(max(len(values) for values in rows.values()))]
    tables: list[Table] = [(f"Median relative residual, {widest}", heads, _written(rows))]
    return notes, drawn(_collapse_chart, modules), tables


def _contenders(modules: Modules, exact: Modules) -> Section:
    scales = next(iter(next(iter(modules.values())).values()))["scales"]
    columns = [(dtype, number) for dtype in _formats(modules) for number in range(len(scales))[-2:]]
    heads = ["logits times", *(f"{scales[number]:g}, {dtype}" for dtype, number in columns)]
    tables: list[Table] = []
    for quantity, text in QUANTITIES.items():
        rows = [
            (name, [share(of[dtype][quantity][number]) if dtype in of else "" for dtype, number in columns])
            for name, of in modules.items()
        ]
        tables.append((f"Share of {text}", heads, rows))
    return [], drawn(_contender_chart, modules), tables


def _lipschitz(modules: Modules, exact: Modules) -> Section:
    lengths = next(iter(next(iter(modules.values())).values()))["lengths"]
    rows = [
        (f"{name}, {dtype}, {norm}-norm", [f"{v:.6f}" for v in of[dtype][key]])
        for name, of in modules.items()
        for dtype in in_order(of)
        for norm, key in (("∞", "infinity"), ("2", "two"))
    ]
    return [], None, [("Largest norm found", ["n", *lengths], rows)]


SECTIONS = {
    "transformer_stack": _gradients,
    "rank_collapse": _collapse,
    "attention_softmax": _contenders,
    "lipschitz": _lipschitz,
}


def _formats(modules: Modules) -> list[str]:
    return in_order(dtype for of in modules.values() for dtype in of)


def _rows(modules: Modules, dtype: str, quantity: str) -> dict[str, Values]:
    return {name: of[dtype][quantity] for name, of in modules.items() if dtype in of}


def _written(rows: Mapping[str, Values]) -> list[tuple[str, list[str]]]:
    return [
        (name, ["not finite" if v is None else f"{v:.3g}" for v in values]) for name, values in rows.items()
    ]


# The charts: panels side by side with one legend below them.


def _gradient_chart(modules: Modules) -> Markup | None:
    formats = _formats(modules)
    panels = [(f"gain by layer, {formats[0]}", _rows(modules, formats[0], "layers"))]
    panels += [(f"W_q over W_v, {dtype}", _rows(modules, dtype, "query")) for dtype in formats]
    return _panels(panels, title="Gradients through the layers of a deep stack", first=1, alone=1)


def _collapse_chart(modules: Modules) -> Markup | None:
    panels = [(dtype, _rows(modules, dtype, "median")) for dtype in _formats(modules)]
    return _panels(panels, title="Relative residual after each layer")


def _panels(
    panels: Sequence[tuple[str, Mapping[str, Values]]], *, title: str, first: int = 0, alone: int = 0
) -> Markup | None:
    """Panels of values by layer from `first` on; all but the first `alone` panels share their
    vertical axis.
    """
    columns = len(panels) if len(panels) < 5 else 3
    lines = -(-len(panels) // columns)
    width = 2.9 if columns == 4 else 3.9
    figure, grid = figure_of(width * columns, 2.7 * lines + 0.7, rows=lines, columns=columns)
    every = [axes for row in grid for axes in row]
    colors = _colors(name for _, rows in panels for name in rows)
    for axes, (heading, rows) in zip(every, panels, strict=False):
        axes.set_yscale("log")
        for name, values in rows.items():
            shown = {first + number: max(abs(v), FLOOR) for number, v in enumerate(values) if v is not None}
            axes.plot(list(shown), list(shown.values()), color=colors[name], linewidth=1.4)
        dress(axes, "layer", title=heading)
    limits = [axes.get_ylim() for axes in every[alone : len(panels)]]
    for axes in every[alone : len(panels)]:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for axes in every[len(panels) :]:
        axes.set_visible(False)
    _legend(figure, colors)
    return inline_svg(figure, title=title)


def _contender_chart(modules: Modules) -> Markup | None:
    formats = _formats(modules)
    figure, grid = figure_of(2.9 * len(formats), 5.4, rows=2, columns=len(formats))
    colors = _colors(modules)
    for row, quantity in zip(grid, ("zeros", "lost"), strict=True):
        for axes, dtype in zip(row, formats, strict=True):
            own = {name: of[dtype] for name, of in modules.items() if dtype in of}
            for name, data in own.items():
                shares = [100 * v for v in data[quantity]]
                look: dict[str, Any] = {
                    "color": colors[name],
                    "marker": "o",
                    "markersize": 3.5,
                    "linewidth": 1.4,
                }
                axes.plot(data["scales"], shares, **look)
            axes.set_xscale("log", base=2)
            scales = next(iter(own.values()))["scales"]
            axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
            axes.set_ylim(-4, 104)
            dress(axes, "scale of the logits", title=f"{QUANTITIES[quantity]}, %\n{dtype}")
    _legend(figure, colors)
    return inline_svg(figure, title="Vanished gradients of softmax and of softmax behind attention")


def _colors(names: Iterable[str]) -> dict[str, str]:
    colors = (*COLORS, "#8a7a3a")
    distinct = list(dict.fromkeys(names))
    return {name: colors[number] if number < len(colors) else GRAY for number, name in enumerate(distinct)}


def _legend(figure: Any, colors: Mapping[str, str]) -> None:
    legend_below(figure, [(name[:40], {"color": color}) for name, color in colors.items()], columns=4)
