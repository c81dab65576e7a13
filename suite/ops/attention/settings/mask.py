"""mask: boolean (True = visible), or additive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.inputs import attention_tensors
from suite.ops.arithmetic import Arithmetic
from suite.ops.attention.settings.base import Mask, Place, TensorSetting, Term, sizes_of
from suite.settings import Shapes, Wording

LOWEST = (
    "unjudged by contract: a row masked by the format's lowest number has another result in exact arithmetic"
    " than in any kernel"
)


@dataclass(frozen=True, eq=False)
class Added(Term):
    """s_j += mask_j."""

    bias: Array
    """[rows, S]."""

    def apply(self, arithmetic: Arithmetic, scores: Any) -> Any:
        return scores + arithmetic.lift(self.bias)

    def added(self) -> Array:
        return np.where(np.isfinite(self.bias), np.abs(self.bias), 0.0)


class MaskSetting(TensorSetting):
    """A mask that broadcasts to [B, H, L, S]. -inf of an additive one hides a key."""

    name = "mask"
    levels = (None, *attention_tensors.MASKS)
    wordings = (
        Wording("boolean", "bool", "boolean mask", "with a boolean mask"),
        Wording("additive", "add", "additive mask", "with an additive mask"),
    )
    hides_keys = True
    stage = 4
    differentiable = True
    minus_infinity_hides = True

    def wording(self, level: Any) -> Wording | None:
        if level is None:
            return None
        return self.wordings[0 if level in attention_tensors.BOOLEAN_MASKS else 1]

    def unjudged(self, level: Any) -> str:
        return LOWEST if level == "lowest" else ""

    def expected_shape(self, sizes: tuple[int, int, int, int]) -> tuple[int, ...]:
        return sizes

    def check_shape(self, shape: tuple[int, ...], shapes: Shapes) -> None:
        full = sizes_of(shapes)
        if len(shape) > 4 or any(m not in (1, f) for m, f in zip(shape[::-1], full[::-1], strict=False)):
            raise ValueError(f"mask has shape {list(shape)}, which does not broadcast to {list(full)}")

    def check_tensor(self, value: NDArray[Any], shapes: Shapes) -> None:
        if value.dtype.kind not in "bf":
            raise ValueError(
                f"mask has dtype {value.dtype}; expected bool (True = visible) or floating, which is added"
            )

    def entry(self, value: NDArray[Any], batch: int) -> NDArray[Any]:
        return value[batch : batch + 1] if value.ndim == 4 and value.shape[0] > 1 else value

    def visible(self, value: Any, place: Place) -> Mask | None:
        given = place.of(value)
        return given if given.dtype == np.bool_ else np.asarray(given != -np.inf)

    def equivalent(self, value: Any, place: Place) -> Mask | None:
        return self.visible(value, place) if value.dtype == np.bool_ else None

    def term(self, value: Any, place: Place) -> Term | None:
        return None if value.dtype == np.bool_ else Added(place.of(value))

    def neutral(self, shapes: Shapes) -> Mapping[str, Any]:
        _, _, length, keys = sizes_of(shapes)
        return {
            "a mask that shows everything": np.ones((length, keys), dtype=bool),
            "a mask that adds nothing": np.zeros((1, 1, length, keys)),
        }
