"""The inputs of merge_states: two states of its own families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.formats import Format
from suite.inputs import first_sentence, states
from suite.ops.inputs import OpInputs, Wanted
from suite.settings import Shapes


class StateInputs(OpInputs):
    """Two outputs with their log-sum-exps."""

    owner = "merge_states"

    def families(self) -> Mapping[str, str]:
        return {name: first_sentence(family) for name, family in states.FAMILIES.items()}

    def fixed_shape(self, family: str) -> tuple[int, ...] | None:
        states.get_family(family)
        return None

    def shapes(self, wanted: Wanted) -> Shapes:
        o, lse = wanted.shape, wanted.shape[:-1]
        return {"o_a": o, "lse_a": lse, "o_b": o, "lse_b": lse}

    def build(self, wanted: Wanted, format: Format) -> dict[str, Any]:
        return states.build(wanted.family, wanted.shape, format, wanted.seed)
