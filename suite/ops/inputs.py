"""Where the inputs of an op's cases come from: its families, their shapes, and what else it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite import inputs
from suite.formats import Array, Format
from suite.settings import Level, Shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The inputs that a case asks for."""

    family: str
    shape: tuple[int, ...]
    """Of the first tensor."""
    settings: Mapping[str, Level]
    """The level of every setting of the op, those of its options in canonical form."""
    seed: int


class OpInputs(ABC):
    """The inputs of one op."""

    owner: str
    """Whose families these are, as a list of them says it."""

    @abstractmethod
    def families(self) -> Mapping[str, str]:
        """Every family and what it is hard for."""

    @abstractmethod
    def fixed_shape(self, family: str) -> tuple[int, ...] | None:
        """The shape of a family of captured data, None for one that has any. Raises ValueError
        with the valid names.
        """

    @abstractmethod
    def shapes(self, wanted: Wanted) -> Shapes:
        """The shapes of the inputs, by name. Raises ValueError for sizes that there cannot be."""

    @abstractmethod
    def build(self, wanted: Wanted, format: Format) -> dict[str, Any]:
        """The inputs by name, the same bits on every machine: float64, every finite value a number
        of `format`, or integers.
        """

    def levels_of(self, given: Mapping[str, NDArray[Any]]) -> dict[str, Level]:
        """What a case must name to have inputs like these."""
        return {}


class RowInputs(OpInputs):
    """Logits, as rows along one dim."""

    owner = "logits"

    def __init__(self, name: str) -> None:
        self.name = name
        """Of the logits."""

    def axis(self, wanted: Wanted) -> int:
        """The dim of a row, counted from 0."""
        return int(wanted.settings["dim"]) % len(wanted.shape)

    def families(self) -> Mapping[str, str]:
        return {name: family.summary for name, family in inputs.all_families().items()}

    def fixed_shape(self, family: str) -> tuple[int, ...] | None:
        return inputs.get_family(family).fixed_shape

    def shapes(self, wanted: Wanted) -> Shapes:
        return {self.name: wanted.shape}

    def build(self, wanted: Wanted, format: Format) -> dict[str, Any]:
        return {self.name: self.unrows(self.rows(wanted, format), wanted)}

    def rows(self, wanted: Wanted, format: Format) -> Array:
        """The logits as [rows, n]."""
        axis, shape = self.axis(wanted), wanted.shape
        others, n = shape[:axis] + shape[axis + 1 :], shape[axis]
        rows = inputs.build(wanted.family, int(np.prod(others)), n, format, wanted.seed)
        if wanted.settings["layout"] != "expanded":
            return rows
        # its slices along the first dim are one, so their rows must be equal
        if axis == 0:
            return np.tile(rows[:, :1], (1, n))
        return np.tile(rows[: len(rows) // others[0]], (others[0], 1))

    def unrows(self, rows: Array, wanted: Wanted) -> Array:
        """Rows [rows, n] in the shape of the logits."""
        axis, shape = self.axis(wanted), wanted.shape
        others = shape[:axis] + shape[axis + 1 :]
        return np.ascontiguousarray(np.moveaxis(rows.reshape(*others, rows.shape[1]), -1, axis))
