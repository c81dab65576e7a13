"""Vanishing gradients: from which logit scale and gap on they are gone, by kernel, beside theory.

Reads measurements of kind "vanishing" (suite/studies/vanishing/).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from suite.formats import DTYPES, get_format
from suite.ops import measured_by
from suite.records import schema
from suite.records.record import Measurement
from suite.report.chapters import Found
from suite.report.chapters.thresholds import explained
from suite.report.figures import drawn
from suite.report.shapes import COUNT, DRAWN, NUMBER, TEXT, by_name, either, fields, many, or_null
from suite.report.tables import alike, by, kernel_of, reasons
from suite.report.vanishing_charts import AXES, Curve, chart, entropy_chart, is_first, ratio, total
from suite.report.words import in_order, share, some

PLACE = 100
KIND = "vanishing"
COUNTS = ("zero", "false_zero", "flushed", "top_lost", "dead", "defect", "gain", "exact_gain", "not_finite")
COLUMNS = (*COUNTS, "underflow", "dead_floor", "top_error", "entropy", "entropy_bound")
_CURVE = {"at": many(DRAWN), "theory": by_name(DRAWN), **dict.fromkeys(COLUMNS, many(or_null(NUMBER)))}
_ENTRY = either(
    fields(n=COUNT, reason=TEXT), fields(n=COUNT, measured=or_null(NUMBER), agrees_with=many(TEXT))
)
_MITIGATION = dict.fromkeys((*COUNTS, "underflow", "dead_floor"), or_null(NUMBER))
SHAPE = either(
    fields(reason=TEXT),
    fields(
        note=TEXT,
        saturation=many(_ENTRY),
        lost=many(_ENTRY),
        mitigations=many(fields(_MITIGATION, name=TEXT)),
        scale=fields(_CURVE, n=COUNT),
        length=fields(_CURVE, scale=DRAWN),
        gap=fields(_CURVE, n=COUNT),
    ),
)

Cells = tuple[tuple[str, str], ...]
"""(value, what explains it)."""


def is_sound(m: Measurement) -> bool:
    """A known op and format, the documented shape, growing places, and lists of one length."""
    if m.op not in measured_by(KIND) or m.dtype not in DTYPES or not schema.conforms(m.data, SHAPE):
        return False
    curves = [m.data[axis] for axis in AXES if axis in m.data]
    return all(
        all(before < after for before, after in pairwise([0.0, *curve["at"]]))
        and all(len(curve[name]) == len(curve["at"]) > 0 for name in COLUMNS)
        for curve in curves
    )


def context(found: Found) -> dict[str, Any] | None:
    """vanishing: a section for each op; glance: (format, sentences); entropy: a chart or None."""
    chosen = found.measured(KIND)
    if not chosen:
        return None
    measured = [m for m in chosen if "reason" not in m.data]
    ops, formats = by(chosen, lambda m: m.op), by(measured, lambda m: m.dtype)
    return {
        "vanishing": [_section(op, ops[op]) for op in measured_by(KIND) if op in ops],
        "glance": [(dtype, _glance(formats[dtype])) for dtype in in_order(formats)],
        "entropy": drawn(entropy_chart, measured[0].data) if measured else None,
    }


def _section(op: str, group: Sequence[Measurement]) -> dict[str, Any]:
    measured = sorted((m for m in group if "reason" not in m.data), key=lambda m: m.kernel)
    of_format = by(measured, lambda m: m.dtype)
    formats = []
    for dtype in in_order(of_format):
        own = of_format[dtype]
        mitigations = alike((kernel_of(m), _mitigations(m)) for m in own)
        formats.append(
            {
                "dtype": dtype,
                "theory": _theory(own),
                "rows": alike((kernel_of(m), _cells(m)) for m in own),
                "chart": drawn(chart, op, dtype, own),
                "mitigations": sorted(mitigations, key=lambda row: not is_first(row[0])),
            }
        )
    return {
        "op": op,
        "lengths": _lengths(measured),
        "formats": formats,
        "notes": reasons(measured, "note"),
        "missing": reasons(group, "reason"),
    }


def _lengths(measured: Sequence[Measurement]) -> list[int]:
    """The shortest and the longest row whose thresholds the table shows."""
    found = sorted({entry["n"] for m in measured for entry in m.data["lost"]})
    return [found[0], found[-1]] if len(found) > 1 else found


def _cells(m: Measurement) -> Cells:
    """Thresholds over the gap, then what the curve over the logit scale says."""
    curve = m.data["scale"]
    return (
        *(_threshold(m.data["saturation"], place) for place in (0, -1)),
        *(_threshold(m.data["lost"], place) for place in (0, -1)),
        (_from(curve, "zero", 0.5), ""),
        (_from(curve, "top_lost", 0.01), ""),
        (_from(curve, "dead", 0.01), ""),
        (share(curve["top_lost"][-1]), ""),
        (_number(curve["defect"][-1]), ""),
        (share(curve["not_finite"][-1]), ""),
    )


def _threshold(entries: Sequence[dict[str, Any]], place: int) -> tuple[str, str]:
    if not entries:
        return "never", "the gradient is p itself"
    entry = entries[place]
    if "reason" in entry:
        return "not measured", entry["reason"]
    usual = place == 0 or entry["n"] in (entries[0]["n"], 4096)
    at = "" if usual else f", n = {entry['n']:,}"
    if entry["measured"] is None:
        return f"never{at}", ""
    return f"{entry['measured']:.5g}{at}", explained(entry["agrees_with"]) or "no formula"


def _reached(curve: Curve, name: str, least: float) -> float | None:
    """The first place from which the share is reached."""
    pairs = zip(curve["at"], curve[name], strict=True)
    return next((float(place) for place, value in pairs if value is not None and value >= least), None)


def _from(curve: Curve, name: str, least: float) -> str:
    place = _reached(curve, name, least)
    return f"> {curve['at'][-1]:g}" if place is None else f"{place:g}"


def _theory(found: Sequence[Measurement]) -> Cells:
    """The row of closed thresholds for the format, in the columns of _cells."""
    format, typical = get_format(found[0].dtype), found[0].data["scale"]["theory"]
    median = {name: f"{typical[name]:.3g}" if name in typical else "" for name in ("underflow", "rounded")}
    saturation: Cells = (("never", ""), ("never", ""))
    largest_lost = ("", "")
    if found[0].data["saturation"]:
        lengths = _lengths(found)
        saturation = tuple(
            (
                f"{format.saturation_in_format:.5g} to {format.saturation_rounded(n):.5g}",
                "p ln 2 to rounded once",
            )
            for n in (lengths[0], lengths[-1])
        )
        largest_lost = (median["rounded"], "the median row")
    underflow = (f"{format.exp_underflow:.5g}", "(p − e_min) ln 2")
    half_zero = (median["underflow"], "the median entry")
    return (*saturation, underflow, underflow, half_zero, largest_lost, *[("", "")] * 4)


def _glance(found: Sequence[Measurement]) -> list[str]:
    """What a reader remembers of a format: where gradients are gone first and last, and which kernels
    keep them.
    """
    scale, last = found[0].data["scale"], max(m.data["scale"]["at"][-1] for m in found)
    underflow = scale["theory"].get("underflow")
    near = f" (theory: half of them at {underflow:.3g})" if underflow else ""
    sentences = _saturation(found)
    if half := _first(found, "zero", 0.5):
        sentences.append(
            f"Half of all entries are 0 from logit scale {half[0]:g} on{near}, n = {scale['n']:,}, first in"
            f" {half[1]}."
        )
    else:
        sentences.append(f"Up to logit scale {last:g}, no kernel has half of its entries at 0{near}.")
    if dead := _first(found, "dead", 0.01):
        sentences.append(f"Rows are dead from logit scale {dead[0]:g} on, first in {dead[1]}.")
    else:
        sentences.append(f"No row is dead up to logit scale {last:g}.")
    return sentences


def _saturation(found: Sequence[Measurement]) -> list[str]:
    """A sentence about the largest logit, [] where no kernel loses its gradient."""
    entries = [(m, m.data["saturation"][0]) for m in found if m.data["saturation"]]
    places = by(
        (pair for pair in entries if pair[1].get("measured")), lambda pair: float(pair[1]["measured"])
    )
    if not places:
        return []
    first, last = min(places), max(places)
    format, n = get_format(found[0].dtype), places[first][0][1]["n"]
    who = [_some([_label(m) for m, _ in places[place]]) for place in (first, last)]
    return [
        f"The gradient of the largest of {n} logits is exactly 0 from a gap of {first:.5g} on"
        f" in {who[0]} (theory: {format.saturation_in_format:.4g} summed in the format,"
        f" {format.saturation_rounded(n):.4g} rounded once); last in {who[1]},"
        f" from {last:.5g} on."
    ]


def _first(found: Sequence[Measurement], name: str, least: float) -> tuple[float, str] | None:
    """(the first logit scale at which a kernel reaches the share, those kernels)."""
    places = by(found, lambda m: _reached(m.data["scale"], name, least))
    first = min((place for place in places if place is not None), default=None)
    return None if first is None else (first, _some([_label(m) for m in places[first]]))


def _label(m: Measurement) -> str:
    return f"{m.op} {kernel_of(m)}"


def _some(names: Sequence[str]) -> str:
    """torch's own first."""
    return some(sorted(set(names), key=lambda name: (not is_first(name.partition(" ")[2]), name)))


def _mitigations(m: Measurement) -> tuple[tuple[str, ...], ...]:
    """Rows of the table: name, zeros, what no kernel avoids, false zeros and flushed, lost, dead,
    norm, norm over the exact one, defect, not finite.
    """
    return tuple(
        (
            one["name"],
            share(one["zero"]),
            share(one["underflow"]),
            share(total(one["false_zero"], one["flushed"])),
            share(one["top_lost"]),
            share(one["dead"]),
            _number(one["gain"]),
            _number(ratio(one["gain"], one["exact_gain"])),
            _number(one["defect"]),
            share(one["not_finite"]),
        )
        for one in m.data["mitigations"]
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
