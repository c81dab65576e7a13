"""What the page's chapters need of a measurement: those of another shape are left out, and the page
says which.

The shapes are those that suite/measure/exponential.py and thresholds.py document, as far as the
page reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from suite.formats import DTYPES
from suite.ops import measured_by
from suite.records import schema
from suite.records.record import Measurement
from suite.report import depth, throughput, vanishing
from suite.report.thresholds import LARGEST_DRAWN

TEXT = {"type": "string"}
NUMBER = {"type": "number", "minimum": -sys.float_info.max, "maximum": sys.float_info.max}
COUNT = {"type": "integer", "minimum": 1, "maximum": 2**53}
KINDS = {
    "flushes": ("gradual", "flushed", "early", "between", "other"),
    "saturates": ("in_format", "rounded", "other"),
}


def _or_null(*kinds: Any) -> dict[str, Any]:
    return {"anyOf": [*kinds, {"type": "null"}]}


def _list(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _object(*optional: str, **properties: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _finding(value: Any) -> dict[str, Any]:
    return _object(value=_or_null(*value.get("anyOf", [value])), text=TEXT)


REAL, FLAG = dict(schema.REAL), {"type": "boolean"}
FINDINGS = {
    "output": _object(max_ulp=_or_null(*REAL["anyOf"]), correctly_rounded=NUMBER, half_ulp=_or_null(FLAG)),
    "exp_ulp": REAL,
    "grows_with_gap": FLAG,
    "base": TEXT,
    "argument_format": TEXT,
    "flushes": _object(zero_at=_or_null(NUMBER), kind={"type": "string", "enum": list(KINDS["flushes"])}),
    "saturates": _object(
        at=_or_null(NUMBER), kind={"type": "string", "enum": list(KINDS["saturates"])}, format=_or_null(TEXT)
    ),
    "monotone": {"type": "integer", "minimum": 0, "maximum": 2**53},
    "shift_invariant": FLAG,
    "accumulate": TEXT,
    "fits": TEXT,
}
DRAWN = {"type": "number", "minimum": 0, "maximum": LARGEST_DRAWN}
CURVE = _object(gap=_list(DRAWN), exp_ulp=_list({"anyOf": [DRAWN, REAL["anyOf"][1]]}), allowed_u=_list(DRAWN))
REASON = _object(reason=TEXT)
EXPONENTIAL = _object(
    "findings",
    "curve",
    "reason",
    reason=TEXT,
    findings=_object(*FINDINGS, **{name: _finding(value) for name, value in FINDINGS.items()}),
    curve=_or_null(CURVE),
)
EXPLAINED = {
    "formulas": {"type": "object", "additionalProperties": _or_null(NUMBER)},
    "agrees_with": _list(TEXT),
}
ENTRY = {"anyOf": [_object(n=COUNT, reason=TEXT), _object(n=COUNT, measured=_or_null(NUMBER), **EXPLAINED)]}
SUM = _object(n=COUNT, measured=_or_null(COUNT), first_wrong=_or_null(COUNT), agrees_with=_list(TEXT))
MEASURED = _object(
    note=TEXT,
    stagnation={"anyOf": [_object(n=COUNT, reason=TEXT), SUM]},
    **dict.fromkeys(("overflow", "underflow", "saturation"), _list(ENTRY)),
)
THRESHOLDS = {"anyOf": [REASON, MEASURED]}
LIBM = _object(exp_ulp=NUMBER, log_ulp=NUMBER, points=COUNT, against=TEXT)


def sound(measurements: Sequence[Measurement]) -> tuple[list[Measurement], list[str]]:
    """The measurements that a chapter can show, and a sentence for each chapter about those that
    are left out.
    """
    checks: dict[str, Callable[[Measurement], bool]] = {
        "exponential": lambda m: _is_sound(m, EXPONENTIAL),
        "thresholds": lambda m: _is_sound(m, THRESHOLDS),
        "vanishing": vanishing.is_sound,
        "depth": depth.is_sound,
        "throughput": throughput.is_sound,
    }
    kept, left_out = [], dict.fromkeys(checks, 0)
    for m in measurements:
        if m.kind not in checks:
            continue
        if checks[m.kind](m):
            kept.append(m)
        else:
            left_out[m.kind] += 1
    return kept, [
        f"{count:,} measurements of kind {kind} are of no known shape."
        for kind, count in left_out.items()
        if count
    ]


def _is_sound(m: Measurement, shape: schema.Schema) -> bool:
    return (
        m.op in measured_by(m.kind)
        and m.dtype in DTYPES
        and schema.conforms(m.data, shape)
        and _consistent(m.data)
    )


def _consistent(data: dict[str, Any]) -> bool:
    """What a schema cannot say: the lists of a curve are as long as each other, and its gaps grow
    from above 0.
    """
    curve = data.get("curve")
    if not curve:
        return True
    gap = curve["gap"]
    growing = all(before < after for before, after in pairwise([0.0, *gap]))
    return growing and 0 < len(gap) == len(curve["exp_ulp"]) == len(curve["allowed_u"])
