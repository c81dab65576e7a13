"""Where a kernel breaks, measured on rows of one or two values, and the closed formula that
explains it: docs/thresholds.md.

overflow    row (x, x, ..., x): the smallest level x > 0 at which the result is not finite or no longer
            that of x = 0
underflow   row (0, -g, ..., -g): the smallest gap g at which the last entries are lost: p = 0, log p = -inf;
            logsumexp: row (-g, ..., -g), the smallest depth g at which the result is not finite or
            no longer ln n - g
saturation  row (0, -g, ..., -g): the smallest gap g at which the first entry is alone: p = 1, log p =
            0, logsumexp = 0
stagnation  row (0, ..., 0): the largest n up to which the sum of n ones still grows with n

"No longer" means by a factor of more than LOST in p (for logsumexp: by more than half of the
level), so that rounding errors are no overflow. Every x and g is a number of the tensor's format
with at most GRID_BITS bits, from 2^SMALLEST to the largest of these: the grid. The first failing
number is found by a search that puts a batch of candidates in one call.

data of the measurement, JSON-ready:
    reason      why nothing was measured; then it is the only key
    grid_bits, up_to   significand bits of the grid and its largest number
    note        why fewer lengths were measured than for other kernels, else ""
    overflow, underflow, saturation   a list, an object for each row length: n; measured, None = never
                                      up to `up_to`, 0 = it
                fails on a row of zeros already; spacing of the grid just below it; formulas, value
                by name, None = never; agrees_with, the names of the formulas that explain the
                measured value, [] where none does. Where a length could not be measured: n and
                reason.
    stagnation  n, the longest row; measured, None = not up to n; first_wrong, the next longer row
                tried; largest_error,
                relative, of p against 1/n over all rows; beyond_rounding, the first n whose error
                exceeds one output rounding, or None; formulas, agrees_with. Or n and reason.

A formula agrees where it lies between the last number that works and the first that fails; where
none does, those within one spacing of the latter. On a coarse grid several may: bfloat16 logits
cannot tell ln Omega of float32 from bfloat16's.

The name of a formula is its idea, which docs/thresholds.md derives, and the format of the
arithmetic it is evaluated for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import DTYPES, FORMATS, Array, Format, compute_format, get_format
from suite.kernels import Kernel
from suite.ops import Result
from suite.records.record import Measurement
from suite.studies.grid import Fails, Formulas, Grid, threshold
from suite.studies.probing import Probe, UnmeasuredError, refuse_other_ops
from suite.tensors import to_float64, to_torch

if TYPE_CHECKING:
    from suite.execution.host import Host

LOST = 1.5

LENGTHS = (2, 33, 1024, 4096, 32768)
LENGTHS_IF_SLOW = (2, 33, 1024)
LENGTHS_IF_DECLARED_SLOW = (2, 33)
LONGEST_SUM = 2**16
LONGEST_SUM_IF_SLOW = 2**12
PARTS = (2, 4, 8, 16, 32)
"""Numbers of parts in which sums are taken: trees, lanes of a vector, unrolled loops."""

SLOW_SECONDS = 0.005
"""A kernel that takes longer than this for one row of about 1,000 logits of a new length gets fewer
lengths.
"""
CANDIDATES = 64
CANDIDATES_IF_SLOW = 16


# The closed formulas: for tensors of a format, evaluated for every arithmetic that a kernel may use inside.


def arithmetics(format: Format) -> tuple[Format, ...]:
    """The formats that a kernel may compute in, the tensor's own and best practice's first."""
    return tuple(dict.fromkeys((format, compute_format(format), *(FORMATS[name] for name in DTYPES))))


def overflow_formulas(result: Result, format: Format, n: int) -> Formulas:
    """Levels at which a row of n equal logits breaks. Those that the format cannot reach are left out."""
    found: Formulas = {"shifted": None}
    for f in arithmetics(format):
        found[f"sum {f.name}"] = f.sum_overflow(n)
        if n > 1:
            found[f"exp {f.name}"] = f.ln_omega
        if n > 1 and result is not Result.LOG_SUM:
            found[f"lse {f.name}"] = lse_rounding(f, n)
        found[f"base 2 {f.name}"] = f.largest * math.log(2)
    return _reachable(found, format)


def underflow_formulas(result: Result, format: Format, n: int) -> Formulas:
    """Gaps at which an entry is lost; for logsumexp, depths of a row of equal logits."""
    never = {Result.LOG_PROBABILITY: "log domain", Result.LOG_SUM: "shifted"}
    found: Formulas = {never[result]: None} if result in never else {}
    for f in arithmetics(format):
        half_subnormal = f.smallest_subnormal / 2
        # p = e^-g / (1 + (n - 1) e^-g) = t has the solution g = -ln t + ln(1 - (n - 1) t).
        normaliser = math.log1p(-(n - 1) * half_subnormal) if result is Result.PROBABILITY else 0.0
        found[f"zero {f.name}"] = f.exp_underflow + normaliser
        found[f"flushed {f.name}"] = f.exp_subnormal
        if n >= f.shifted_sum_overflow:
            found[f"Ω {f.name}"] = 0.0
        if result is not Result.PROBABILITY:
            found[f"base 2 {f.name}"] = f.largest * math.log(2)
    return _reachable(found, format)


def saturation_formulas(result: Result, format: Format, n: int) -> Formulas:
    """Gaps at which the largest of n entries is alone, its n - 1 competitors all at the same gap."""
    others, inside = math.log(n - 1), compute_format(format)
    found: Formulas = {}
    if result is Result.PROBABILITY:
        found[f"rounded {format.name}"] = format.saturation_rounded(n)
    for f in arithmetics(format):
        found[f"absorbed {f.name}"] = f.saturation_in_format
        if n > 2:
            found[f"sum {f.name}"] = f.saturation_in_format + others if f.bits > 16 else stored_sum(f, n)
    for parts in PARTS:
        if n // parts > 1:
            found[f"part n/{parts} {inside.name}"] = inside.saturation_in_format + math.log(n // parts)
    if result is not Result.PROBABILITY:
        found[f"zero {format.name}"] = format.exp_underflow + others
        found[f"flushed {format.name}"] = format.exp_subnormal + others
    return _reachable(found, format)


def stagnation_formulas(format: Format, longest: int) -> Formulas:
    """Row lengths at which a sum of ones, taken in order, stops growing; those beyond the longest
    row are left out.
    """
    found: Formulas = {"wide": None}
    for f in arithmetics(format):
        found[f"accumulator {f.name}"] = float(f.stagnation)
        found[f"Ω {f.name}"] = f.shifted_sum_overflow
    return {name: value for name, value in found.items() if value is None or value <= longest}


def lse_rounding(format: Format, n: int) -> float:
    """The smallest level 2^k at which exp(x - RN(x + ln n)) differs from 1/n by a factor of more than LOST.

    x is a multiple of its ulp, so RN(x + ln n) - x is the multiple of the ulp nearest to ln n. Needs n >= 2.
    """
    log_n = math.log(n)
    for exponent in itertools.count():
        ulp = 2.0**exponent
        if abs(ulp * round(log_n / ulp) - log_n) > math.log(LOST):
            return float(ulp * 2.0 ** (format.precision - 1))
    raise AssertionError("from ulp > 2 ln n on, the rounded sum is x itself and ln n > ln LOST")


def stored_sum(format: Format, n: int) -> float:
    """The gap at which 1 + (n - 1) RN(exp(-g)) is 1: p ln 2 + ln(n - 1) but for the rounding of the
    exponentials.

    (n - 1) e <= 2^-p holds up to the largest number e of the format below 2^-p / (n - 1), and
    exp(-g) rounds to that up to half an ulp above it.
    """
    share = format.unit_roundoff / (n - 1)
    ulp = float(format.ulp(share))
    return -math.log(math.floor(share / ulp) * ulp + ulp / 2)


def _reachable(formulas: Formulas, format: Format) -> Formulas:
    return {name: value for name, value in formulas.items() if value is None or value <= format.largest}


# The measurement.


def measure(kernel: Kernel, dtype: str, *, device: str = "cpu", host: Host | None = None) -> Measurement:
    """Overflow, underflow, saturation and stagnation of a kernel of softmax, log_softmax or
    logsumexp; no verdict.

    dtype: a format's name. host: where its calls run, this process by default. What the kernel does
    wrong is a reason in the data. Raises ValueError for an unknown dtype or another op.
    """
    refuse_other_ops(kernel, "thresholds", "are")
    return _Probe(kernel, get_format(dtype), device, host).measurement()


class _Probe(Probe):
    """A kernel, called on rows of one or two values."""

    chapter = "thresholds"

    def data(self) -> dict[str, Any]:
        self.rows(np.zeros(1), np.zeros(1), 2)
        seconds = min(self.call(np.zeros(1), np.zeros(1), n)[1] for n in (1024, 1023, 1022))
        lengths: tuple[int, ...] = LENGTHS
        note = self.slowness(seconds, SLOW_SECONDS, "a row of 1,024")
        if note:
            lengths = LENGTHS_IF_DECLARED_SLOW if self.kernel.slow else LENGTHS_IF_SLOW
        grid = Grid(self.format)
        return {
            "grid_bits": grid.bits,
            "up_to": float(grid.numbers(np.array([grid.size - 1]))[0]),
            "note": note,
            "overflow": [self._threshold(self._level, overflow_formulas, n) for n in (1, *lengths)],
            "underflow": [self._threshold(self._lost, underflow_formulas, n) for n in lengths],
            "saturation": [self._threshold(self._alone, saturation_formulas, n) for n in lengths],
            "stagnation": self._stagnation(
                powers(LONGEST_SUM_IF_SLOW) if note else powers_and_halves(LONGEST_SUM)
            ),
        }

    def _threshold(
        self,
        prepare: Callable[[int], Fails | None],
        formulas: Callable[[Result, Format, int], Formulas],
        n: int,
    ) -> dict[str, Any]:
        try:
            fails = prepare(n)
        except UnmeasuredError as error:
            return {"n": n, "reason": str(error)}
        candidates = CANDIDATES_IF_SLOW if self.kernel.slow else CANDIDATES
        expected = formulas(self.op.result, self.format, n)
        return threshold(self.format, n, fails, expected, candidates=candidates)

    # Each of the next three returns the test of a batch of candidates: which of them fail. None: a
    # row of zeros does already.

    def _level(self, n: int, sign: float = 1.0) -> Fails | None:
        low, high = self.rows(np.zeros(1), np.zeros(1), n)
        if not self._is_usable(low, high):
            return None

        def fails(level: Array) -> NDArray[np.bool_]:
            smallest, largest = self.rows(sign * level, sign * level, n)
            if self.op.result is Result.PROBABILITY:
                return ~((smallest >= low / LOST) & (largest <= high * LOST))
            if self.op.result is Result.LOG_PROBABILITY:
                return ~((smallest >= low - math.log(LOST)) & (largest <= high + math.log(LOST)))
            return ~(np.abs(smallest - sign * level - low) <= (level + 1) / 2)

        return fails

    def _lost(self, n: int) -> Fails | None:
        if self.op.result is Result.LOG_SUM:
            return self._level(n, sign=-1.0)

        def fails(gap: Array) -> NDArray[np.bool_]:
            smallest, _ = self.rows(np.zeros_like(gap), -gap, n)
            return ~(smallest > 0) if self.op.result is Result.PROBABILITY else ~np.isfinite(smallest)

        return None if fails(np.zeros(1))[0] else fails

    def _alone(self, n: int) -> Fails:
        alone = 1.0 if self.op.result is Result.PROBABILITY else 0.0
        return lambda gap: np.asarray(self.rows(np.zeros_like(gap), -gap, n)[1] == alone)

    def _stagnation(self, lengths: Sequence[int]) -> dict[str, Any]:
        right, wrong, beyond, largest_error = 1, None, None, 0.0
        for n in lengths:
            try:
                low, high = (float(side[0]) for side in self.rows(np.zeros(1), np.zeros(1), n))
            except UnmeasuredError as error:
                return {"n": n, "reason": str(error)}
            exact = {
                Result.PROBABILITY: 1 / n,
                Result.LOG_PROBABILITY: -math.log(n),
                Result.LOG_SUM: math.log(n),
            }[self.op.result]
            off = max(self._relative_error(low, n), self._relative_error(high, n))
            largest_error = max(largest_error, off)
            if (
                beyond is None
                and not max(abs(low - exact), abs(high - exact)) <= float(self.format.ulp(exact)) / 2
            ):
                beyond = n
            if off > 0.25:  # a sum that stopped at n is off by 1/3 or more at the next length
                wrong = n
                break
            right = n
        formulas = stagnation_formulas(self.format, lengths[-1])
        measured = None if wrong is None else right
        agreeing = [
            name
            for name, value in formulas.items()
            if (value is None) == (wrong is None)
            and (value is None or wrong is None or right <= value <= wrong)
        ]
        return {
            "n": lengths[-1],
            "measured": measured,
            "first_wrong": wrong,
            "largest_error": largest_error,
            "beyond_rounding": beyond,
            "formulas": formulas,
            "agrees_with": agreeing,
        }

    def _relative_error(self, y: float, n: int) -> float:
        """Of the probability 1/n that the result stands for; infinite where it is not finite."""
        if not math.isfinite(y):
            return math.inf
        if self.op.result is Result.PROBABILITY:
            return abs(y * n - 1)
        distance = abs(y) - math.log(n)
        return abs(math.expm1(min(distance, 700.0)))

    def _is_usable(self, low: Array, high: Array) -> bool:
        finite = bool(np.isfinite(low[0]) and np.isfinite(high[0]))
        return finite and (self.op.result is not Result.PROBABILITY or bool(low[0] > 0))

    def rows(self, first: Array, others: Array, n: int) -> tuple[Array, Array]:
        """(smallest, largest) entry of each result of the rows (first, others, ..., others); NaN
        where one is NaN.
        """
        return self.call(first, others, n)[0]

    def call(self, first: Array, others: Array, n: int) -> tuple[tuple[Array, Array], float]:
        """rows() and the seconds that the kernel took."""
        x = to_torch(others, self.format, self.device)[:, None].repeat(1, n)
        x[:, 0] = to_torch(first, self.format, self.device)
        outcome = self.call_kernel(x, {"dim": -1}, f" on {len(others)} rows of {n}")
        assert not isinstance(outcome.value, tuple)
        assert outcome.value is not None
        result = outcome.value.detach()
        if not self.op.keeps_length:
            values = to_float64(result)
            return (values, values), outcome.seconds or 0.0
        return (to_float64(result.amin(-1)), to_float64(result.amax(-1))), outcome.seconds or 0.0


# Row lengths for sums of ones: numbers of every format, so that a sum that still grows is exact.


def powers(longest: int) -> list[int]:
    """2, 4, 8, ... up to the longest."""
    return [2**k for k in range(1, longest.bit_length()) if 2**k <= longest]


def powers_and_halves(longest: int) -> list[int]:
    """2, 3, 4, 6, 8, 12, ... up to the longest."""
    return sorted(n for power in powers(longest) for n in (power, power * 3 // 2) if n <= longest)


# The tables of docs/thresholds.md.


def tables() -> str:
    """The closed formulas in every format of this package, as Markdown."""
    formats = tuple(FORMATS.values())
    lines = [
        "| threshold | n | " + " | ".join(f.name for f in formats) + " |",
        "| --- " * (2 + len(formats)) + "|",
    ]

    def line(label: str, n: str, value: Callable[[Format], float]) -> None:
        lines.append(f"| {label} | {n} | " + " | ".join(f"{value(f):.7g}" for f in formats) + " |")

    line("exp overflows above", "1", lambda f: f.ln_omega)
    for n in (2, 4096, 151936):
        line("sum of exponentials overflows above", f"{n:,}", lambda f, n=n: f.sum_overflow(n))  # type: ignore[misc]
    line("exp(−g) is 0 above", "any", lambda f: f.exp_underflow)
    line("exp(−g) is flushed above", "any", lambda f: f.exp_subnormal)
    line("absorbed: 1 + exp(−g) is 1 from", "any", lambda f: f.saturation_in_format)
    for n in (33, 4096, 151936):
        others = math.log(n - 1)
        line("sum: 1 + Σ exp(−g) is 1 from", f"{n:,}", lambda f, b=others: f.saturation_in_format + b)  # type: ignore[misc]
    for n in (2, 33, 4096, 151936):
        line("rounded: the exact p rounds to 1 from", f"{n:,}", lambda f, n=n: f.saturation_rounded(n))  # type: ignore[misc]
    for n in (2, 4096):
        line("x + ln n, rounded, is lost from", f"{n:,}", lambda f, n=n: lse_rounding(f, n))  # type: ignore[misc]
    line("a sum of ones stops growing at", "", lambda f: float(f.stagnation))
    line("a sum of ones overflows from", "", lambda f: f.shifted_sum_overflow)
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
