"""The kernel profile: what the numerics of a kernel are, found from outside by rows whose exact sum is known.

The trick. Let e^-g + e^-h = 1. Then the row [0, -g, -h] has the sum 2, and a division by 2 is
exact: where the kernel answers p_0 = 1/2, its p_1 is half of its own exponential of -g, every bit
of it, and p_2 of -h. From g = (p + 4) ln 2 on the row [0, -g] has the sum 1 and does the same
alone. Rows in which p_0 is neither 1/2 nor 1 give e^-g as p_1 / p_0, known to RATIO_ULP. So the
error of the exponential stands open over its whole range, sum and division taken away, in float32
and float64. In 16 bits the output's rounding hides it; there every gap that the format has is
judged instead.

A measurement's data, JSON-ready:
    reason     why nothing was measured; then there is nothing else
    rows       rows of logits that were given to the kernel
    findings   {name: {"value": ..., "text": one sentence of evidence}}; value None = not measured or
               undecided, text says why
    curve      None, or lists with an entry for each bucket of gaps: gap (its middle), exp_ulp (largest
               error found),
               signed_u (mean signed relative error in u), allowed_u (2.25 g + 6, docs/verdict.md, section 2)

Findings, in this order (g = gap, u = unit roundoff of the arithmetic):
    output           of the results themselves: {"max_ulp": None for logarithms, "correctly_rounded":
                     share, and in 16 bits
                     "single_rounding": the judge passes them, "half_ulp": and none is more than 0.51 ulp off}
    exp_ulp          largest error of its exponential, in ulps of the exact one
    grows_with_gap   whether that error grows with g; slope in u per unit of g in the text
    base             "2", "e" or "unknown": log2 e rounded to the format leaves a mean error of a known
                     slope in g
    argument_format  "exact", or the format that x - max x is rounded to, or "coarse"
    flushes          {"zero_at": smallest gap from which results are 0, "kind": "gradual", "flushed",
                     "early" or "between"}
    saturates        {"at": smallest gap from which the largest entry is its limit (1; log domain 0),
                     "kind": "in_format",
                     "rounded" or "other", "format" of the sum that explains it or None}
    monotone         number of inversions: neighbouring gaps in one row of which the larger has the
                     larger result
    shift_invariant  whether c + x has the bits of x, for offsets c that change no difference
    accumulate       "float32" and the like where the sum of n ones stops growing or is rounded, "no
                     stagnation" otherwise
    fits             the tightest of suite.verdict.statistics.FITTING that all errors on these rows satisfy
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.execution.host import Host
from suite.execution.in_process import InProcess
from suite.floating_point import subnormals_kept
from suite.formats import LN2, Array, Format, bfloat16, compute_format, float16, float32, float64, get_format
from suite.kernels import Kernel
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops import AnyOp, Result, get_op, measured_by
from suite.ops.arithmetic import Arb, Arithmetic, Float64, Mpmath
from suite.oracle import Oracle, Reference
from suite.oracle.certified import certified_tier
from suite.records.record import Measurement
from suite.tensors import to_float64, to_torch
from suite.verdict.judge import judge_values
from suite.verdict.judgement import Judgement
from suite.verdict.statistics import FITTING, ulp_errors
from suite.version import __version__

Mask = NDArray[np.bool_]
Findings = dict[str, dict[str, Any]]

NAMES = (
    "output",
    "exp_ulp",
    "grows_with_gap",
    "base",
    "argument_format",
    "flushes",
    "saturates",
    "monotone",
    "shift_invariant",
    "accumulate",
    "fits",
)
RATIO_ULP = 3.0
"""p_1 / p_0 in place of e^-g: the kernel's two divisions and this one, each within u; a relative 3
u is below 3 ulps.
"""
OFFSETS = (64.0, -64.0, 1024.0, 65536.0)
LENGTHS = (3, 4, 16, 17, 256, 257, 384, 512, 1024, 2048, 2049, 3072, 4096)
"""Rows of n zeros: 2^p, 2^p + 1 and 3 2^(p-1) for the precisions p of bfloat16 and float16 among them."""
BUCKETS = 64
LOG2_E = 1.4426950408889634
LOG2_E_REST = 2.0355273740931033e-17
"""log2 e - LOG2_E."""


@dataclass(frozen=True, slots=True)
class Density:
    """How many rows: per octave of e^-g, per run of neighbouring numbers, around each threshold,
    per offset, and judged.
    """

    octave: int
    run: int
    threshold: int
    offset: int
    judged: int


def density(format: Format, *, slow: bool) -> Density:
    """The density of the rows: about 2^17 rows in all, 2^15 for float64 (1022 octaves), 2^11 for a
    slow kernel.
    """
    if slow:
        return Density(octave=8 if format is not float64 else 1, run=64, threshold=8, offset=16, judged=512)
    if format is float64:
        return Density(octave=24, run=1024, threshold=64, offset=128, judged=512)
    return Density(octave=512, run=4096, threshold=256, offset=256, judged=4096)


class _FailedError(Exception):
    """The kernel cannot be measured; the text is the reason."""


def measure(kernel: Kernel, dtype: str, *, device: str = "cpu", host: Host | None = None) -> Measurement:
    """The profile of a kernel of softmax (log_softmax and logsumexp: what their results let
    through) in one format.

    dtype: a format's name; ValueError if unknown. A kernel that fails or does not support this
    gives data {"reason": ...}.
    """
    format = get_format(dtype)
    try:
        with subnormals_kept():
            data = _Profile(kernel, format, device, host or InProcess()).data()
    except _FailedError as error:
        data = {"reason": str(error)}
    return Measurement(
        kind="exponential",
        kernel=kernel.id,
        op=kernel.op,
        dtype=dtype,
        device=device,
        suite_version=__version__,
        data=data,
    )


class _Profile:
    """One measurement: the rows, the kernel's answers, and a method for each finding."""

    def __init__(self, kernel: Kernel, format: Format, device: str, host: Host) -> None:
        self.kernel, self.format, self.device, self.host = kernel, format, device, host
        self.op: AnyOp = get_op(kernel.op)
        if "exponential" not in self.op.measured:
            raise _FailedError(f"there are profiles of {', '.join(measured_by('exponential'))} only")
        self.options = self.op.resolve_options({}, {"x": (1, 2)})
        self.arithmetic = compute_format(format)
        self.wide = (
            format is self.arithmetic
        )  # the output shows the arithmetic, not only its rounding to 16 bits
        self.density = density(format, slow=kernel.slow)
        self.oracle = Oracle()
        reason = kernel.supports(self.options, format, device)
        if reason is not None:
            raise _FailedError(f"unsupported: {reason}")

    @np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
    def data(self) -> dict[str, Any]:
        self.x = self._parts()
        y = self._call(np.concatenate(list(self.x.values())))
        ends = np.cumsum([len(rows) for rows in self.x.values()])[:-1]
        self.y = dict(zip(self.x, np.split(y, ends), strict=True))
        if not np.isfinite(y).all():
            raise _FailedError("returned NaN or infinity for rows of finite logits whose largest is 0")
        if self.op.result is Result.PROBABILITY and (y[:, 0] <= 0).any():
            raise _FailedError("gives the largest entry of a row of three no probability above 0")
        shift = self._shift()
        softmax = self.op.result is Result.PROBABILITY
        hidden = f"the output's rounding to {self.format.name} hides it"
        if not softmax:
            hidden = (
                f"{self.op.name} shows the logarithm of the sum, in which the exponential cannot be told"
                " apart"
            )
        findings: Findings = {
            name: _unmeasured(hidden) for name in ("exp_ulp", "grows_with_gap", "base", "flushes")
        }
        curve = None
        if softmax and self.wide:
            exponentials, curve = self._exponential()
            findings |= exponentials
        if softmax:
            findings["flushes"] = self._zero()
        findings |= {
            **self._accuracy(),
            "argument_format": self._argument(),
            "saturates": self._saturation(),
            "monotone": self._monotone(),
            "shift_invariant": shift,
            "accumulate": self._accumulate(),
        }
        return {"rows": len(y), "findings": {name: findings[name] for name in NAMES}, "curve": curve}

    # The rows

    @property
    def last_normal(self) -> float:
        """The gap to which e^-g is a normal number of the output's format."""
        return self.format.exp_subnormal

    def _parts(self) -> dict[str, Array]:
        """The rows by purpose, [rows, 3] each, numbers of the format: [0, -g, -h], or [0, -g, far below]."""
        count = self.density.threshold
        thresholds = [self._around(at, count) for at in self._thresholds()]
        thresholds.append(np.linspace(1.0, self._thresholds()[0] + 4, 2 * count))
        thresholds.append(np.linspace(self.last_normal, self.format.exp_underflow + 2, count))
        if self.wide:
            runs = np.concatenate([self._around(at, self.density.run // 2) for at in RUNS])
            deep = self._around(0.8 * self.last_normal, self.density.run // 4)
            parts = {"curve": self._paired(self._octaves()), "deep": self._single(deep)}
        else:
            runs = self._every_number()
            parts = {"curve": self._single(runs), "argument": self._unrounded()}
        neighbours = self._single(runs[:-1])
        neighbours[:, 2] = -runs[1:]
        parts["neighbours"] = neighbours
        parts["thresholds"] = self._single(np.asarray(self.format.round(np.concatenate(thresholds))))
        return parts

    def _thresholds(self) -> tuple[float, ...]:
        """The gaps at which something may happen: the largest saturation first, the underflow last."""
        formats = {f.name: f for f in (self.arithmetic, self.format, float16, bfloat16)}.values()
        saturations = [at for f in formats for at in (f.saturation_rounded(), f.saturation_in_format)]
        return (*saturations, self.format.exp_subnormal, self.format.exp_underflow)

    def _around(self, gap: float, count: int) -> Array:
        """2 count neighbouring numbers of the format around a gap."""
        spacing = float(self.format.ulp(gap))
        return self.format.round(gap + spacing * np.arange(-count, count, dtype=np.float64))

    def _octaves(self) -> Array:
        """Gaps evenly over each octave of e^-g, [k ln 2, (k+1) ln 2): errors of period 1 in g log2
        e have no say in a mean.
        """
        count = self.density.octave
        octave = np.arange(int(self.last_normal / LN2) - 1)
        start = (octave * 0.6180339887498949) % 1.0
        place = (np.arange(count, dtype=np.float64) + start[:, None]) / count
        gaps = self.format.round(np.asarray((octave[:, None] + place) * LN2)).ravel()
        return gaps[gaps > 2.0**-12]

    def _every_number(self) -> Array:
        """Every number of a 16-bit format from 2^-8 to past the underflow; evenly chosen ones for a
        slow kernel.
        """
        first, last = -8, int(np.floor(np.log2(self.format.exp_underflow)))
        steps = 1 + np.arange(2 ** (self.format.precision - 1)) * 2.0 ** (1 - self.format.precision)
        gaps = np.concatenate([steps * 2.0**e for e in range(first, last + 1)])
        gaps = gaps[gaps < 1.05 * self.format.exp_underflow]
        return gaps[:: -(-len(gaps) // 512)] if self.kernel.slow else gaps

    def _single(self, gaps: Array) -> Array:
        far = np.full(len(gaps), float(self.format.round(-4 * self.format.exp_underflow)))
        return np.stack([np.zeros(len(gaps)), -gaps, far], axis=1)

    def _paired(self, gaps: Array) -> Array:
        """[0, -g, -h] with e^-g + e^-h = 1 + u/2 as nearly as h can be a number of the format.

        The half u more than 1 lets a sum of rounded exponentials round to 2 from both sides.
        """
        rows = self._single(gaps)
        near = gaps < (self.format.precision + 4) * LN2
        arithmetic = _exact_arithmetic(self.format)
        with arithmetic.precision(128) if not isinstance(arithmetic, Float64) else np.errstate():
            exponential = arithmetic.exp(arithmetic.lift(-gaps[near]))
            rest = (1 - exponential) + self.format.unit_roundoff / 2
            partner = -np.asarray(arithmetic.log(rest), dtype=np.float64)
        partner = np.asarray(self.format.round(partner))
        rows[near, 2] = np.where(partner > self.format.smallest_normal, -partner, 0.0)
        return rows

    def _unrounded(self) -> Array:
        """Rows [a, -b, far] of 16-bit numbers whose gap a + b needs more bits than the format has."""
        top = 8.0 if self.format is float16 else 64.0
        fine = 0.5 if self.format is float16 else 1.0
        count = 2 ** (self.format.precision - 1)
        a = fine * (1 + np.arange(count) / count)
        b = top + top / 8 * ((np.arange(count) * 0.6180339887498949) % 1.0)
        rows = self._single(np.asarray(self.format.round(b)))
        rows[:, 0] = a
        return rows

    def _gaps_on_grid(self, offset: float) -> Array:
        """Gaps g for which offset - g and -g are numbers of the format, so that both rows have the
        same differences.
        """
        if offset > self.format.largest:
            return np.zeros(0)
        spacing = float(self.format.ulp(abs(offset) + self.last_normal))
        steps = int(self.last_normal / 2 / spacing)
        chosen = np.unique(np.linspace(1, max(steps, 1), self.density.offset).round())
        gaps = chosen * spacing
        kept = self.format.contains(gaps) & self.format.contains(offset - gaps) & (gaps <= self.last_normal)
        return np.asarray(gaps[kept])

    def _call(self, x: Array) -> Array:
        """The kernel's output rows for x [rows, n], float64. Raises _FailedError where there is none."""
        outcome = self.host.call(self.kernel, to_torch(x, self.format, self.device), self.options)
        if outcome.status is not None:
            raise _FailedError(f"{outcome.status}: {outcome.message}")
        return self.op.output_rows(to_float64(outcome.value), None, self.options)

    # Findings

    def _accuracy(self) -> Findings:
        """Judges a sample of the rows, those with an offset too, as any output is judged: output and fits."""
        reference, y, x = self._sample(np.inf, self.density.judged if self.wide else 2**17)
        judgement = self._judged(reference, y, x, BEST_PRACTICE)
        right = y == self.format.round(reference.hi, reference.lo)
        normal = np.abs(reference.hi) >= self.format.smallest_normal
        share = float(right[normal].mean())
        text = (
            f"{int(right[normal].sum())} of {int(normal.sum())} normal results are the correctly rounded ones"
            f" ({share:.1%})"
        )
        value: dict[str, Any] = {
            "max_ulp": None,
            "correctly_rounded": share,
            "single_rounding": None,
            "half_ulp": None,
        }
        if self.op.result is Result.PROBABILITY:
            value["max_ulp"] = float(np.abs(ulp_errors(reference, self.format, y)).max())
            text += f", the largest error is {value['max_ulp']:.4g} ulp"
        else:
            text += f", the largest error is {judgement.ratio:.3g} times of the bound"
        if not self.wide:
            value["single_rounding"] = judgement.passed
            value["half_ulp"] = judgement.passed and value["max_ulp"] is not None and value["max_ulp"] < 0.51
            does = "explains all of them" if judgement.passed else "does not explain all of them"
            text += f"; one rounding of an honest {self.arithmetic.name} result {does}"
        return {"output": _finding(value, text), "fits": self._fits()}

    def _sample(self, largest_gap: float, count: int) -> tuple[Reference, Array, Array]:
        """(reference, outputs, logits) of about `count` of all rows whose gaps are at most this;
        far entries do not count.
        """
        x = np.concatenate([*self.x.values(), *self.shifted_x])
        y = np.concatenate([*self.y.values(), *self.shifted_y])
        gap = x[:, :1] - x[:, 1:]
        near = ((gap <= largest_gap) | (gap > 2 * self.format.exp_underflow)).all(axis=1)
        chosen = np.flatnonzero(near & np.isfinite(y).all(axis=1))
        chosen = chosen[:: max(1, len(chosen) // count)]
        return (
            self.oracle.reference(self.op, {"x": x[chosen]}, self.options, self.format),
            y[chosen],
            x[chosen],
        )

    def _judged(self, reference: Reference, y: Array, x: Array, numerics: Numerics) -> Judgement:
        return judge_values(
            self.op, reference, y, {"x": x.shape}, self.options, self.format, numerics, statistics=False
        )

    def _fits(self) -> dict[str, Any]:
        """The first of FITTING that every result of a sample satisfies, over all gaps, or else over
        gaps up to 16.
        """
        for reach, where in ((np.inf, ""), (16.0, " at gaps up to 16")):
            reference, y, x = self._sample(reach, self.density.judged)
            for numerics in FITTING:
                if self._judged(reference, y, x, numerics).passed:
                    text = f"the tightest model that all {y.size} judged results{where} satisfy: {numerics}"
                    return _finding(str(numerics), text)
        return _finding(None, "no model of rounding that the judge knows fits all judged results")

    def _exponential(self) -> tuple[Findings, dict[str, list[float]]]:
        """exp_ulp, grows_with_gap and base, and the curve, from the rows whose sum is a power of two."""
        points = _Points.of(self.x["curve"], self.y["curve"], self.format)
        u = self.format.unit_roundoff
        least = np.maximum(np.abs(points.error_ulp) - points.allowance, 0.0)
        largest = int(np.argmax(least))
        near = float(least[points.gap < LN2].max())
        text = (
            f"largest error {least[largest]:.3g} ulp, at gap {points.gap[largest]:.6g}, and {near:.3g} ulp up"
            f" to gap ln 2; of {len(least)} exponentials, {points.exact.mean():.0%} of them known exactly,"
            f" the rest to {RATIO_ULP:g} ulp"
        )
        findings = {"exp_ulp": _finding(float(least[largest]), text)}
        if points.exact.mean() < 0.05:
            findings["exp_ulp"] = _unmeasured(
                "the largest entry is hardly ever 1/2 in rows of sum 2, so that no sum is known"
            )

        octave = np.floor(points.gap / LN2).astype(int)
        groups = [points.relative[points.even & (octave == k)] / u for k in range(octave.max() + 1)]
        known = [k for k, errors in enumerate(groups) if len(errors)]
        gaps = (np.array(known) + 0.5) * LN2
        mean = np.array([groups[k].mean() for k in known])
        spread = np.array([groups[k].std() for k in known])
        largest_u = np.array([np.abs(groups[k]).max() for k in known])
        findings["grows_with_gap"] = _growth(gaps, largest_u, self.format)
        findings["base"] = _base(gaps, mean, spread, self.format)
        if largest_u.max() * u > 0.5:
            findings["base"] = _finding(
                "unknown", "some results at large gaps are no approximation of e^-g at all"
            )
        bucket = np.minimum((points.gap / self.last_normal * BUCKETS).astype(int), BUCKETS - 1)
        curve: dict[str, list[float]] = {"gap": [], "exp_ulp": [], "signed_u": [], "allowed_u": []}
        for k in np.unique(bucket):
            inside = bucket == k
            gap = (float(k) + 0.5) * self.last_normal / BUCKETS
            curve["gap"].append(round(gap, 4))
            curve["exp_ulp"].append(_short(float(least[inside].max())))
            curve["signed_u"].append(_short(float(points.relative[inside].mean()) / u))
            curve["allowed_u"].append(_short(2.25 * gap + 6))
        return findings, curve

    def _by_gap(self, names: tuple[str, ...], column: int) -> tuple[Array, Array]:
        """(gaps, outputs of `column`) of the rows [0, -g, far], in the order of the gaps."""
        x = np.concatenate([self.x[name] for name in names])
        y = np.concatenate([self.y[name] for name in names])
        alone = x[:, 2] < -2 * self.format.exp_underflow
        gap, order = np.unique(-x[alone, 1], return_index=True)
        return gap, y[alone][order, min(column, y.shape[1] - 1)]

    def _zero(self) -> dict[str, Any]:
        gap, p = self._by_gap(("curve", "thresholds"), 1)
        f = self.format
        known = f"{f.name} ends at {f.exp_underflow:.6g}, its normal numbers at {f.exp_subnormal:.6g}"
        positive = np.flatnonzero(p != 0)
        if len(positive) == 0 or positive[-1] == len(gap) - 1:
            return _finding(
                {"zero_at": None, "kind": "other"}, f"no gap up to {gap[-1]:.6g} gives 0; {known}"
            )
        at = float(gap[positive[-1] + 1])
        spacing = max(2 * float(f.ulp(at)), 1e-3)
        if at >= f.exp_underflow - math.log(3.0):
            kind, words = "gradual", "subnormal results are kept"
        elif abs(at - f.exp_subnormal) <= spacing:
            kind, words = "flushed", "results below the normal numbers are flushed to 0"
        elif at < f.exp_subnormal:
            kind, words = "early", f"normal results are lost: e^-g = {math.exp(-at):.3g} there"
        else:
            kind, words = "between", f"some subnormal results are lost: e^-g = {math.exp(-at):.3g} there"
        return _finding(
            {"zero_at": at, "kind": kind}, f"results are 0 from gap {at:.7g} on, so {words} ({known})"
        )

    def _saturation(self) -> dict[str, Any]:
        gap, p = self._by_gap(("curve", "thresholds"), 0)
        limit = 1.0 if self.op.result is Result.PROBABILITY else 0.0
        quantity = {
            Result.PROBABILITY: "p_0 is 1",
            Result.LOG_PROBABILITY: "log p_0 is 0",
            Result.LOG_SUM: "the result is 0",
        }[self.op.result]
        below = np.flatnonzero(p != limit)
        if len(below) and below[-1] + 1 == len(gap):
            return _finding(
                {"at": None, "kind": "other", "format": None},
                f"at no gap up to {gap[-1]:.6g} {quantity} exactly",
            )
        at = float(gap[below[-1] + 1]) if len(below) else float(gap[0])
        spacing = max(1.01 * float(self.format.ulp(at)), 1e-3)
        candidates = [("in_format", f, f.saturation_in_format) for f in (self.arithmetic, float16, bfloat16)]
        if self.op.result is Result.PROBABILITY:
            candidates.append(("rounded", self.format, self.format.saturation_rounded()))
        kind, format = next(
            ((k, f.name) for k, f, known in candidates if abs(at - known) <= spacing), ("other", None)
        )
        text = f"{quantity} exactly from gap {at:.6g} on: "
        if kind == "in_format":
            text += f"where 1 + e^-g is rounded to 1 in {format}"
        elif kind == "rounded":
            text += f"where the exact result rounds to 1 in {format}; the sum is wider than that"
        elif self.op.result is not Result.PROBABILITY and at > self.arithmetic.exp_subnormal - spacing:
            text += "a log1p keeps what a sum absorbs"
        else:
            text += "neither the sum's nor the output's rounding explains it"
        return _finding({"at": at, "kind": kind, "format": format}, text)

    def _monotone(self) -> dict[str, Any]:
        """Two neighbouring numbers in one row share its sum: where the smaller has the larger
        result, exp has an inversion.
        """
        if not self.op.keeps_length:
            return _unmeasured("a row has one result only")
        x, y = self.x["neighbours"], self.y["neighbours"]
        wrong = np.flatnonzero((x[:, 2] < x[:, 1]) & (y[:, 2] > y[:, 1]))
        if len(wrong) == 0:
            return _finding(0, f"no inversion in {len(x)} pairs of neighbouring gaps")
        first = float(-x[wrong, 2].max())
        return _finding(
            len(wrong),
            f"{len(wrong)} inversions in {len(x)} pairs of neighbouring gaps, the first at gap {first:.9g}",
        )

    def _argument(self) -> dict[str, Any]:
        """Which rounding of the gap the results show: their apparent gap ln p_0 - ln p_1 follows g,
        or RN_F(g).
        """
        if self.op.result is Result.LOG_SUM:
            return _unmeasured("the result shows no single gap")
        if self.op.result is Result.LOG_PROBABILITY and not self.wide:
            return _unmeasured(f"the result is the gap itself, rounded to {self.format.name}")
        name = "curve" if self.wide else "argument"
        x, y = self.x[name], self.y[name]
        gap = x[:, 0] - x[:, 1]
        reach = gap[y[:, 1] != 0].max(initial=0.0)
        deep = (gap > 0.5 * reach) & (gap < (0.8 * reach if self.wide else np.inf)) & (y[:, 1] != 0)
        if deep.sum() < 16:
            return _unmeasured("too few results at large gaps are above 0")
        gap, y = gap[deep], y[deep]
        apparent = (
            np.log(y[:, 0]) - np.log(y[:, 1]) if self.op.result is Result.PROBABILITY else y[:, 0] - y[:, 1]
        )
        moved = apparent - gap
        for format in (f for f in (bfloat16, float16, float32) if f.precision < self.arithmetic.precision):
            step = format.round(gap) - gap
            if np.mean((moved - step) ** 2) < np.mean(step**2) / 64:
                text = f"results at {len(gap)} gaps are those of the gap rounded to {format.name}"
                return _finding(format.name, f"{text}, which moves it by up to {np.abs(step).max():.3g}")
        if self.wide:
            run = self.y["deep"][:, 1]
            distinct = len(np.unique(run))
            if distinct < len(run) / 2:
                return _finding(
                    "coarse", f"{len(run)} neighbouring gaps give {distinct} different results only"
                )
            return _finding(
                "exact",
                f"{len(run)} neighbouring gaps give {distinct} different results, and no narrower format"
                " fits",
            )
        text = f"results at {len(gap)} gaps that {self.format.name} cannot hold follow the gaps themselves"
        spread = float(np.abs(moved).max())
        return _finding("exact", f"{text}, to {spread:.2g}")

    def _shift(self) -> dict[str, Any]:
        """The same gaps at 0 and at an offset that changes no difference, in two calls in which
        every row has its place.
        """
        self.shifted_x: list[Array] = []
        self.shifted_y: list[Array] = []
        if not self.op.keeps_length:
            return _unmeasured("the result moves with the offset and is rounded where it lies")
        grids = {offset: gaps for offset in OFFSETS if len(gaps := self._gaps_on_grid(offset)) >= 8}
        if not grids:
            return _unmeasured(f"{self.format.name} has no gaps that every offset keeps")
        here = np.concatenate([np.stack([0 * gaps, -gaps, -gaps], axis=1) for gaps in grids.values()])
        offset = np.repeat(list(grids), [len(gaps) for gaps in grids.values()])
        at_zero, at_offset = self._call(here), self._call(here + offset[:, None])
        self.shifted_x, self.shifted_y = [here + offset[:, None]], [at_offset]
        different = []
        for c in grids:
            y, y_zero = at_offset[offset == c], at_zero[offset == c]
            if not np.isfinite(y).all():
                different.append(f"not finite at offset {c:g}")
            elif not np.array_equal(y, y_zero):
                ulps = np.abs(y - y_zero) / self.format.ulp(y_zero)
                different.append(f"up to {float(ulps.max()):.3g} ulp at offset {c:g}")
        if different:
            return _finding(False, f"a common offset changes the results: {'; '.join(different)}")
        return _finding(True, f"the same bits at the offsets {', '.join(f'{c:g}' for c in grids)} as at 0")

    def _accumulate(self) -> dict[str, Any]:
        """Rows of n zeros: the exact result is 1/n, and every honest sum of ones is n
        (docs/verdict.md, section 2).
        """
        u = self.arithmetic.unit_roundoff
        total: dict[int, float] = {}
        wrong: list[int] = []
        for n in LENGTHS:
            got = self._call(np.zeros((1, n)))[0]
            if not np.isfinite(got).all():
                return _unmeasured(f"NaN or infinity for {n} zeros")
            slack = (n + 10 * math.log(n) + 3) * u
            if self.op.result is Result.PROBABILITY:
                ends = np.array([1 - slack, 1 + slack]) / n
                total[n] = 1 / float(got[0]) if got[0] else math.inf
            else:
                sign = -1.0 if self.op.result is Result.LOG_PROBABILITY else 1.0
                ends = sign * math.log(n) + np.array([-slack, slack])
                total[n] = math.exp(min(sign * float(got[0]), 700.0))
            low, high = self.format.round(ends)
            if not ((got >= low) & (got <= high)).all():
                wrong.append(n)
        longest = LENGTHS[-1]
        if not wrong:
            return _finding(
                "no stagnation", f"{longest} ones add up to {longest}, as those of every shorter row do"
            )
        size = 2 ** int(math.log2(wrong[0]))
        format = next((f.name for f in (bfloat16, float16) if f.stagnation == size), None)
        what = "stops growing" if total[longest] < 0.75 * longest else "is rounded"
        shown = longest if longest in wrong else wrong[-1]
        text = f"{shown} ones seem to add up to {total[shown]:.6g}, the first wrong sum is that of {wrong[0]}"
        if format is None:
            return _finding("unknown", f"{text}: no accumulator's format explains it")
        return _finding(format, f"{text}: it {what} as in {format}")


RUNS = (0.17329, 0.33331, 0.34657, 0.38, 0.45, 0.51986, 0.68, 1.0397)
"""Where neighbouring numbers are tried for inversions: halves of ln 2, where reductions of the
argument change step.
"""


@dataclass(frozen=True, slots=True)
class _Points:
    """Exponentials seen: the gap, the error in ulps of e^-g and relative, the error's uncertainty in ulps.

    exact: what was seen is the kernel's own exponential. even: of the gaps that are spread evenly
    over each octave.
    """

    gap: Array
    error_ulp: Array
    relative: Array
    allowance: Array
    exact: Mask
    even: Mask

    @classmethod
    def of(cls, x: Array, y: Array, format: Format) -> _Points:
        """From rows [0, -g, -h] with the sum 2 and [0, -g, far] with the sum 1, x and y [rows, 3]."""
        paired = x[:, 2] > -2 * format.exp_underflow
        second = paired & (x[:, 2] < 0)
        known = np.where(paired, y[:, 0] == 0.5, y[:, 0] == 1.0)
        gap = -np.concatenate([x[:, 1], x[second, 2]])
        normal = gap < format.exp_subnormal - 1
        gap = gap[normal]

        def of_entries(of_first: Array, of_second: Array) -> Array:
            return np.concatenate([of_first, of_second[second]])[normal]

        output = of_entries(y[:, 1], y[:, 2])
        estimate = of_entries(y[:, 1] / y[:, 0], y[:, 2] / y[:, 0])
        exact = of_entries(known, known).astype(bool)
        even = of_entries(np.ones(len(x)), np.zeros(len(x))).astype(bool)
        hi, lo = _exponentials(gap, format)
        difference = (estimate - hi) - lo
        error, relative = difference / format.ulp(hi), difference / hi
        allowance = np.where(exact, 0.0, RATIO_ULP)
        if format.precision < float64.precision:
            # A kernel whose sum is wider than its results divides by the true sum, 2 + u/2 and not
            # 2: its results are then closer to p than its exponentials seem to be to e^-g, and p is
            # what it is measured by.
            total = np.exp(x).sum(axis=1)
            p = hi / of_entries(total, total)
            of_output = (output - p) / format.ulp(p)
            if np.abs(of_output).max() < np.maximum(np.abs(error) - allowance, 0.0).max():
                error, relative, allowance = of_output, (output - p) / p, np.zeros(len(p))
        return cls(gap, error, relative, allowance, exact, even)


def _exact_arithmetic(format: Format) -> Any:
    if format.precision < float64.precision:
        return Float64()
    return Arb() if certified_tier() == "arb" else Mpmath()


def _exponentials(gaps: Array, format: Format) -> tuple[Array, Array]:
    """(hi, lo): e^-g, far below an ulp of the format."""
    arithmetic: Arithmetic = _exact_arithmetic(format)
    if isinstance(arithmetic, Float64):
        return np.exp(-gaps), np.zeros(len(gaps))
    assert isinstance(arithmetic, Arb | Mpmath)
    with arithmetic.precision(128):
        value = arithmetic.exp(arithmetic.lift(-gaps))
        hi = np.asarray(value, dtype=np.float64)
        return hi, np.asarray(value - arithmetic.lift(hi), dtype=np.float64)


def _line(gap: Array, value: Array, weight: Array) -> tuple[float, float]:
    """(slope, its standard error) of the weighted least-squares line through the values."""
    weight = weight / weight.sum()
    centred = gap - weight @ gap
    spread = float(weight @ centred**2)
    slope = float(weight @ (centred * value)) / spread
    rest = value - weight @ value - slope * centred
    return slope, math.sqrt(float(weight @ rest**2) / max(len(gap) - 2, 1) / spread)


def _growth(gap: Array, largest_u: Array, format: Format) -> dict[str, Any]:
    """Whether the largest relative error of each octave, in u, grows with the gap: everywhere, or
    while the sum is not 1.
    """
    if largest_u.max() * format.unit_roundoff > 0.5:
        return _finding(None, "undecided: some results at large gaps are no approximation of e^-g at all")
    start = float(np.median(largest_u[: max(2, len(gap) // 16)]))
    everywhere, before = gap > 0, gap < format.saturation_in_format
    for where, cause in (
        (everywhere, "a product with log2 e, or the argument itself, is rounded"),
        (before, "where the sum is not 1 its logarithm is subtracted in the exponent, which is rounded"),
    ):
        slope, _ = _line(gap[where], largest_u[where], np.ones(int(where.sum())))
        first, last = float(gap[where][0]), float(gap[where][-1])
        text = f"the largest error grows by {slope:.3g} u per unit of gap from gap {first:.3g} to {last:.4g}"
        if slope > 0.1 and slope * (last - first) > max(4.0, start):
            return _finding(True, f"{text}: {cause}")
    if start > 0.25 * float(gap[-1]):
        return _finding(
            None, f"undecided: errors of {start:.3g} u at every gap hide a growth of 1 u per unit of gap"
        )
    return _finding(False, f"the largest error is {largest_u.max():.3g} u and does not grow with the gap")


def _base(gap: Array, mean_u: Array, spread_u: Array, format: Format) -> dict[str, Any]:
    """2 where the mean signed error has the slope that log2 e leaves when it is rounded to the
    format, e where it has none.
    """
    rounded = float(format.round(LOG2_E, LOG2_E_REST))
    expected = -((rounded - LOG2_E) - LOG2_E_REST) / LOG2_E / format.unit_roundoff
    slope, error = _line(gap, mean_u, 1 / np.maximum(spread_u, 0.5) ** 2)
    text = (
        f"the mean signed error moves by {slope:.3g} ± {error:.1g} u per unit of gap; a log2 e rounded to"
        f" {format.name} moves it by {expected:.3g}, an exponential in base e by 0"
    )
    if error < abs(expected) / 8:
        if abs(slope - expected) < abs(expected) / 4:
            return _finding("2", text)
        if abs(slope) < abs(expected) / 4:
            return _finding("e", f"{text} (as does base 2 with a log2 e of more bits)")
    return _finding("unknown", text)


def _unmeasured(reason: str) -> dict[str, Any]:
    return _finding(None, f"not measured: {reason}")


def _finding(value: Any, text: str) -> dict[str, Any]:
    return {"value": value, "text": text}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
