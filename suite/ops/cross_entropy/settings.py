"""The settings of cross_entropy."""

from __future__ import annotations

from typing import Any

import numpy as np

from suite.settings import Setting, Shapes, Wording


class IgnoreIndex(Setting):
    """The class index of rows whose loss is 0 and that no mean counts."""

    name = "ignore_index"
    default = -100
    levels = (-100, 2)
    wordings = (Wording("ignore_index", "ign", "other ignored index", "with an ignore_index of its own"),)

    def check(self, value: Any, shapes: Shapes) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"ignore_index={value!r} must be an integer")
        return int(value)


class LabelSmoothing(Setting):
    """The share of a target that is spread evenly over all classes."""

    name = "label_smoothing"
    default = 0.0
    levels = (0.0, 0.1, 1.0)
    wordings = (Wording("label_smoothing", "smth", "label smoothing", "with label smoothing"),)

    def check(self, value: Any, shapes: Shapes) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"label_smoothing={value!r} must be a number from 0 to 1")
        return float(value)


class Reduction(Setting):
    """What becomes of the losses of the rows."""

    name = "reduction"
    default = "mean"
    levels = ("mean", "sum", "none")
    wordings = (Wording("reduction", "red", "other reduction", "with another reduction than the mean"),)

    def check(self, value: Any, shapes: Shapes) -> str:
        if value not in self.levels:
            raise ValueError(f"reduction={value!r} is not one of {', '.join(self.levels)}")
        return str(value)
