"""alibi_slopes: a bias that grows with the distance between query and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from suite.formats import Array
from suite.inputs import attention_tensors
from suite.ops.arithmetic import Arithmetic
from suite.ops.attention.settings.base import Place, TensorSetting, Term, sizes_of
from suite.settings import Shapes, Wording


@dataclass(frozen=True, eq=False)
class DistanceBias(Term):
    """s_j -= slope |i + o - j|."""

    slope_of_head: Array
    """[rows, 1]."""
    distance: Array
    """[rows, S]."""

    def apply(self, arithmetic: Arithmetic, scores: Any) -> Any:
        return scores - arithmetic.lift(self.slope_of_head) * arithmetic.lift(self.distance)

    def added(self) -> Array:
        return np.asarray(np.abs(self.slope_of_head) * self.distance)


class AlibiSlopes(TensorSetting):
    """[H] (Press et al. 2021)."""

    name = "alibi_slopes"
    levels = (None, *attention_tensors.SLOPES)
    wordings = (Wording("alibi_slopes", "alib", "ALiBi", "with ALiBi"),)
    stage = 3
    uses_positions = True

    def expected_shape(self, sizes: tuple[int, int, int, int]) -> tuple[int, ...]:
        return sizes[1:2]

    def term(self, value: Any, place: Place) -> Term | None:
        distance = np.abs(place.position - place.keys).astype(np.float64)
        return DistanceBias(np.asarray(value)[place.head], distance)

    def neutral(self, shapes: Shapes) -> Mapping[str, Any]:
        return {"slopes of 0": np.zeros(sizes_of(shapes)[1])}
