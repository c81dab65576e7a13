"""Speed beside accuracy: which kernel to use, how fast it could be, and what error it has.

Reads measurements of kind "throughput" (suite/bench, docs/bench.md), and the records, which say
whether a fast kernel is safe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from suite.formats import DTYPES
from suite.ops import NAMES, get_op
from suite.records import schema
from suite.records.record import STATUSES, Measurement
from suite.report.advice import UNKNOWN, Advice, Standing, Subject, standings, times_as_fast
from suite.report.chapters import Found
from suite.report.shapes import COUNT, SECONDS, TEXT, fields, many, one_of, or_null
from suite.report.tables import by
from suite.report.throughput_charts import DRAWN, charts, error, per_second, roof, work
from suite.report.throughput_sections import (
    Input,
    Section,
    charted,
    pareto_front,
    passes,
    remarks,
    sections_of,
)
from suite.report.words import count, first_line, in_order, seconds, some, spaced, times
from suite.timing.statistics import MOST, Scaling

PLACE = 75
KIND = "throughput"
SECTIONS = 300
"""Sections of a page."""
CHARTED = 12
"""Sections whose charts are drawn."""
ANSWERED = 8
"""Inputs that the answers show of an op, the longest."""
INPUTS = 16
"""Inputs that the table of a section shows, the longest."""
LISTED = 100
"""Rows of a list."""
FRONT = 12
"""Kernels of a Pareto front that are named."""
SLOW_START_SECONDS = 0.1
"""A first call is slow that takes so long, ..."""
MANY_CALLS = 10
"""... or as long as so many later calls ..."""
SHORTEST_START = 1e-3
"""... and no less than so many seconds."""

AMOUNT = COUNT | {"minimum": 0, "maximum": 2**63}
RATE = or_null({"type": "number", "minimum": 1, "maximum": 1e24})
SHAPE = fields(
    status=one_of(*STATUSES, "known_failure"),
    ratio=or_null(dict(schema.REAL)),
    direction=one_of("forward", "backward"),
    shape=many(COUNT),
    length=COUNT,
    bytes=AMOUNT | {"minimum": 1},
    operations=AMOUNT,
    clock=one_of("perf_counter", "cuda_event", "cuda_graph"),
    cache=one_of("warm", "flushed"),
    threads=COUNT,
    samples_seconds=many(SECONDS),
    median_seconds=or_null(SECONDS),
    low_seconds=or_null(SECONDS),
    high_seconds=or_null(SECONDS),
    peak_bytes=or_null(AMOUNT),
    compile_seconds=or_null(SECONDS | {"minimum": 0}),
    copy_bytes_per_second=RATE,
    matmul_operations_per_second=RATE,
    note=TEXT,
)


def is_sound(m: Measurement) -> bool:
    """A known op and format, the documented shape, the length that its shape has, an interval that
    its samples can have, and times only of a kernel that passes, with an error that is a number.
    """
    data = m.data
    if m.op not in NAMES or m.dtype not in DTYPES or not schema.conforms(data, SHAPE):
        return False
    shape, samples = data["shape"], data["samples_seconds"]
    interval = [data["low_seconds"], data["median_seconds"], data["high_seconds"]]
    if len(shape) not in (2, 4) or data["length"] != (shape[2] if len(shape) == 4 else shape[1]):
        return False
    if not samples:
        return interval == [None, None, None]
    if data["status"] != "passed" or len(samples) > MOST or None in interval:
        return False
    ordered = [min(samples), *interval, max(samples)]
    return ordered == sorted(ordered) and (data["ratio"] is None or 0 <= float(data["ratio"]) < math.inf)


def context(found: Found) -> dict[str, Any] | None:
    """advised: a table for each op and direction of which kernel to use; untested: those of which only
    timed inputs were judged; untimed, untimed_named: what has no times; starts: slow first calls;
    throughput: the sections; sections_left_out, charted, drawn, listed: how much is left out.
    """
    timed = found.measured(KIND)
    if not timed:
        return None
    standing = standings(found.judged, timed)
    sections, left_out = sections_of(timed, standing, most=SECTIONS)
    drawn = charted(sections, CHARTED)
    groups = by(sections, lambda section: section.subject)
    advised = [_answer(op, direction, group, standing) for (op, direction), group in groups.items()]
    every = [m for section in sections for m in section.at.values()]
    untimed = _untimed(every)
    return {
        "throughput": [
            _shown_section(section, standing, charted=number in drawn)
            for number, section in enumerate(sections)
        ],
        "charted": len(drawn),
        "sections_left_out": left_out,
        "advised": advised,
        "untested": some([f"{one['op']} {one['direction']}" for one in advised if one["families"] == 1]),
        "untimed": untimed,
        "untimed_named": some(
            list(dict.fromkeys(f"{one['op']} {one['kernel']} ({one['kind']})" for one in untimed))
        ),
        "starts": _slow_starts(every),
        "listed": LISTED,
        "drawn": DRAWN,
    }


# Which kernel to use.


def _answer(
    op: str, direction: str, group: Sequence[Section], standing: Mapping[Subject, Standing]
) -> dict[str, Any]:
    """Settings down, inputs across."""
    inputs = sorted({one.column for section in group for one in section.inputs})
    shown = inputs[-ANSWERED:]
    rows = []
    for section in group:
        of_input = {one.column: _advised(section.advice[one], standing) for one in section.inputs}
        rows.append((section.label, [of_input.get(column) for column in shown]))
    advised = [advice for section in group for advice in section.advice.values()]
    used = [standing[Subject.of(advice.use)] for advice in advised if advice.use is not None]
    families = frozenset[str]().union(*(one.families for one in used))
    against: dict[tuple[str, str], set[str]] = {}
    for advice in advised:
        for m, reason in advice.unsafe[:4]:
            against.setdefault((m.kernel, reason), set()).add(m.dtype)
    exponents = [found.exponent.value for section in group for found in section.scalings.values()]
    return {
        "op": op,
        "direction": direction,
        "inputs": [label for _, _, label in shown],
        "left_out": len(inputs) - len(shown),
        "rows": rows,
        "evaluations": min((one.evaluations for one in used), default=0),
        "families": len(families),
        "against": [
            (kernel, reason, ", ".join(in_order(dtypes)))
            for (kernel, reason), dtypes in sorted(against.items())[:LISTED]
        ],
        "exponents": (f"{min(exponents):.2f}", f"{max(exponents):.2f}", len(exponents))
        if exponents
        else None,
        "unit": "row" if get_op(op).of_rows else "head",
    }


def _advised(advice: Advice, standing: Mapping[Subject, Standing]) -> dict[str, Any]:
    """A cell of the answer."""
    use = advice.use
    unsafe = some([f"{m.kernel}{_faster(m, use)}" for m, _ in advice.unsafe])
    if use is None:
        return {"unsafe": unsafe, "kernel": ""}
    return {
        "unsafe": unsafe,
        "kernel": use.kernel,
        "declares": standing[Subject.of(use)].declares,
        "latency": seconds(use.data["median_seconds"]),
        "error": f"{times(use.data['ratio'])} × bound",
        "against_torch": _against_torch(use, advice.torch),
        "as_fast": some([m.kernel for m in advice.as_fast]),
    }


def _faster(m: Measurement, than: Measurement | None) -> str:
    return "" if than is None else f" {than.data['median_seconds'] / m.data['median_seconds']:.3g} ×"


def _against_torch(use: Measurement, torch: Measurement | None) -> str:
    if torch is None:
        return ""
    if torch is use:
        return "torch’s own"
    ratio, low, high = times_as_fast(use, torch)
    return f"{ratio:.3g} × {torch.kernel} ({low:.3g} … {high:.3g})"


# What has no times; first calls that are slow.


def _untimed(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Each kernel without times and why; what has the same reason stands together."""
    groups = by(
        (m for m in measurements if not passes(m)),
        lambda m: (m.op, m.data["direction"], m.kernel, _kind(m), m.data["note"].strip()),
    )
    return [
        dict(zip(("op", "direction", "kernel", "kind", "note"), key, strict=True))
        | {
            "dtypes": ", ".join(in_order(m.dtype for m in group)),
            "inputs": some(list(dict.fromkeys(one.label for one in sorted(map(Input.of, group))))),
        }
        for key, group in groups.items()
    ]


def _kind(m: Measurement) -> str:
    return "not timed" if m.data["status"] == "passed" else spaced(m.data["status"])


def _slow_starts(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Kernels whose first call took long beside later ones, each where it took longest, slowest first."""
    started = (m for m in measurements if passes(m) and m.data["compile_seconds"] is not None)
    rows = []
    for (op, direction, kernel), group in by(
        started, lambda m: (m.op, m.data["direction"], m.kernel)
    ).items():
        slow = [m for m in group if _starts_slowly(m)]
        if slow:
            worst = max(slow, key=lambda m: float(m.data["compile_seconds"]))
            start = worst.data["compile_seconds"]
            row = {
                "op": op,
                "direction": direction,
                "kernel": kernel,
                "seconds": seconds(start),
                "calls": f"{start / worst.data['median_seconds']:,.0f}",
                "at": f"{worst.dtype} {Input.of(worst).label}",
                "slow": f"{len(slow)} of {len(group)}",
            }
            rows.append((start, row))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def _starts_slowly(m: Measurement) -> bool:
    start, call = m.data["compile_seconds"], m.data["median_seconds"]
    return bool(start >= SLOW_START_SECONDS or (start >= SHORTEST_START and start > MANY_CALLS * call))


# A section.


def _shown_section(
    section: Section, standing: Mapping[Subject, Standing], *, charted: bool
) -> dict[str, Any]:
    ranked, advice = section.ranked[section.last], section.advice[section.last]
    unsafe = {m.kernel for m in ranked if standing.get(Subject.of(m), UNKNOWN).against}
    known = [m for m in ranked if not math.isnan(error(m)) and m.kernel not in unsafe]
    front = [known[i] for i in pareto_front([(error(m), per_second(m, work(m.op))) for m in known])]
    place = {m.kernel: number for number, m in enumerate(ranked)}
    kernels = by(section.at.values(), lambda m: m.kernel)
    inputs = section.inputs[-INPUTS:]
    picture: list[Any] = []
    if charted and ranked:
        named = [m for m in (advice.use, advice.torch) if m is not None] + front
        named += [m for m, _ in advice.unsafe[:2]]
        timed = [m for m in section.at.values() if passes(m)]
        wanted = list(dict.fromkeys(m.kernel for m in named))
        picture = charts(section.title, timed, ranked, front, named=wanted, safe=place.keys() - unsafe)
    return {
        "title": section.title,
        "how": _how(section),
        "inputs": [one.label for one in inputs],
        "left_out": len(section.inputs) - len(inputs),
        "rows": [
            {
                "kernel": kernel,
                "standing": _standing_text(kernels[kernel][0], standing),
                "cells": [_cell(section, kernel, one) for one in inputs],
                "exponent": _exponent(section.scalings.get(kernel)),
            }
            for kernel in sorted(kernels, key=lambda kernel: (place.get(kernel, len(place)), kernel))
        ],
        "scaled": bool(section.scalings),
        "use": _advised(advice, standing) | {"input": section.last.label},
        "front": [m.kernel for m in front],
        "front_named": some([m.kernel for m in front], FRONT),
        "remarks": remarks(section.at.values()),
        "charts": picture,
        "charted": charted,
    }


def _standing_text(m: Measurement, standing: Mapping[Subject, Standing]) -> str:
    found = standing.get(Subject.of(m), UNKNOWN)
    if found.against:
        return f"not safe: {found.against}"
    return f"declares {found.declares}" if found.declares else ""


def _exponent(found: Scaling | None) -> dict[str, str] | None:
    if found is None:
        return None
    exponent = found.exponent
    return {
        "value": f"{exponent.value:.2f}",
        "interval": f"{exponent.low:.2f} … {exponent.high:.2f}",
        "last": f"last two {found.last:.2f}",
    }


def _cell(section: Section, kernel: str, one: Input) -> dict[str, Any]:
    """What stands at a kernel and an input: times, or why there are none."""
    m, use = section.at.get((kernel, one)), section.advice[one].use
    if m is None:
        return {"kind": "absent"}
    data = m.data
    if not passes(m):
        return {"kind": _kind(m), "reason": first_line(data["note"])}
    return {
        "kind": "timed",
        "best": use is not None and use.kernel == kernel,
        "latency": seconds(data["median_seconds"]),
        "interval": f"{seconds(data['low_seconds'])} … {seconds(data['high_seconds'])}",
        "bandwidth": f"{per_second(m, 'bytes') / 1e9:.3g} GB/s",
        "of_copy": _of(per_second(m, "bytes"), data["copy_bytes_per_second"], "copy"),
        "compute": f"{per_second(m, 'operations') / 1e12:.3g} TFLOP/s",
        "of_matmul": _of(per_second(m, "operations"), data["matmul_operations_per_second"], "matmul"),
        "peak": "" if data["peak_bytes"] is None else f"{data['peak_bytes'] / 1e6:.3g} MB",
        "error": "?" if data["ratio"] is None else f"{error(m):.2g} × bound",
    }


def _of(rate: float, most: float | None, what: str) -> str:
    if not most:
        return ""
    percent = 100 * rate / most
    return f"{percent:.0f} % of {what}" if percent >= 10 else f"{percent:.2g} % of {what}"


def _how(section: Section) -> str:
    setting, group = section.setting, list(section.at.values())
    clocks = ", ".join(sorted({m.data["clock"] for m in group}))
    words = [f"Clock {clocks}", f"{setting.cache} cache", count(setting.threads, "thread")]
    copies, products = roof(group, "copy_bytes_per_second"), roof(group, "matmul_operations_per_second")
    words += [f"this machine copies {copies / 1e9:.3g} GB/s"] if copies else []
    words += [f"multiplies matrices of {setting.dtype} at {products / 1e12:.3g} TFLOP/s"] if products else []
    return ", ".join(words)
