"""The inputs of cross_entropy: logits of any family, and targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from suite.formats import Format
from suite.inputs.draws import Draw
from suite.inputs.targets import indices, probabilities
from suite.ops.inputs import RowInputs, Wanted
from suite.settings import Level, Shapes


class CrossEntropyInputs(RowInputs):
    """Logits with a target for each row."""

    def axis(self, wanted: Wanted) -> int:
        return 0 if len(wanted.shape) == 1 else 1

    def shapes(self, wanted: Wanted) -> Shapes:
        axis, shape = self.axis(wanted), wanted.shape
        whole = wanted.settings["target"] == "probabilities"
        return {self.name: shape, "target": shape if whole else shape[:axis] + shape[axis + 1 :]}

    def build(self, wanted: Wanted, format: Format) -> dict[str, Any]:
        rows, kind = self.rows(wanted, format), wanted.settings["target"]
        draw = Draw(f"target|{kind}|{wanted.family}|{wanted.shape}|{wanted.seed}")
        logits = self.unrows(rows, wanted)
        if kind == "probabilities":
            return {self.name: logits, "target": self.unrows(probabilities(rows, format, draw), wanted)}
        ignored = wanted.settings["ignore_index"]
        target = indices(rows, ignored, draw).reshape(self.shapes(wanted)["target"])
        if kind == "ignored":
            target[...] = ignored
        return {self.name: logits, "target": target}

    def levels_of(self, given: Mapping[str, NDArray[Any]]) -> dict[str, Level]:
        return {"target": "probabilities"} if given["target"].dtype.kind == "f" else {}
