"""The logits of a row-wise op: their layout as rows, their facts, and the quantities that every
bound is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.numerics import Numerics

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, eq=False)
class Rows:
    """Logits as rows: the canonical form of a row-wise op's inputs."""

    x: Array
    """float64 [rows, n]."""
    temperature: float = 1.0
    """By which the logits are divided."""
    hidden: int = 0
    """How many columns at the end are logits that the op itself adds, without an entry in the output."""

    @property
    def shown(self) -> Array:
        """The logits that have an entry in the output."""
        return self.x[:, : self.x.shape[1] - self.hidden]

    @cached_property
    def ordinary(self) -> NDArray[np.bool_]:
        """[rows]: whether the largest logit is finite, so that the row has facts and a value to compute."""
        return np.asarray(np.isfinite(self.x.max(axis=1, initial=-np.inf)))

    def take(self, rows: NDArray[np.intp]) -> Self:
        """The problem of these rows alone."""
        return replace(self, x=self.x[rows])

    def facts(self) -> RowFacts:
        rows, n = self.x.shape
        x = np.where(self.ordinary[:, None], self.x, 0.0) if n else np.zeros((rows, 1))
        return RowFacts.of(x, temperature=self.temperature, hidden=self.hidden)

    def content(self) -> bytes:
        """Bytes that are equal exactly where the problem is."""
        return (
            f"{self.x.shape}|{self.temperature!r}|{self.hidden}|".encode()
            + np.ascontiguousarray(self.x).tobytes()
        )

    def describe(self, row: int, column: int | None) -> str:
        """The logit behind an entry of the output, if it has one of its own, and what is special
        about its row.
        """
        values = self.x[row]
        entry = f"x = {float(values[column])!r} in a row of " if column is not None else "a row of "
        counts = (("NaN", np.isnan(values)), ("+inf", values == np.inf), ("-inf", values == -np.inf))
        special = [f"{int(mask.sum())} {name}" for name, mask in counts if mask.any()]
        finite = values[np.isfinite(values)]
        largest = f", largest finite {float(finite.max())!r}" if finite.size else ""
        added = f", {self.hidden} of them the op's own" if self.hidden else ""
        divided = f", temperature {self.temperature!r}" if self.temperature != 1 else ""
        return f"{entry}{len(values)}{added}{largest}{', ' + ', '.join(special) if special else ''}{divided}"


@dataclass(frozen=True)
class RowFacts:
    """Facts of rows of logits x [rows, n], each with a finite largest entry: the ingredients of the bounds.

    All are float64 of shape [rows, 1], or [rows, n] where noted; -inf logits have probability 0 and
    an infinite gap. Gaps and the maximum are those of x / temperature.
    """

    x: Array
    """[rows, n]."""
    maximum: Array
    gap: Array
    """[rows, n]: D_i = max x - x_i."""
    exponential: Array
    """[rows, n]: e^-D_i."""
    total: Array
    """s = sum_j e^-D_j, between 1 and n."""
    temperature: float = field(default=1.0, kw_only=True)
    hidden: int = field(default=0, kw_only=True)

    @classmethod
    def of(cls, x: Array, *, temperature: float = 1.0, hidden: int = 0) -> RowFacts:
        """Facts of x [rows, n], float64 without NaN or +inf, at least one finite entry a row."""
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            maximum = x.max(axis=1, keepdims=True)
            gap = (maximum - x) / temperature
            exponential = np.exp(-gap)
            total = exponential.sum(axis=1, keepdims=True)
            scaled = maximum / temperature
        return cls(x, scaled, gap, exponential, total, temperature=temperature, hidden=hidden)

    def shown(self, values: Array) -> Array:
        """The columns of a [rows, n] fact that have an entry in the output."""
        return values[:, : values.shape[1] - self.hidden]

    @property
    def argument_roundings(self) -> float:
        """Roundings, in units of u times the gap, that the argument of exp meets: subtraction, the
        factor log2(e), its rounded constant; three more where a temperature takes part: itself, its
        reciprocal, the product.
        """
        return 2.25 if self.temperature == 1 else 5.25

    @cached_property
    def probability(self) -> Array:
        """[rows, n]: p_i = e^-D_i / s."""
        return np.asarray(self.exponential / self.total)

    @cached_property
    def log_total(self) -> Array:
        return np.asarray(np.log(self.total))

    @cached_property
    def log_sum_exp(self) -> Array:
        return np.asarray(self.maximum + self.log_total)

    @cached_property
    def finite_gap(self) -> Array:
        """[rows, n]: D_i, 0 at -inf; a gap beyond float64 counts as its largest number."""
        return np.asarray(np.where(self.x > -np.inf, np.minimum(self.gap, np.finfo(np.float64).max), 0.0))

    @cached_property
    def mean_gap(self) -> Array:
        """Dbar = sum_j p_j D_j, at most ln n."""
        return np.asarray(np.einsum("ij,ij->i", self.exponential, self.finite_gap)[:, None] / self.total)

    @cached_property
    def mean_magnitude(self) -> Array:
        """sum_j p_j |x_j|: the argument error of an exponential without shift."""
        finite = np.where(self.exponential > 0, np.abs(self.x / self.temperature), 0.0)
        return np.asarray(np.einsum("ij,ij->i", self.exponential, finite)[:, None] / self.total)

    @cached_property
    def top_mass(self) -> Array:
        """q = sum of the p_j with D_j = 0: exp(0) = 1 is exact in every exp."""
        return np.asarray(np.count_nonzero(self.gap == 0, axis=1)[:, None] / self.total)

    @cached_property
    def rescales(self) -> Array:
        """rho = sum_j p_j #{distinct x > x_j}: the rescales that term j can meet in any order of
        traversal.
        """
        gaps = np.sort(self.gap, axis=1)
        return np.asarray(np.einsum("ij,ij->i", np.exp(-gaps), _distinct_before(gaps))[:, None] / self.total)

    @cached_property
    def larger(self) -> Array:
        """[rows, n]: how many distinct entries are larger, the rescales that each one can meet in
        any order of traversal.
        """
        order = np.argsort(self.gap, axis=1, kind="stable")
        larger = np.empty(self.gap.shape)
        np.put_along_axis(
            larger, order, _distinct_before(np.take_along_axis(self.gap, order, axis=1)), axis=1
        )
        return larger

    @cached_property
    def visible(self) -> Array:
        """The number of entries that are not -inf."""
        return np.asarray(np.count_nonzero(self.x > -np.inf, axis=1)[:, None], dtype=np.float64)

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """[rows, n]: a stable permutation that sorts each row."""
        return np.argsort(self.x, axis=1, kind="stable")

    def summation(self, unit_roundoff: float) -> Array:
        """sigma: rounding errors of a sum of the e^-D_j in any order, in units of u s.

        An addition loses at most u times its result and at most its smaller operand, so zeros and
        absorbed terms cost next to nothing: sigma = min(n - 1, sum_j min(1, p_j / u)), n counting
        what is not -inf.
        """
        lost = np.minimum(self.exponential, unit_roundoff * self.total).sum(axis=1, keepdims=True)
        return np.asarray(np.minimum(np.maximum(self.visible - 1, 0.0), lost / (unit_roundoff * self.total)))


def _distinct_before(ordered: Array) -> Array:
    """How many distinct entries come before each one in rows in ascending order."""
    count = np.zeros(ordered.shape)
    count[:, 1:] = np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1)
    return count


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a bound allows, element by element, in the shape of the reference."""

    absolute: Array
    """float64: the largest allowed |output - exact| before the output's own rounding; inf = not judged."""
    flush_below: Array | None = None
    """An exact 0 is accepted where the exact result is at most this, as from a device that flushes
    subnormals; None for nowhere.
    """
    may_overflow: NDArray[np.bool_] | None = None
    """Where a correct kernel's intermediate overflows, so that an infinity of the result's sign is
    accepted too; None for nowhere.
    """

    @property
    def judged(self) -> NDArray[np.bool_]:
        return np.isfinite(self.absolute)


def total_error(facts: RowFacts, numerics: Numerics, target: Format) -> Array:
    """Relative error of s = sum_j e^-D_j in a kernel with these numerics, first order, [rows, 1]
    (docs/verdict.md, 2).
    """
    arithmetic = numerics.arithmetic(target)
    u = arithmetic.unit_roundoff
    exp_error = 2 * numerics.exp_ulp
    if numerics.shift == "none":
        per_term = facts.argument_roundings * facts.mean_magnitude + exp_error
        rescales = np.zeros_like(facts.total)
    else:
        per_term = facts.argument_roundings * facts.mean_gap + exp_error * (1 - facts.top_mass)
        rescales = (exp_error + 1) * facts.rescales
    error = u * (per_term + facts.summation(u) + rescales)
    if numerics.shift == "folded":
        error = error + 2 * u * np.abs(facts.maximum)
    stored = numerics.format_of("probabilities", target)
    if stored is not None:
        error = error + 2 * stored.unit_roundoff
    scores = numerics.format_of("scores", target)
    if scores is not None:
        error = error + scores.unit_roundoff * facts.mean_gap
    return error


def underflow_scale(facts: RowFacts, numerics: Numerics, target: Format) -> tuple[float, Array]:
    """(eta, scale): an exponential rounded to a subnormal is wrong by eta/2, which scale = e^-y (1
    if shifted) magnifies.
    """
    formats = [numerics.arithmetic(target), numerics.format_of("probabilities", target)]
    eta = max(f.smallest_subnormal for f in formats if f is not None)
    if numerics.shift != "none":
        return eta, np.ones_like(facts.total)
    with np.errstate(over="ignore"):
        return eta, np.exp(-facts.log_sum_exp)
