"""Thresholds on a grid of numbers: the first that fails, and the closed formulas that explain it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.studies.probing import UnmeasuredError

Formulas = dict[str, float | None]
"""A threshold by the name of its idea; None: never."""

Fails = Callable[[Array], NDArray[np.bool_]]
"""Which of a batch of candidates fail."""

GRID_BITS = 20
SMALLEST = -6
ENTRIES_PER_CALL = 2**18


def threshold(
    format: Format, n: int, fails: Fails | None, formulas: Formulas, *, candidates: int, width: int = 1
) -> dict[str, Any]:
    """The first number of the format's grid that fails for rows of n entries, and what explains it.

    fails: None where a row of zeros fails already. candidates: in one call at most; width: the
    numbers that an entry takes in it. data: n, measured, spacing, formulas, agrees_with; or n and
    the reason why there is none.
    """
    grid = Grid(format)
    try:
        most = max(1, min(candidates, ENTRIES_PER_CALL // (n * width)))
        measured = 0.0 if fails is None else grid.first(fails, most)
    except UnmeasuredError as error:
        return {"n": n, "reason": str(error)}
    spacing = grid.spacing(measured) if measured else 0.0
    return {
        "n": n,
        "measured": measured,
        "spacing": spacing,
        "formulas": formulas,
        "agrees_with": explanations(formulas, measured, spacing),
    }


def explanations(formulas: Formulas, measured: float | None, spacing: float) -> list[str]:
    """The names of the formulas that explain a measured threshold. measured = None: never."""
    if measured is None:
        return [name for name, value in formulas.items() if value is None]
    values = {name: value for name, value in formulas.items() if value is not None}
    if measured == 0:
        return [name for name, value in values.items() if value <= 0]
    between = [name for name, value in values.items() if measured - spacing < value <= measured]
    return between or [name for name, value in values.items() if abs(value - measured) <= spacing]


@dataclass(frozen=True, slots=True)
class Grid:
    """The positive numbers of a format with at most GRID_BITS significand bits, from 2^SMALLEST on,
    in order.
    """

    format: Format

    @property
    def bits(self) -> int:
        return min(self.format.precision, GRID_BITS)

    @property
    def size(self) -> int:
        return int((self.format.emax - SMALLEST + 1) * 2 ** (self.bits - 1))

    def numbers(self, index: NDArray[np.int64]) -> Array:
        """The numbers at these places of the grid."""
        binade, place = np.divmod(index, 2 ** (self.bits - 1))
        return np.asarray(np.ldexp(2.0 ** (self.bits - 1) + place, binade + SMALLEST - self.bits + 1))

    def spacing(self, value: float) -> float:
        """The distance to the number next below, down to 0 for the smallest."""
        place = math.ldexp(1.0, math.frexp(value)[1] - self.bits)
        if value == 2.0**SMALLEST:
            return value
        return place / 2 if math.frexp(value)[0] == 0.5 else place

    def first(self, fails: Fails, candidates: int) -> float | None:
        """The first number that fails, None where the last of the grid does not; `fails` takes a
        batch of candidates.
        """
        works, broken = -1, self.size  # two places just outside: what lies between is to be found out
        while broken - works > 1:
            steps = (broken - works) * np.arange(1, candidates + 1, dtype=np.int64) // (candidates + 1)
            # Always as many candidates: some libraries compile for every new shape.
            index = works + np.maximum(steps, 1)
            failing = np.flatnonzero(fails(self.numbers(index)))
            first = int(failing[0]) if len(failing) else candidates
            if first > 0:
                works = int(index[first - 1])
            if first < candidates:
                broken = int(index[first])
        return float(self.numbers(np.array([broken]))[0]) if broken < self.size else None
