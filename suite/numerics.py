"""What a kernel declares about itself: its rounding model (numerics) and its variants of special
values (semantics).

A declaration widens what the judge allows, never silently: reports show every declaration weaker
than best practice, and `--strict` ignores them all.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from suite.formats import Format, compute_format, get_format

Shift = Literal["row_max", "folded", "lse", "none"]
SHIFTS = ("row_max", "folded", "lse", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """The declared rounding model of a kernel. A format name of None means best practice: float32,
    float64 for float64.

    accumulate: format of sums and of the arithmetic around them.
    probabilities: format in which exponentials and their sum are stored between operations; "input"
    = the input's own.
    scores: format in which x - max x is stored; "input" = the input's own.
    exp_ulp, log_ulp: largest error of the kernel's exp and log in ulps of `accumulate`.
    shift: what is subtracted before exp: "row_max"; "folded" = exponent form fma(x, c, -m c) with
    more than one max;
        "lse" = exp(x - lse), whose error grows with |lse|; "none" = exp(x).
    """

    accumulate: str | None = None
    probabilities: str | None = None
    scores: str | None = None
    exp_ulp: float = 3.0
    log_ulp: float = 4.0
    shift: Shift = "row_max"

    def __post_init__(self) -> None:
        for field in ("accumulate", "probabilities", "scores"):
            name = getattr(self, field)
            if name is not None and name != "input":
                get_format(name)
        if self.shift not in SHIFTS:
            raise ValueError(f"shift={self.shift!r} is not one of {', '.join(SHIFTS)}")
        for field in ("exp_ulp", "log_ulp"):
            value = getattr(self, field)
            if not 0.5 <= value < 2**20:
                raise ValueError(f"{field}={value!r} must be at least 0.5 (correct rounding) and below 2^20")

    def format_of(self, field: str, target: Format) -> Format | None:
        """The declared format of `field` for tensors of format `target`; None where best practice holds."""
        name = getattr(self, field)
        if name is None:
            return None
        return target if name == "input" else get_format(name)

    def arithmetic(self, target: Format) -> Format:
        """The format in which the kernel computes on tensors of format `target`."""
        return self.format_of("accumulate", target) or compute_format(target)

    def of(self, target: Format) -> Numerics:
        """These numerics with the name of the tensors' format in place of "input"."""
        names = {
            f: target.name for f in ("accumulate", "probabilities", "scores") if getattr(self, f) == "input"
        }
        return replace(self, **names)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """The declarations that differ from best practice, or "best practice"."""
        changed = [
            f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default
        ]
        return ", ".join(changed) or "best practice"


BEST_PRACTICE = Numerics()


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """Declared variants of special values.

    empty_row: softmax of a row that is -inf everywhere: "nan" (the contract) or "zero" (safe softmax).
    """

    empty_row: Literal["nan", "zero"] = "nan"

    def __post_init__(self) -> None:
        if self.empty_row not in ("nan", "zero"):
            raise ValueError(f"empty_row={self.empty_row!r} is not one of nan, zero")


CONTRACT = Semantics()
