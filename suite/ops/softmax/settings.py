"""The settings of softmax beside dim."""

from __future__ import annotations

from typing import Any

from suite.settings import Setting, Shapes, Wording, is_number


class Temperature(Setting):
    """T: softmax of x / T."""

    name = "temperature"
    default = 1.0
    levels = (1.0, 0.7, 100.0, 0.001)
    wordings = (Wording("temperature", "temp", "temperature", "with a temperature"),)

    def check(self, value: Any, shapes: Shapes) -> float:
        if not is_number(value) or not 0 < value < float("inf"):
            raise ValueError(f"temperature={value!r} must be a finite number above 0")
        return float(value)


class OffByOne(Setting):
    """Whether the denominator has one more term, exp(0)."""

    name = "off_by_one"
    default = False
    levels = (False, True)
    wordings = (Wording("off_by_one", "+1", "off by one", "with one more term in the denominator"),)

    def check(self, value: Any, shapes: Shapes) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"off_by_one={value!r} must be True or False")
        return value
