"""kv_lengths: how many keys each batch entry has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.inputs import attention_tensors
from suite.ops.attention.settings.base import Place, Reach, TensorSetting, sizes_of
from suite.settings import Shapes, Wording


class KvLengths(TensorSetting):
    """[B]: batch entry b sees its first kv_lengths[b] keys."""

    name = "kv_lengths"
    levels = (None, *attention_tensors.KV_LENGTHS)
    wordings = (
        Wording("kv_lengths", "lens", "length per batch entry", "with a length for each batch entry"),
    )

    hides_keys = True
    counts_keys = True

    def expected_shape(self, sizes: tuple[int, int, int, int]) -> tuple[int, ...]:
        return sizes[:1]

    def check_tensor(self, value: NDArray[Any], shapes: Shapes) -> None:
        keys = shapes["k"][2]
        if not ((value >= 0) & (value <= keys) & (value == np.floor(value))).all():
            raise ValueError(f"kv_lengths={value!r} must be integers from 0 to {keys}, the number of keys")

    def entry(self, value: NDArray[Any], batch: int) -> NDArray[Any]:
        return value[batch : batch + 1]

    def reach(self, value: Any, place: Place) -> Reach | None:
        return None, np.asarray(value)[place.batch] - 1

    def neutral(self, shapes: Shapes) -> Mapping[str, Any]:
        batches, _, _, keys = sizes_of(shapes)
        return {"all keys counted": np.full(batches, keys)}
