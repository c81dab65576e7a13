"""scale: the factor of the products q.k."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from suite.ops.attention.settings.base import AttentionSetting
from suite.settings import Shapes, Wording, is_number

LARGEST = 1e300
"""The largest scale or softcap: twice it is still a number of float64."""


def is_within_float64(value: Any) -> bool:
    """Whether a value is a number that may be doubled."""
    return is_number(value) and bool(abs(value) <= LARGEST)


class Scale(AttentionSetting):
    """None: 1 / sqrt(E)."""

    name = "scale"
    levels = (None, 1.0, -0.5, 0.0)
    wordings = (Wording("scale", "scal", "other scale", "with a scale of its own"),)

    def check(self, value: Any, shapes: Shapes) -> Any:
        if value is not None and not is_within_float64(value):
            raise ValueError(f"scale={value!r} must be a finite number")
        return None if value is None else float(value)

    def factor(self, value: float | None, head_size: int) -> float:
        """What products are multiplied by."""
        return float(value) if value is not None else 1 / math.sqrt(head_size)

    def neutral(self, shapes: Shapes) -> Mapping[str, Any]:
        return {"the default scale given": self.factor(None, shapes["q"][3])}


SCALE = Scale()
