"""softcap: scores pass through c tanh(s / c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from suite.formats import Array
from suite.numerics import Numerics
from suite.ops.arithmetic import Arithmetic
from suite.ops.attention.settings.base import AttentionSetting, Place, Term
from suite.ops.attention.settings.scale import is_within_float64
from suite.settings import Shapes, Wording

ROUNDINGS = 12.0
"""c tanh(s / c): a division, a product, and a tanh of 4 ulp, as exp_ulp and log_ulp of best practice are."""

SIGMOID_ROUNDINGS = 2.0
"""tanh(x) as 2 sigmoid(2x) - 1, as kernels without a tanh have it: (2 + exp_ulp) u beside 1,
however small x is.
"""


@dataclass(frozen=True, eq=False)
class Capped(Term):
    """s_j = c tanh(s_j / c)."""

    cap: float
    has_slope = True

    def apply(self, arithmetic: Arithmetic, scores: Any) -> Any:
        cap = arithmetic.lift(np.array([[self.cap]]))
        return cap * arithmetic.tanh(scores / cap)

    def error(
        self, error: Array, magnitude: Array, numerics: Numerics, unit_roundoff: float
    ) -> tuple[Array, Array]:
        error = error + unit_roundoff * ROUNDINGS * np.minimum(magnitude, self.cap)
        return error + unit_roundoff * (SIGMOID_ROUNDINGS + numerics.exp_ulp) * self.cap, magnitude

    def slope(self, arithmetic: Arithmetic, scores: Any) -> Any:
        """1 - tanh^2."""
        tanh = arithmetic.tanh(scores / arithmetic.lift(np.array([[self.cap]])))
        return arithmetic.lift(np.ones((1, 1))) - tanh * tanh

    def slope_error(self, slope: Array, error: Array, numerics: Numerics, unit_roundoff: float) -> Array:
        """Twice the error of s over c, relatively, and what tanh^2 loses beside 1."""
        twice = 2 * error / self.cap
        flat = 2 * np.sqrt(np.maximum(1 - slope, 0.0)) * ROUNDINGS
        flat = flat + 2 * (SIGMOID_ROUNDINGS + numerics.exp_ulp)
        return np.asarray(np.minimum(slope * np.expm1(twice), 1.0) + unit_roundoff * (flat + 4))


class Softcap(AttentionSetting):
    """c, a number above 0 (Gemma 2, 2024)."""

    name = "softcap"
    levels = (None, 30.0, 2.0)
    wordings = (Wording("softcap", "cap", "softcap", "with a softcap"),)
    stage = 1

    def check(self, value: Any, shapes: Shapes) -> Any:
        if value is not None and not (is_within_float64(value) and value > 0):
            raise ValueError(f"softcap={value!r} must be a number above 0")
        return None if value is None else float(value)

    def term(self, value: Any, place: Place) -> Term | None:
        return Capped(value)
