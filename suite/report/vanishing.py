"""The chapter of vanishing gradients: from which logit scale and gap on they are gone, kernel by
kernel, theory beside it.

Reads measurements of kind "vanishing" (suite/measure/vanishing.py) and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from suite.formats import DTYPES, get_format
from suite.ops import measured_by
from suite.records import schema
from suite.records.record import Measurement
from suite.report.figures import drawn, inline_svg, literal
from suite.report.thresholds import explained

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

Curve = dict[str, Any]
COUNTS = ("zero", "false_zero", "flushed", "top_lost", "dead", "defect", "gain", "exact_gain", "not_finite")
COLUMNS = (*COUNTS, "underflow", "dead_floor", "top_error", "entropy", "entropy_bound")
AXES = {
    "scale": "logit scale, n = {n}",
    "length": "row length n, logit scale {scale:g}",
    "gap": "gap of a row of two",
}
PANELS: dict[str, tuple[str, Callable[[Curve], list[float | None]], str, tuple[str, ...]]] = {
    "zero": ("entries that are 0", lambda c: c["zero"], "underflow", ("underflow",)),
    "lost": (
        "false zeros + flushed",
        lambda c: _sums(c["false_zero"], c["flushed"]),
        "",
        ("rounded", "absorbed"),
    ),
    "top": ("largest logit lost, rows", lambda c: c["top_lost"], "", ("rounded", "absorbed")),
    "dead": ("dead rows", lambda c: c["dead"], "dead_floor", ("underflow",)),
    "defect": ("row-sum defect", lambda c: c["defect"], "", ("rounded", "absorbed")),
    "gain": ("norm, times of exact", lambda c: _ratios(c["gain"], c["exact_gain"]), "", ()),
}
"""The panels of a chart, one for each axis: title, what is drawn, what no kernel of the format
avoids, theory's places.
"""
TICKS = {
    "scale": (0.25, 1, 4, 16, 64),
    "length": (10, 100, 1000, 10000, 100000),
    "gap": (1, 3, 10, 30, 100, 300),
}
COLORS = ("#3b82c4", "#d9822b", "#2e9e6b", "#b5559a", "#7a6fd0", "#c2564b")
GRAY = "#888888"
IDEAS = (
    (
        "absorbed",
        "p ln 2: 1 + e^−g is 1 in the format, so p is 1 and the gradient of the largest logit, p (1 − p),"
        " is 0.",
    ),
    ("sum", "p ln 2 + ln(n − 1): the competitors are summed first, and absorbed together."),
    ("part", "p ln 2 + ln(n/k): the row is summed in k parts of n/k entries."),
    (
        "rounded",
        "ln(2^(p+1) − 1) + ln(n − 1): a p that is computed wide is stored in the format, and is 1 there.",
    ),
    (
        "others",
        "The gradient of the largest logit is the negative sum of the others’, so it lives as long as they"
        " do: autograd through the row’s maximum.",
    ),
    (
        "zero",
        "(p − e_min) ln 2: e^−g is below half the smallest subnormal number; plus ln(n − 1) for a sum of"
        " competitors.",
    ),
    ("flushed", "−e_min ln 2: e^−g is below the normal numbers, and what is subnormal is 0."),
)
"""What explains a threshold; the format that follows in a name is the arithmetic whose p and e_min
are meant.
"""
SAME = 0.02
"""Kernels whose curves differ by no more share a line."""
NAMED, LETTERS = 4, 28
FIRST = ("fused", "sdpa_flash", "sdpa_math")
"""The kernel whose mitigations are shown unfolded: the framework's own, where it is there."""


# What a stranger's measurement must look like before anything is drawn.

_NUMBER = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
_OR_NULL = {"anyOf": [_NUMBER, {"type": "null"}]}
_TEXT = {"type": "string"}
_PLACE = {"type": "number", "minimum": 0, "maximum": 1e150}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item}


_COUNT = {"type": "integer", "minimum": 1, "maximum": 2**53}
_CURVE = _object(
    at=_list(_PLACE),
    theory={"type": "object", "additionalProperties": _PLACE},
    **{name: _list(_OR_NULL) for name in COLUMNS},
)
_FIXED = {"scale": {"n": _COUNT}, "length": {"scale": _PLACE}, "gap": {"n": _COUNT}}
_ENTRY = {
    "anyOf": [_object(n=_COUNT, reason=_TEXT), _object(n=_COUNT, measured=_OR_NULL, agrees_with=_list(_TEXT))]
}
_MEASURED = _object(
    note=_TEXT,
    saturation=_list(_ENTRY),
    lost=_list(_ENTRY),
    mitigations=_list(_object(name=_TEXT, **dict.fromkeys((*COUNTS, "underflow", "dead_floor"), _OR_NULL))),
    **{
        axis: {
            **_CURVE,
            "properties": _CURVE["properties"] | fixed,
            "required": [*_CURVE["required"], *fixed],
        }
        for axis, fixed in _FIXED.items()
    },
)
SHAPE = {"anyOf": [_object(reason=_TEXT), _MEASURED]}


def is_sound(measurement: Measurement) -> bool:
    """Whether the chapter can show it: a known op and format, the documented shape, growing places,
    lists of one length.
    """
    m = measurement
    if m.op not in measured_by("vanishing") or m.dtype not in DTYPES or not schema.conforms(m.data, SHAPE):
        return False
    curves = [m.data[axis] for axis in AXES if axis in m.data]
    return all(
        all(before < after for before, after in pairwise([0.0, *curve["at"]]))
        and all(len(curve[name]) == len(curve["at"]) > 0 for name in COLUMNS)
        for curve in curves
    )


# The chapter.


def vanishing_context(measurements: Iterable[Measurement]) -> dict[str, Any]:
    """What vanishing.html shows: {"vanishing": a section for each op, [] without measurements,
    "vanishing_glance": (format, sentences), "vanishing_ideas": the names of formulas and their
    text, "vanishing_entropy": a chart or None}. Measurements of other kinds are left out.
    """
    chosen = [m for m in measurements if m.kind == "vanishing"]
    measured = [m for m in chosen if "reason" not in m.data]
    return {
        "vanishing": [
            _section(op, [m for m in chosen if m.op == op])
            for op in measured_by("vanishing")
            if any(m.op == op for m in chosen)
        ],
        "vanishing_glance": [
            (dtype, _glance(found))
            for dtype in DTYPES
            if (found := [m for m in measured if m.dtype == dtype])
        ],
        "vanishing_ideas": IDEAS,
        "vanishing_entropy": drawn(_entropy, measured[0].data) if measured else None,
    }


def _section(op: str, group: Sequence[Measurement]) -> dict[str, Any]:
    measured = sorted((m for m in group if "reason" not in m.data), key=lambda m: m.kernel)
    formats = []
    for dtype in DTYPES:
        found = [m for m in measured if m.dtype == dtype]
        if found:
            formats.append(
                {
                    "dtype": dtype,
                    "theory": _theory(found),
                    "rows": _grouped(found, _cells),
                    "chart": drawn(_chart, op, dtype, found),
                    "mitigations": sorted(_grouped(found, _mitigations), key=lambda row: not _own(row[0])),
                }
            )
    return {
        "op": op,
        "lengths": _lengths(measured),
        "formats": formats,
        "notes": _kernels_by((m.data["note"], m) for m in measured if m.data["note"]),
        "missing": _kernels_by((m.data["reason"], m) for m in group if "reason" in m.data),
    }


def _grouped(group: Sequence[Measurement], cells: Callable[[Measurement], Any]) -> list[tuple[str, Any]]:
    """(kernels, their cells), kernels with the same cells in one row."""
    rows: dict[Any, list[str]] = {}
    for m in group:
        rows.setdefault(cells(m), []).append(_name(m))
    return [(", ".join(names), found) for found, names in rows.items()]


def _kernels_by(pairs: Iterable[tuple[str, Measurement]]) -> list[tuple[str, str]]:
    """(kernels, what is said of them)."""
    found: dict[str, list[str]] = {}
    for text, m in pairs:
        names = found.setdefault(text, [])
        if _name(m) not in names:
            names.append(_name(m))
    return [(", ".join(sorted(names)), text) for text, names in found.items()]


def _name(measurement: Measurement) -> str:
    return (
        measurement.kernel if measurement.device == "cpu" else f"{measurement.kernel} ({measurement.device})"
    )


def _own(names: str) -> bool:
    return any(name in names.split(", ") for name in FIRST)


def _lengths(measured: Sequence[Measurement]) -> list[int]:
    """The shortest and the longest row whose thresholds the table shows."""
    found = sorted({entry["n"] for m in measured for entry in m.data["lost"]})
    return [found[0], found[-1]] if len(found) > 1 else found


Cells = tuple[tuple[str, str], ...]


def _cells(m: Measurement) -> Cells:
    """(value, what explains it): thresholds over the gap, then what is read off the curve over the
    logit scale.
    """
    curve = m.data["scale"]
    return (
        *(_threshold(m.data["saturation"], place) for place in (0, -1)),
        *(_threshold(m.data["lost"], place) for place in (0, -1)),
        (_from(curve, curve["zero"], 0.5), ""),
        (_from(curve, curve["top_lost"], 0.01), ""),
        (_from(curve, curve["dead"], 0.01), ""),
        (_share(curve["top_lost"][-1]), ""),
        (_number(curve["defect"][-1]), ""),
        (_share(curve["not_finite"][-1]), ""),
    )


def _threshold(entries: Sequence[dict[str, Any]], place: int) -> tuple[str, str]:
    if not entries:
        return "never", "the gradient is p itself"
    entry = entries[place]
    if "reason" in entry:
        return "not measured", entry["reason"]
    at = (
        ""
        if place == 0 or entry["n"] == entries[0]["n"]
        else f", n = {entry['n']:,}"
        if entry["n"] != 4096
        else ""
    )
    if entry["measured"] is None:
        return f"never{at}", ""
    return f"{entry['measured']:.5g}{at}", explained(entry["agrees_with"]) or "no formula"


def _from(curve: Curve, values: Sequence[float | None], share: float) -> str:
    """The first place from which the share is reached, or beyond which place it may be."""
    for place, value in zip(curve["at"], values, strict=True):
        if value is not None and value >= share:
            return f"{place:g}"
    return f"> {curve['at'][-1]:g}"


def _theory(found: Sequence[Measurement]) -> Cells:
    """The row of closed thresholds for the format, in the columns of _cells."""
    format, lengths = get_format(found[0].dtype), _lengths(found)
    theory = found[0].data["scale"]["theory"]
    saturation = [
        f"{format.saturation_in_format:.5g} to {format.saturation_rounded(n):.5g}"
        for n in (lengths[0], lengths[-1])
    ]
    if not found[0].data["saturation"]:
        saturation = ["never", "never"]
    underflow = f"{format.exp_underflow:.5g}"
    typical = [f"{theory[name]:.3g}" if name in theory else "" for name in ("underflow", "rounded")]
    why = "p ln 2 to rounded once" if found[0].data["saturation"] else ""
    return (
        *((value, why) for value in saturation),
        *((underflow, "(p − e_min) ln 2"),) * 2,
        (typical[0], "the median entry"),
        (
            typical[1] if found[0].data["saturation"] else "",
            "the median row" if found[0].data["saturation"] else "",
        ),
        *(("", ""),) * 4,
    )


def _glance(found: Sequence[Measurement]) -> list[str]:
    """What a reader takes home about a format: where gradients are gone first and last, and which
    kernels keep them.
    """
    format = get_format(found[0].dtype)
    sentences = []
    saturating = [(m, entry) for m in found for entry in m.data["saturation"][:1] if entry.get("measured")]
    if saturating:
        ordered = sorted(saturating, key=lambda pair: pair[1]["measured"])
        (_, first), (_, last) = ordered[0], ordered[-1]
        n = first["n"]
        theory = (
            f"theory: {format.saturation_in_format:.4g} summed in the format,"
            f" {format.saturation_rounded(n):.4g} rounded once"
        )
        sentences.append(
            f"The gradient of the largest of {n} logits is exactly 0 from a gap of {first['measured']:.5g} on"
            f" in {_who(ordered, first['measured'])} ({theory}); last in {_who(ordered, last['measured'])},"
            f" from {last['measured']:.5g} on."
        )
    zero = sorted((float(place), _label(m)) for m in found if (place := _reached(m, "zero", 0.5)) is not None)
    dead = sorted(
        (float(place), _label(m)) for m in found if (place := _reached(m, "dead", 0.01)) is not None
    )
    theory = found[0].data["scale"]["theory"].get("underflow")
    near = f" (theory: half of them at {theory:.3g})" if theory else ""
    scale, last_scale = found[0].data["scale"], max(m.data["scale"]["at"][-1] for m in found)
    if zero:
        first_half = _listed([who for place, who in zero if place == zero[0][0]])
        length = f"n = {scale['n']:,}"
        sentences.append(
            f"Half of all entries are 0 from logit scale {zero[0][0]:g} on{near}, {length}, first in"
            f" {first_half}."
        )
    else:
        sentences.append(f"Up to logit scale {last_scale:g}, no kernel has half of its entries at 0{near}.")
    if dead:
        first_dead = [who for place, who in dead if place == dead[0][0]]
        sentences.append(f"Rows are dead from logit scale {dead[0][0]:g} on, first in {_listed(first_dead)}.")
    else:
        sentences.append(f"No row is dead up to logit scale {last_scale:g}.")
    return sentences


def _reached(m: Measurement, name: str, share: float) -> float | None:
    curve = m.data["scale"]
    pairs = zip(curve["at"], curve[name], strict=True)
    return next((float(place) for place, value in pairs if value is not None and value >= share), None)


def _who(pairs: Sequence[tuple[Measurement, dict[str, Any]]], measured: float) -> str:
    return _listed([_label(m) for m, entry in pairs if entry["measured"] == measured])


def _label(m: Measurement) -> str:
    return f"{m.op} {_name(m)}"


def _listed(names: Sequence[str]) -> str:
    names = sorted(set(names), key=lambda name: (not _own(name.partition(" ")[2]), name))
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def _mitigations(m: Measurement) -> tuple[tuple[str, ...], ...]:
    """Rows of the table: name, zeros, what no kernel avoids, false zeros and flushed, lost, dead,
    norm, defect.
    """
    return tuple(
        (
            one["name"],
            _share(one["zero"]),
            _share(one["underflow"]),
            _share(_sum(one["false_zero"], one["flushed"])),
            _share(one["top_lost"]),
            _share(one["dead"]),
            _number(one["gain"]),
            _number(_ratio(one["gain"], one["exact_gain"])),
            _number(one["defect"]),
            _share(one["not_finite"]),
        )
        for one in m.data["mitigations"]
    )


def _share(value: float | None) -> str:
    """In percent; what is not all is never rounded to all, nor what is not nothing to nothing."""
    if value is None:
        return "–"
    if value in (0, 1):
        return "0" if value == 0 else "100 %"
    return "< 0.1 %" if value < 0.001 else "> 99.9 %" if value >= 0.9995 else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def _sums(first: Sequence[float | None], second: Sequence[float | None]) -> list[float | None]:
    return [_sum(a, b) for a, b in zip(first, second, strict=True)]


def _ratios(first: Sequence[float | None], second: Sequence[float | None]) -> list[float | None]:
    return [_ratio(a, b) for a, b in zip(first, second, strict=True)]


# Charts: an axis a row, a quantity a column; kernels as lines, theory as vertical lines, what no
# kernel avoids dashed.


def _chart(op: str, dtype: str, group: Sequence[Measurement]) -> Markup | None:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    lines = _lines(group)
    shown = lines[: len(COLORS)]
    handles = [Line2D([], [], color=color) for color in COLORS[: len(shown)]]
    handles += [Line2D([], [], color=GRAY, linestyle="--"), Line2D([], [], color=GRAY, linestyle=":")]
    labels = [_shortened(names) for names, _ in shown] + [
        "no kernel of the format avoids it",
        "closed threshold",
    ]
    if len(lines) > len(shown):
        handles.append(Line2D([], [], linestyle="none"))
        labels.append(f"not drawn, only in the table: {len(lines) - len(shown)} more groups")
    legend = 0.19 * ((len(labels) + 1) // 2)  # inches, for lines of two entries
    width, height = 2.25 * len(PANELS), 1.8 * len(AXES) + 0.75 + legend
    figure = Figure(
        figsize=(width, height)
    )  # laid out by hand: a constrained layout of so many panels takes a second
    grid = figure.add_gridspec(
        len(AXES), len(PANELS), left=0.5 / width, right=1 - 0.1 / width, top=1 - 0.35 / height,
        bottom=(0.35 + legend) / height, wspace=0.28, hspace=0.28,
    )  # fmt: skip
    for row, (axis, label) in enumerate(AXES.items()):
        for column, name in enumerate(PANELS):
            place = grid[row, column]
            box = place.get_position(figure)
            if row == 0:
                figure.text(box.x0, 1 - 0.2 / height, PANELS[name][0], fontsize=8.5)
            if column == 0:
                at = 0.12 / width, (box.y0 + box.y1) / 2
                figure.text(
                    *at,
                    label.format(**group[0].data[axis]),
                    fontsize=8,
                    rotation=90,
                    ha="center",
                    va="center",
                )
            flat = _flat(name, [m.data[axis] for _, m in lines])
            if flat:
                figure.text(
                    (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, flat, fontsize=8, ha="center", color=GRAY
                )
            else:
                _panel(figure.add_subplot(place), axis, name, lines)
    figure.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0.2 / width, 0), fontsize=8, ncols=2, frameon=False
    )
    return inline_svg(
        figure, title=f"Vanishing gradients of {op} in {dtype} over logit scale, row length and gap"
    )


def _flat(name: str, curves: Sequence[Curve]) -> str:
    """What is said in place of a panel on which nothing could be seen; "" where there is something."""
    _, values, floor, _ = PANELS[name]
    found = [
        value
        for curve in curves
        for value in (*values(curve), *(curve[floor] if floor else ()))
        if value is not None
    ]
    if not found:
        return "not finite"
    if name == "gain":
        return "1 everywhere" if all(abs(value - 1) <= SAME for value in found) else ""
    if all(value == 0 for value in found):
        return "0 everywhere"
    return "below 0.01" if name != "lost" and max(found) < 0.01 else ""


def _lines(group: Sequence[Measurement]) -> list[tuple[list[str], Measurement]]:
    """Kernels whose curves cover each other, with the measurement that is drawn for them; most
    points first.
    """
    found: list[tuple[list[str], Measurement]] = []
    for m in sorted(group, key=lambda m: -sum(len(m.data[axis]["at"]) for axis in AXES)):
        for names, known in found:
            if all(_cover(known.data[axis], m.data[axis]) for axis in AXES):
                names.append(_name(m))
                break
        else:
            found.append(([_name(m)], m))
    return sorted(found, key=lambda pair: not any(_own(name) for name in pair[0]))


def _cover(known: Curve, other: Curve) -> bool:
    """Whether all that `other` has lies on the curves of `known`."""
    places = {place: index for index, place in enumerate(known["at"])}
    if not all(place in places for place in other["at"]):
        return False
    for _, values, _, _ in PANELS.values():
        mine, theirs = values(known), values(other)
        for place, value in zip(other["at"], theirs, strict=True):
            reference = mine[places[place]]
            if (reference is None) != (value is None):
                return False
            if reference is not None and value is not None and abs(reference - value) > SAME:
                return False
    return True


def _panel(axes: Axes, axis: str, name: str, lines: Sequence[tuple[list[str], Measurement]]) -> None:
    _, values, floor, theory = PANELS[name]
    curves = [m.data[axis] for _, m in lines]
    widest = max(curves, key=lambda curve: len(curve["at"]))
    first, last = widest["at"][0], widest["at"][-1]
    axes.set_xscale("log")
    axes.set_xlim(first, max(last, first * 1.01))
    axes.tick_params(labelsize=7)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    ticks = [place for place in TICKS[axis] if first <= place <= last]
    axes.set_xticks(
        ticks, [f"{tick:g}" if tick < 1e4 else f"{tick:.0e}".replace("e+0", "e") for tick in ticks]
    )
    for place in (widest["theory"].get(mark) for mark in theory):
        if place is not None and first < place < last:
            axes.axvline(place, color=GRAY, linestyle=":", linewidth=1.1, zorder=1)
    drawn_values = [value for curve in curves[: len(COLORS)] for value in values(curve) if value is not None]
    top = max(drawn_values, default=0.0)
    if name == "lost" and 0 < top < 0.5:
        axes.set_ylim(0, 1.25 * top)
        axes.locator_params(axis="y", nbins=3)
    else:
        axes.set_ylim(0, 1.6 if name == "gain" else 1.04)
        axes.set_yticks([0, 0.5, 1])
    if floor:
        axes.plot(
            widest["at"],
            [_or_nan(v) for v in widest[floor]],
            color=GRAY,
            linestyle="--",
            linewidth=1.2,
            zorder=2,
        )
    for color, curve in reversed(list(zip(COLORS, curves, strict=False))):
        axes.plot(
            curve["at"], [min(_or_nan(v), 1e3) for v in values(curve)], color=color, linewidth=1.5, zorder=3
        )


def _entropy(data: dict[str, Any]) -> Markup | None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 2.2), layout="constrained")
    for axes, axis in zip(figure.subplots(1, 2), ("scale", "length"), strict=True):
        curve = data[axis]
        axes.plot(
            curve["at"],
            [_or_nan(v) for v in curve["entropy"]],
            color=COLORS[0],
            label="entropy of the rows, nats",
        )
        axes.plot(
            curve["at"],
            [_or_nan(v) for v in curve["entropy_bound"]],
            color=GRAY,
            linestyle="--",
            label="lower bound",
        )
        axes.set_xscale("log")
        axes.set_xlabel(AXES[axis].format(**curve), fontsize=8)
        axes.tick_params(labelsize=7.5)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=8)
    return inline_svg(figure, title="Entropy of the rows that gradients were taken at, and its lower bound")


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _shortened(names: Sequence[str]) -> str:
    shown = [name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}" for name in sorted(names)[:NAMED]]
    return literal(", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else ""))
