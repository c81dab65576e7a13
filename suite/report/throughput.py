"""The chapter of speed beside accuracy: which kernel to use, how fast it could be, and what error it has.

Reads measurements of kind "throughput" (suite/bench.py, docs/bench.md), and the records, which say
whether a kernel that was fast is safe (advice.py). A section is what can be compared: one op,
format, direction and setting, on one machine, timed in one way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from suite.formats import DTYPES
from suite.ops import NAMES, get_op
from suite.records import schema
from suite.records.record import STATUSES, Measurement, Record
from suite.report.advice import UNKNOWN, Advice, Standing, Subject, advise, standings, times_as_fast
from suite.report.compare_page import seconds
from suite.report.scalings import of_length
from suite.report.summaries import first_line, times
from suite.report.throughput_charts import DRAWN, charts, error, per_second, roof, work
from suite.timing.statistics import MOST, Scaling

NAMED = 4
SECTIONS, CHARTED = 300, 12
"""Sections of a page; those of them whose charts are drawn."""
ANSWERED, INPUTS, LISTED = 8, 16, 100
"""Inputs that the answers show of an op, and the table of a section; rows of a list. The longest,
the slowest.
"""
SLOW_START_SECONDS, MANY_CALLS, SHORTEST_START = 0.1, 10, 1e-3
"""A first call is listed that takes so long, or as long as so many later ones and no less than the
last, in seconds.
"""


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
    "compile_seconds": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1e9}, _NULL]},
    "copy_bytes_per_second": _RATE,
    "matmul_operations_per_second": _RATE,
    "note": _TEXT,
}
SHAPE: schema.Schema = {"type": "object", "properties": _PROPERTIES, "required": list(_PROPERTIES)}


def is_sound(measurement: Measurement) -> bool:
    """Whether the chapter can show it: a known op and format, the documented shape, the length that
    its shape has, an interval that its samples can have, and times only of a kernel that passes,
    with an error that is a number.
    """
    m, data = measurement, measurement.data
    if m.op not in NAMES or m.dtype not in DTYPES or not schema.conforms(data, SHAPE):
        return False
    shape = data["shape"]
    if len(shape) not in (2, 4) or data["length"] != (shape[2] if len(shape) == 4 else shape[1]):
        return False
    samples, interval = (
        data["samples_seconds"],
        [data["low_seconds"], data["median_seconds"], data["high_seconds"]],
    )
    if not samples:
        return interval == [None, None, None]
    if data["status"] != "passed" or len(samples) > MOST or None in interval:
        return False
    ordered = [min(samples), *interval, max(samples)]
    return ordered == sorted(ordered) and (data["ratio"] is None or 0 <= float(data["ratio"]) < math.inf)


# What is compared with what.


class Setting(NamedTuple):
    """What the measurements of a section share. sizes: of attention, its shape without the length.
    options: of the case.
    """

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
    options = " ".join(
        part for part in m.case.split("/")[3:-1] if not part.startswith(("upstream=", "reduction="))
    )
    return Setting(
        m.op, m.dtype, data["direction"], sizes, options, m.device, m.env_id, data["cache"], data["threads"]
    )


def _order(setting: Setting) -> tuple[Any, ...]:
    return (
        NAMES.index(setting.op),
        DTYPES.index(setting.dtype),
        setting.direction == "backward",
        *setting[3:],
    )


def _input(m: Measurement) -> Input:
    return Input(m.data["length"], tuple(m.data["shape"]), m.case)


def _passes(m: Measurement) -> bool:
    """Whether it has a time that counts: a wrong kernel gets no speed, whatever its samples say."""
    return m.data["status"] == "passed" and m.data["median_seconds"] is not None


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (error, throughput) no other beats: none has a throughput at least as
    high and an error at most as high, and one of them better.
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return sorted(front)


# The chapter.


class Section(NamedTuple):
    """What is compared. inputs: shortest first. ranked: of each the measurements that pass, fastest first."""

    setting: Setting
    title: str
    where: str
    at: dict[tuple[str, Input], Measurement]
    inputs: list[Input]
    ranked: dict[Input, list[Measurement]]
    advice: dict[Input, Advice]
    scalings: dict[str, Scaling]

    @property
    def last(self) -> Input:
        return self.inputs[-1]


def throughput_context(measurements: Iterable[Measurement], records: Iterable[Record]) -> dict[str, Any]:
    """What throughput.html shows. "throughput": a section for each setting, [] without
    measurements. "advised": for each op and direction which kernel to use; "untested": those of
    which nothing but what was timed was judged. "untimed": what has no times, and "untimed_named"
    in a line. "starts": slow first calls. "sections_left_out", "charted", "drawn", "listed": how
    many sections are left out, how many have charts, kernels of a chart, rows of a list.
    Measurements of other kinds are left out; of two of one kernel and case in one setting the later
    one is shown.
    """
    timed = [m for m in measurements if m.kind == "throughput"]
    groups: dict[Setting, dict[tuple[str, Input], Measurement]] = {}
    for m in timed:
        groups.setdefault(_setting(m), {})[m.kernel, _input(m)] = m
    several = len({setting.env_id for setting in groups}) > 1
    standing = standings(records, timed) if groups else {}
    settings = sorted(groups, key=_order)[:SECTIONS]
    sections = [_section(setting, groups[setting], standing, several=several) for setting in settings]
    charted = _charted(sections)
    advised = _answers(sections, standing)
    every = [m for section in sections for m in section.at.values()]
    untimed = _untimed(every)
    return {
        "throughput": [
            _shown_section(section, standing, charted=number in charted)
            for number, section in enumerate(sections)
        ],
        "charted": len(charted),
        "sections_left_out": len(groups) - len(sections),
        "advised": advised,
        "untested": _some([f"{one['op']} {one['direction']}" for one in advised if one["families"] == 1]),
        "untimed": untimed,
        "untimed_named": _some(
            list(dict.fromkeys(f"{one['op']} {one['kernel']} ({one['kind']})" for one in untimed))
        ),
        "starts": _slow_starts(every),
        "listed": LISTED,
        "drawn": DRAWN,
    }


def _section(
    setting: Setting,
    at: dict[tuple[str, Input], Measurement],
    standing: Mapping[Subject, Standing],
    *,
    several: bool,
) -> Section:
    """several: machines are on the page, so that each section names its own."""
    inputs = sorted({one for _, one in at})
    ranked: dict[Input, list[Measurement]] = {one: [] for one in inputs}
    for (_, one), m in at.items():
        if _passes(m):
            ranked[one].append(m)
    for group in ranked.values():
        group.sort(key=lambda m: (m.data["median_seconds"], m.kernel))
    return Section(
        setting,
        _title(setting, several),
        _where(setting, several),
        at,
        inputs,
        ranked,
        {one: advise(group, standing) for one, group in ranked.items()},
        {m.kernel: found for m, found in of_length(at.values())},
    )


def _charted(sections: Sequence[Section]) -> set[int]:
    """The numbers of the sections with charts: the first of each op and direction, then the first of all."""
    first: dict[tuple[str, str], int] = {}
    for number, section in enumerate(sections):
        first.setdefault((section.setting.op, section.setting.direction), number)
    return set([*first.values(), *(n for n in range(len(sections)) if n not in first.values())][:CHARTED])


# Which kernel to use.


def _answers(sections: Sequence[Section], standing: Mapping[Subject, Standing]) -> list[dict[str, Any]]:
    """A table for each op and direction: settings down, inputs across."""
    groups: dict[tuple[str, str], list[Section]] = {}
    for section in sections:
        groups.setdefault((section.setting.op, section.setting.direction), []).append(section)
    return [_answer(op, direction, group, standing) for (op, direction), group in groups.items()]


def _answer(
    op: str, direction: str, group: Sequence[Section], standing: Mapping[Subject, Standing]
) -> dict[str, Any]:
    inputs = sorted({_column(one) for section in group for one in section.inputs})
    shown = inputs[-ANSWERED:]
    rows = []
    for section in group:
        of_input = {_column(one): _advised(section.advice[one], standing) for one in section.inputs}
        rows.append((_label(section), [of_input.get(column) for column in shown]))
    advised = [advice for section in group for advice in section.advice.values()]
    used = [standing[Subject.of(advice.use)] for advice in advised if advice.use is not None]
    families = frozenset[str]().union(*(one.families for one in used))
    against: dict[tuple[str, str], set[str]] = {}
    for advice in advised:
        for m, reason in advice.unsafe[:NAMED]:
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
            (kernel, reason, ", ".join(dtype for dtype in DTYPES if dtype in dtypes))
            for (kernel, reason), dtypes in sorted(against.items())[:LISTED]
        ],
        "exponents": (f"{min(exponents):.2f}", f"{max(exponents):.2f}", len(exponents))
        if exponents
        else None,
        "unit": "row" if get_op(op).of_rows else "head",
    }


def _column(one: Input) -> tuple[int, tuple[int, ...], str]:
    """Where an input stands in the table of an op, and its label: of four dims the length, since
    the row says the others.
    """
    seed = _seed(one)
    label = f"length {one.length}{seed}" if len(one.shape) == 4 else _shape(one)
    return one.length, () if len(one.shape) == 4 else one.shape, label


def _label(section: Section) -> str:
    words = (section.setting.dtype, section.setting.sizes, section.setting.options, section.where)
    return ", ".join(word for word in words if word)


def _advised(advice: Advice, standing: Mapping[Subject, Standing]) -> dict[str, Any]:
    """A cell of the answer."""
    unsafe = [f"{m.kernel}{_faster(m, advice.use)}" for m, _ in advice.unsafe]
    found: dict[str, Any] = {"unsafe": _some(unsafe), "kernel": ""}
    if advice.use is None:
        return found
    use = advice.use
    return found | {
        "kernel": use.kernel,
        "declares": standing[Subject.of(use)].declares,
        "latency": seconds(use.data["median_seconds"]),
        "error": f"{times(use.data['ratio'])} × bound",
        "against_torch": _against_torch(use, advice.torch),
        "as_fast": _some([m.kernel for m in advice.as_fast]),
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
    groups: dict[tuple[str, ...], list[Measurement]] = {}
    for m in measurements:
        if not _passes(m):
            kind = m.data["status"].replace("_", " ") if m.data["status"] != "passed" else "not timed"
            groups.setdefault((m.op, m.data["direction"], m.kernel, kind, m.data["note"].strip()), []).append(
                m
            )
    return [
        {
            "op": op,
            "direction": direction,
            "kernel": kernel,
            "kind": kind,
            "note": note,
            "dtypes": ", ".join(dtype for dtype in DTYPES if any(m.dtype == dtype for m in group)),
            "inputs": _some(list(dict.fromkeys(_shape(one) for one in sorted(map(_input, group))))),
        }
        for (op, direction, kernel, kind, note), group in groups.items()
    ]


def _slow_starts(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Kernels whose first call took long beside the later ones, each where it took longest, the
    slowest first.
    """
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for m in measurements:
        if _passes(m) and m.data["compile_seconds"] is not None:
            groups.setdefault((m.op, m.data["direction"], m.kernel), []).append(m)
    rows = []
    for (op, direction, kernel), group in groups.items():
        slow = [m for m in group if _starts_slowly(m)]
        if slow:
            worst = max(slow, key=lambda m: float(m.data["compile_seconds"]))
            start, call = worst.data["compile_seconds"], worst.data["median_seconds"]
            row = {
                "op": op,
                "direction": direction,
                "kernel": kernel,
                "seconds": seconds(start),
                "calls": f"{start / call:,.0f}",
                "at": f"{worst.dtype} {_shape(_input(worst))}",
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
    unsafe = {m.kernel: reason for m in ranked if (reason := standing.get(Subject.of(m), UNKNOWN).against)}
    known = [m for m in ranked if not math.isnan(error(m)) and m.kernel not in unsafe]
    front = [known[i] for i in pareto_front([(error(m), per_second(m, work(m.op))) for m in known])]
    place = {m.kernel: number for number, m in enumerate(ranked)}
    kernels = sorted(
        {kernel for kernel, _ in section.at}, key=lambda kernel: (place.get(kernel, len(place)), kernel)
    )
    inputs = section.inputs[-INPUTS:]
    use = {one: section.advice[one].use for one in inputs}
    picture: list[Any] = []
    if charted and ranked:
        first = [m.kernel for m in (advice.use, advice.torch) if m is not None]
        named = list(
            dict.fromkeys([*first, *(m.kernel for m in front), *(m.kernel for m, _ in advice.unsafe[:2])])
        )
        timed = [m for m in section.at.values() if _passes(m)]
        picture = charts(section.title, timed, ranked, front, named=named, safe=place.keys() - unsafe.keys())
    return {
        "title": section.title,
        "how": _how(section.setting, list(section.at.values())),
        "inputs": [_shape(one) for one in inputs],
        "left_out": len(section.inputs) - len(inputs),
        "rows": [
            {
                "kernel": kernel,
                "standing": _standing_text(section, kernel, standing),
                "cells": [_cell(section.at.get((kernel, one)), best=_is(use[one], kernel)) for one in inputs],
                "exponent": _exponent(section.scalings.get(kernel)),
            }
            for kernel in kernels
        ],
        "scaled": bool(section.scalings),
        "use": _advised(advice, standing) | {"input": _shape(section.last)},
        "front": [m.kernel for m in front],
        "remarks": _remarks(section.at.values()),
        "charts": picture,
        "charted": charted,
    }


def _is(m: Measurement | None, kernel: str) -> bool:
    return m is not None and m.kernel == kernel


def _standing_text(section: Section, kernel: str, standing: Mapping[Subject, Standing]) -> str:
    subject = Subject.of(next(m for (name, _), m in section.at.items() if name == kernel))
    found = standing.get(subject, UNKNOWN)
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


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _error_text(m: Measurement) -> str:
    return "?" if m.data["ratio"] is None else f"{error(m):.2g} × bound"


def _cell(m: Measurement | None, *, best: bool) -> dict[str, Any]:
    """What stands at a kernel and an input: times, or why there are none."""
    if m is None:
        return {"kind": "absent"}
    data = m.data
    if not _passes(m):
        wrong = data["status"] != "passed"
        return {
            "kind": data["status"].replace("_", " ") if wrong else "not timed",
            "reason": first_line(data["note"]),
        }
    return {
        "kind": "timed",
        "best": best,
        "latency": seconds(data["median_seconds"]),
        "interval": f"{seconds(data['low_seconds'])} … {seconds(data['high_seconds'])}",
        "bandwidth": f"{per_second(m, 'bytes') / 1e9:.3g} GB/s",
        "of_copy": _share(per_second(m, "bytes"), data["copy_bytes_per_second"], "copy"),
        "compute": f"{per_second(m, 'operations') / 1e12:.3g} TFLOP/s",
        "of_matmul": _share(per_second(m, "operations"), data["matmul_operations_per_second"], "matmul"),
        "peak": "" if data["peak_bytes"] is None else f"{data['peak_bytes'] / 1e6:.3g} MB",
        "error": _error_text(m),
    }


def _share(rate: float, most: float | None, of: str) -> str:
    percent = 100 * rate / most if most else 0.0
    return (f"{percent:.0f} % of {of}" if percent >= 10 else f"{percent:.2g} % of {of}") if most else ""


def _title(setting: Setting, several: bool) -> str:
    words = (
        setting.op,
        setting.dtype,
        setting.direction,
        setting.sizes,
        setting.options,
        _where(setting, several),
    )
    return ", ".join(word for word in words if word)


def _where(setting: Setting, several: bool) -> str:
    """The device, and the environment where there is more than one; the threads and the cache,
    where they are not the usual.
    """
    words = [setting.device] if setting.device != "cpu" else []
    words += [f"environment {setting.env_id or 'unknown'}"] if several else []
    words += [f"{setting.threads} threads"] if setting.threads > 1 else []
    words += ["cache flushed"] if setting.cache == "flushed" and setting.device == "cpu" else []
    return ", ".join(words)


def _how(setting: Setting, group: Sequence[Measurement]) -> str:
    clocks = ", ".join(sorted({m.data["clock"] for m in group}))
    threads = f"{setting.threads} thread{'s' if setting.threads > 1 else ''}"
    words = [f"Clock {clocks}", f"{setting.cache} cache", threads]
    copies, products = (
        roof(group, name) for name in ("copy_bytes_per_second", "matmul_operations_per_second")
    )
    words += [f"this machine copies {copies / 1e9:.3g} GB/s"] if copies else []
    words += [f"multiplies matrices of {setting.dtype} at {products / 1e12:.3g} TFLOP/s"] if products else []
    return ", ".join(words)


def _shape(one: Input) -> str:
    return "x".join(map(str, one.shape)) + _seed(one)


def _seed(one: Input) -> str:
    """The seed where it is not the usual one."""
    seed = one.case.rpartition("/")[2]
    return f" {seed}" if seed not in ("s0", one.case) else ""


def _remarks(group: Iterable[Measurement]) -> list[tuple[str, str]]:
    """(remark, the kernels that it is about) of what has times."""
    found: dict[str, set[str]] = {}
    for m in group:
        if _passes(m) and m.data["note"]:
            found.setdefault(first_line(m.data["note"]), set()).add(m.kernel)
    return [(note, ", ".join(sorted(kernels))) for note, kernels in sorted(found.items())]
