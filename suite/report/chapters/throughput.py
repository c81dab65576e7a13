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
from suite.report.tables import Cell, Column, Table, by, numbers
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
from suite.report.words import (
    NAMED,
    count,
    first_line,
    in_order,
    seconds,
    some,
    spaced,
    times,
    with_direction,
)
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
"""A first call is slow if it takes so much longer than a later one, ..."""
MANY_CALLS = 10
"""... or longer by so many later calls ..."""
SHORTEST_START = 1e-3
"""... and no less than so many seconds."""

CHIPS = {"known failure": "known", "not timed": "absent"}

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
    """advised: for each op and direction which kernel to use; untested: those of which only timed
    inputs were judged; untimed, untimed_named: what has no times; starts: slow first calls; sections:
    all numbers; sections_left_out, charted, drawn: how much is left out.
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
    named = dict.fromkeys(f"{row[0]} ({row[3].text})" for row in untimed.rows)
    return {
        "advised": advised,
        "untested": some([f"{one['op']} {one['direction']}" for one in advised if one["families"] == 1]),
        "untimed": untimed.cut(LISTED),
        "untimed_named": some(list(named)),
        "starts": _slow_starts(every).cut(LISTED),
        "sections": [
            _shown_section(section, standing, charted=number in drawn)
            for number, section in enumerate(sections)
        ],
        "sections_left_out": left_out,
        "charted": len(drawn),
        "drawn": DRAWN,
    }


# Which kernel to use.


def _answer(
    op: str, direction: str, group: Sequence[Section], standing: Mapping[Subject, Standing]
) -> dict[str, Any]:
    """table: settings down, inputs across."""
    inputs = sorted({one.column for section in group for one in section.inputs})
    shown = inputs[-ANSWERED:]
    rows = []
    for section in group:
        of_input = {one.column: _advised(section.advice[one], standing) for one in section.inputs}
        rows.append([section.label, *(of_input.get(column, "–") for column in shown)])
    advised = [advice for section in group for advice in section.advice.values()]
    used = [standing[Subject.of(advice.use)] for advice in advised if advice.use is not None]
    against = by(
        (pair for advice in advised for pair in advice.unsafe[:NAMED]),
        lambda pair: (pair[0].kernel, pair[1]),
    )
    exponents = [found.exponent.value for section in group for found in section.scalings.values()]
    columns = [Column("", "row"), *(Column(label) for _, _, label in shown)]
    return {
        "op": op,
        "direction": direction,
        "table": Table(columns=columns, rows=rows, kind="answers"),
        "inputs": len(inputs),
        "left_out": len(inputs) - len(shown),
        "evaluations": min((one.evaluations for one in used), default=0),
        "families": len(frozenset[str]().union(*(one.families for one in used))),
        "against": [
            (kernel, reason, ", ".join(in_order(m.dtype for m, _ in pairs)))
            for (kernel, reason), pairs in sorted(against.items(), key=lambda item: item[0])[:LISTED]
        ],
        "exponents": exponents and (f"{min(exponents):.2f}", f"{max(exponents):.2f}", len(exponents)),
        "unit": "row" if get_op(op).of_rows else "head",
    }


def _advised(advice: Advice, standing: Mapping[Subject, Standing]) -> Cell:
    """What to use at one input, and what speaks for it."""
    use = advice.use
    unsafe = some([f"{m.kernel}{_faster(m, use)}" for m, _ in advice.unsafe])
    not_safe = [f"not safe: {unsafe}"] if unsafe else []
    if use is None:
        return Cell("none is safe", small=not_safe)
    declares = standing[Subject.of(use)].declares
    lines = [f"declares {declares}"] if declares else []
    lines += [seconds(use.data["median_seconds"])]
    lines += [_against_torch(use, advice.torch)] if advice.torch is not None else []
    lines += [f"{times(use.data['ratio'])} × bound"]
    lines += [f"as fast: {some([m.kernel for m in advice.as_fast])}"] if advice.as_fast else []
    return Cell(use.kernel, bold=True, small=lines + not_safe)


def _faster(m: Measurement, than: Measurement | None) -> str:
    return "" if than is None else f" {than.data['median_seconds'] / m.data['median_seconds']:.3g} ×"


def _against_torch(use: Measurement, torch: Measurement) -> str:
    if torch is use:
        return "torch’s own"
    ratio, low, high = times_as_fast(use, torch)
    return f"{ratio:.3g} × {torch.kernel} ({low:.3g} … {high:.3g})"


# What has no times; first calls that are slow.


def _kernel(m: Measurement) -> tuple[str, str, str]:
    return m.op, m.data["direction"], m.kernel


def _kind(m: Measurement) -> str:
    return "not timed" if m.data["status"] == "passed" else spaced(m.data["status"])


def _untimed(measurements: Sequence[Measurement]) -> Table:
    """Each kernel without times and why; what has the same reason stands together."""
    columns = map(Column, ("formats", "inputs", "what happened"))
    groups = by(
        (m for m in measurements if not passes(m)), lambda m: (*_kernel(m), _kind(m), m.data["note"].strip())
    )
    rows = []
    for (op, direction, kernel, kind, note), group in groups.items():
        name, formats = f"{with_direction(op, direction)} {kernel}", in_order(m.dtype for m in group)
        inputs = dict.fromkeys(one.label for one in sorted(map(Input.of, group)))
        happened = Cell(kind, chip=CHIPS.get(kind, "failed"))
        rows.append([name, ", ".join(formats), some(list(inputs)), happened, note])
    return Table(columns=(Column("kernel", "row"), *columns, Column("note", "words")), rows=rows)


def _slow_starts(measurements: Sequence[Measurement]) -> Table:
    """Kernels whose first call took long beside later ones, each where it took longest, slowest first."""
    columns = (
        Column("kernel", "row"),
        *numbers("first call", "in calls"),
        Column("at"),
        *numbers("inputs with a slow first call"),
    )
    started = by((m for m in measurements if passes(m) and m.data["compile_seconds"] is not None), _kernel)
    rows = []
    for (op, direction, kernel), group in started.items():
        slow = [m for m in group if _starts_slowly(m)]
        if slow:
            worst = max(slow, key=lambda m: float(m.data["compile_seconds"]))
            start, call = worst.data["compile_seconds"], worst.data["median_seconds"]
            name, at = f"{with_direction(op, direction)} {kernel}", f"{worst.dtype} {Input.of(worst).label}"
            cells = [name, seconds(start), f"{start / call:,.0f}", at, f"{len(slow)} of {len(group)}"]
            rows.append((start, cells))
    rows.sort(key=lambda row: -row[0])
    return Table(columns=columns, rows=[cells for _, cells in rows])


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
        "table": _numbers(section, place, standing),
        "inputs": len(section.inputs),
        "left_out": max(len(section.inputs) - INPUTS, 0),
        "use": "" if advice.use is None else advice.use.kernel,
        "at": section.last.label,
        "front": some([m.kernel for m in front], FRONT),
        "remarks": remarks(section.at.values()),
        "charts": picture,
        "scaled": bool(section.scalings),
        "charted": charted,
    }


def _numbers(section: Section, place: Mapping[str, int], standing: Mapping[Subject, Standing]) -> Table:
    """Kernels down, those that pass at the longest input first; inputs across. place: among those."""
    inputs = section.inputs[-INPUTS:]
    kernels = by(section.at.values(), lambda m: m.kernel)
    rows = []
    for kernel in sorted(kernels, key=lambda kernel: (place.get(kernel, len(place)), kernel)):
        cells = [Cell(kernel, small=_standing_lines(kernels[kernel][0], standing))]
        cells += [_cell(section, kernel, one) for one in inputs]
        rows.append(cells + ([_exponent(section.scalings.get(kernel))] if section.scalings else []))
    headings = [*(one.label for one in inputs), *(["exponent"] if section.scalings else [])]
    return Table(columns=[Column("kernel", "row"), *numbers(*headings)], rows=rows)


def _standing_lines(m: Measurement, standing: Mapping[Subject, Standing]) -> list[str]:
    found = standing.get(Subject.of(m), UNKNOWN)
    if found.against:
        return [f"not safe: {found.against}"]
    return [f"declares {found.declares}"] if found.declares else []


def _exponent(found: Scaling | None) -> Cell:
    if found is None:
        return Cell("")
    value = found.exponent
    interval = f"{value.low:.2f} … {value.high:.2f}"
    return Cell(f"{value.value:.2f}", small=[interval, f"last two {found.last:.2f}"])


def _cell(section: Section, kernel: str, one: Input) -> Cell:
    """What stands at a kernel and an input: times, or why there are none."""
    m, use = section.at.get((kernel, one)), section.advice[one].use
    if m is None:
        return Cell("–")
    data, reason = m.data, first_line(m.data["note"])
    if not passes(m) and _kind(m) == "not timed":
        return Cell(reason or "not timed", kind="reason")
    if not passes(m):
        return Cell(_kind(m), chip=CHIPS.get(_kind(m), "failed"), small=[reason], kind="reason")
    traffic, operations = per_second(m, "bytes"), per_second(m, "operations")
    peak = "" if data["peak_bytes"] is None else f"{data['peak_bytes'] / 1e6:.3g} MB"
    lines = (
        (f"{seconds(data['low_seconds'])} … {seconds(data['high_seconds'])}",),
        (f"{traffic / 1e9:.3g} GB/s", _of(traffic, data["copy_bytes_per_second"], "copy")),
        (
            f"{operations / 1e12:.3g} TFLOP/s",
            _of(operations, data["matmul_operations_per_second"], "matmul"),
            peak,
        ),
        ("?" if data["ratio"] is None else f"{error(m):.2g} × bound",),
    )
    best = use is not None and use.kernel == kernel
    return Cell(
        seconds(data["median_seconds"]), bold=best, small=[", ".join(filter(None, line)) for line in lines]
    )


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
