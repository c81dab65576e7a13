"""The oracle: the exact value of an op on given inputs, as hi + lo with a certified radius.

Tiers, cheapest first; a row moves up only where the radius is too large for a certain verdict:
    float64  numpy in double precision; its radius is the op's own bound at u = 2^-53, with an accuracy
             of exp and log
             that is measured at start-up (libm.py)
    arb      ball arithmetic of python-flint, rigorous, with as many bits as it takes
    mpmath   the definition of truth, used where python-flint is missing
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.floating_point import subnormals_kept
from suite.formats import Array, Format, float64
from suite.numerics import BEST_PRACTICE, CONTRACT, Semantics
from suite.ops import AnyOp, Op, Values
from suite.ops.op import Facts, Problem, ProblemT
from suite.ops.special import Special
from suite.oracle import cache, libm, tiers
from suite.oracle.certified import certified_tier

REFERENCE_VERSION = 2
"""Raised when a definition or a tier changes its values, so that stored references of before are
not read again.
"""


@dataclass(frozen=True, eq=False)
class Reference:
    """The exact output of an op on the rows of its input: hi + lo, within radius."""

    problem: Problem
    """The inputs in canonical form."""
    hi: Array
    """[rows, k], float64; as lo and radius, it holds where `special` is Special.FINITE."""
    lo: Array
    radius: Array
    """|exact - (hi + lo)| is at most this."""
    special: NDArray[np.int8]
    """[rows, k]: which kind of value each entry is (suite.ops.special)."""
    tier: str
    """The highest tier that was needed."""
    facts: Facts
    """The ingredients of the bound."""


class Oracle:
    """Computes references, remembers the last ones in memory and the costly ones on disk.

    folder: where costly references are kept, shared safely between processes; None keeps them in memory only.
    """

    def __init__(self, folder: Path | None = None, *, remembered: int = 16) -> None:
        self._folder = folder
        self._remembered = remembered
        self._memory: OrderedDict[str, Reference] = OrderedDict()

    def reference(
        self,
        op: AnyOp,
        inputs: Mapping[str, Array],
        options: Mapping[str, Any],
        target: Format,
        *,
        semantics: Semantics = CONTRACT,
    ) -> Reference:
        """The reference of `op` on float64 `inputs`, certain enough to judge an output of format `target`."""
        problem = op.problem(inputs, {**op.options, **options})
        key = _content_key(op, problem, target, semantics)
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        with subnormals_kept():
            reference = self._compute(op, problem, target, semantics, key)
        self._memory[key] = reference
        if len(self._memory) > self._remembered:
            self._memory.popitem(last=False)
        return reference

    def references(
        self,
        op: AnyOp,
        inputs: Mapping[str, Array],
        options: Mapping[str, Any],
        target: Format,
        *,
        semantics: Semantics = CONTRACT,
    ) -> tuple[Reference, ...]:
        """The reference of each of the op's outputs, in order, for tensors of format `target`."""
        return tuple(
            self.reference(part, inputs, options, part.output_format(target), semantics=semantics)
            for part in op.outputs({**op.options, **options})
        )

    def _compute(
        self, op: Op[ProblemT, Any], problem: ProblemT, target: Format, semantics: Semantics, key: str
    ) -> Reference:
        special = op.special(problem, semantics)
        facts = op.facts(problem)
        hi, lo, radius = (np.zeros(special.shape) for _ in range(3))
        tier = "float64"
        pending = np.flatnonzero(problem.ordinary)
        if len(pending):
            allowed = op.bound(facts, BEST_PRACTICE, target).absolute
            if target is not float64 and libm.is_accurate():
                hi[pending], radius[pending] = tiers.float64(op, problem, facts, pending)
                _audit(op, problem, hi, radius)
                pending = pending[
                    ~tiers.sufficient(hi, radius, allowed, target, special == Special.FINITE)[pending]
                ]
            if len(pending):
                stored = cache.load(self._folder, key)
                finite = special == Special.FINITE
                if (
                    stored is None
                    or not stored.serves(pending, special.shape[1])
                    or not tiers.plausible(stored, op, problem, facts, pending, allowed, target, finite)
                ):
                    stored = tiers.certified(op, problem, pending, allowed, target, finite)
                    cache.save(self._folder, key, stored)
                at = np.searchsorted(stored.rows, pending)
                hi[pending], lo[pending], radius[pending] = stored.hi[at], stored.lo[at], stored.radius[at]
                tier = stored.tier
        values = op.reduce(problem, Values(hi, lo, radius, special))
        return Reference(problem, values.hi, values.lo, values.radius, values.special, tier, facts)


def _audit(op: Op[ProblemT, Any], problem: ProblemT, hi: Array, radius: Array) -> None:
    """Compares a few rows of the float64 tier with balls. Raises ArithmeticError where an error is
    larger than its radius.
    """
    if certified_tier() != "arb":
        return
    for row in op.audited(problem, radius):
        exact, rest, own = tiers.arb(op, problem.take(np.array([row])), tiers.FIRST_BITS)
        error = np.abs((hi[row] - exact[0]) - rest[0]) - own[0]
        wrong = np.flatnonzero(error > radius[row])
        if len(wrong):
            column = wrong[0]
            raise ArithmeticError(
                f"{op.name}: the float64 reference of row {row}, column {column} is {hi[row, column]!r} "
                f"within {radius[row, column]!r}, but balls have {exact[0, column]!r}"
            )


def certified_entry(op: Op[ProblemT, Any], problem: ProblemT, row: int, column: int) -> tuple[float, float]:
    """(hi, lo) of one entry of one ordinary row to more than 20 digits, whatever tier judged it."""
    evaluate = tiers.arb if certified_tier() == "arb" else tiers.mpmath
    with subnormals_kept():
        hi, lo, _ = evaluate(op, problem.take(np.array([row])), 4 * tiers.FIRST_BITS)
    return float(hi[0, column]), float(lo[0, column])


def _content_key(op: Op[ProblemT, Any], problem: ProblemT, target: Format, semantics: Semantics) -> str:
    """A name for the reference that depends on nothing but what it is a function of."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(f"{REFERENCE_VERSION}|{op.name}|{target.name}|{semantics}|".encode())
    digest.update(problem.content())
    return digest.hexdigest()
