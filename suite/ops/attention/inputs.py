"""The inputs of attention: q, k, v of its own families, and its optional tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from suite.formats import Format
from suite.inputs import attention, attention_tensors
from suite.inputs.attention import Sizes
from suite.ops.attention.settings import TENSORS
from suite.ops.inputs import OpInputs, Wanted
from suite.settings import Level, Shapes


class AttentionInputs(OpInputs):
    """q, k, v and the tensors whose kind a case names."""

    owner = "attention"

    def families(self) -> Mapping[str, str]:
        return {name: family.summary for name, family in attention.FAMILIES.items()}

    def fixed_shape(self, family: str) -> tuple[int, ...] | None:
        sizes = attention.get_family(family).fixed
        return None if sizes is None else sizes.q

    def sizes(self, wanted: Wanted) -> Sizes:
        """All sizes. Raises ValueError for a number that is none."""
        if len(wanted.shape) != 4:
            raise ValueError(
                f"attention has q of four dims, batch, heads, length, head size; got {list(wanted.shape)}"
            )
        batch, heads, length, head_size = wanted.shape
        key_heads, keys, value_size = (
            own if wanted.settings[name] is None else wanted.settings[name]
            for name, own in (("key_heads", heads), ("keys", length), ("value_size", head_size))
        )
        return Sizes(
            batch=batch,
            heads=heads,
            length=length,
            head_size=head_size,
            key_heads=key_heads,
            keys=keys,
            value_size=value_size,
        )

    def kinds(self, wanted: Wanted) -> dict[str, str]:
        """The kinds of the optional tensors that there are, by name, in the order of the case."""
        return {name: kind for name, kind in wanted.settings.items() if name in TENSORS and kind is not None}

    def shapes(self, wanted: Wanted) -> Shapes:
        sizes = self.sizes(wanted)
        if wanted.family != "file":
            attention.check_sizes(wanted.family, sizes)
        of_call = (sizes.batch, sizes.heads, sizes.length, sizes.keys)
        further = {name: TENSORS[name].expected_shape(of_call) for name in self.kinds(wanted)}
        return {"q": sizes.q, "k": sizes.k, "v": sizes.v, **further}

    def build(self, wanted: Wanted, format: Format) -> dict[str, Any]:
        sizes = self.sizes(wanted)
        further = {
            name: attention_tensors.tensor(name, kind, sizes, format, wanted.seed)
            for name, kind in self.kinds(wanted).items()
        }
        return attention.build(wanted.family, sizes, format, wanted.seed) | further

    def levels_of(self, given: Mapping[str, NDArray[Any]]) -> dict[str, Level]:
        _, key_heads, keys, _ = given["k"].shape
        return {"keys": keys, "key_heads": key_heads, "value_size": given["v"].shape[3]}
