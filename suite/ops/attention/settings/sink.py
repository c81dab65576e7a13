"""sink: a logit without a value, which takes a share of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from suite.inputs import attention_tensors
from suite.ops.attention.settings.base import TensorSetting, sizes_of
from suite.settings import Shapes, Wording


class Sink(TensorSetting):
    """[H] (Xiao et al. 2023, gpt-oss). -inf leaves it out. Its column of the scores is in definition.py."""

    name = "sink"
    levels = (None, *attention_tensors.SINKS)
    wordings = (Wording("sink", "sink", "sink", "with a sink"),)
    differentiable = True
    minus_infinity_hides = True

    def expected_shape(self, sizes: tuple[int, int, int, int]) -> tuple[int, ...]:
        return sizes[1:2]

    def neutral(self, shapes: Shapes) -> Mapping[str, Any]:
        return {"a sink at -inf": np.full(sizes_of(shapes)[1], -np.inf)}
