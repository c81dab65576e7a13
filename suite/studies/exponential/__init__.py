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
from typing import TYPE_CHECKING, Any

import numpy as np

from suite.floating_point import subnormals_kept
from suite.formats import Array, Format, bfloat16, float16, float32, get_format
from suite.kernels import Kernel
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops import Result, measured_by
from suite.oracle import Oracle, Reference
from suite.records.record import Measurement
from suite.studies.exponential.errors import of_exponentials
from suite.studies.exponential.finding import Finding, Findings, finding, unmeasured
from suite.studies.exponential.rows import Rows
from suite.studies.probing import Probe, UnmeasuredError
from suite.tensors import to_float64, to_torch
from suite.verdict.judge import judge_values
from suite.verdict.judgement import Judgement
from suite.verdict.statistics import FITTING, ulp_errors

if TYPE_CHECKING:
    from suite.execution.host import Host

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

OFFSETS = (64.0, -64.0, 1024.0, 65536.0)
LENGTHS = (3, 4, 16, 17, 256, 257, 384, 512, 1024, 2048, 2049, 3072, 4096)
"""Rows of n zeros: 2^p, 2^p + 1 and 3 2^(p-1) for the precisions p of bfloat16 and float16 among them."""


def measure(kernel: Kernel, dtype: str, *, device: str = "cpu", host: Host | None = None) -> Measurement:
    """The profile of a kernel of softmax (log_softmax and logsumexp: what their results let
    through) in one format.

    dtype: a format's name; ValueError if unknown. A kernel that fails or does not support this
    gives data {"reason": ...}.
    """
    with subnormals_kept():
        return Profile(kernel, get_format(dtype), device, host).measurement()


class Profile(Probe):
    """One measurement: the rows, the kernel's answers, and a method for each finding."""

    chapter = "exponential"

    def __init__(self, kernel: Kernel, format: Format, device: str = "cpu", host: Host | None = None) -> None:
        super().__init__(kernel, format, device, host)
        self.rows = Rows(format, slow=kernel.slow)
        self.arithmetic, self.wide = self.rows.arithmetic, self.rows.wide
        self.oracle = Oracle()

    def unsupported(self) -> str | None:
        if self.chapter not in self.op.measured:
            return f"there are profiles of {', '.join(measured_by(self.chapter))} only"
        reason = super().unsupported()
        return None if reason is None else f"unsupported: {reason}"

    @np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
    def data(self) -> dict[str, Any]:
        self.x = self.rows.by_purpose()
        y = self._call(np.concatenate(list(self.x.values())))
        ends = np.cumsum([len(rows) for rows in self.x.values()])[:-1]
        self.y = dict(zip(self.x, np.split(y, ends), strict=True))
        if not np.isfinite(y).all():
            raise UnmeasuredError("returned NaN or infinity for rows of finite logits whose largest is 0")
        if self.op.result is Result.PROBABILITY and (y[:, 0] <= 0).any():
            raise UnmeasuredError("gives the largest entry of a row of three no probability above 0")
        shift = self._shift()
        softmax = self.op.result is Result.PROBABILITY
        hidden = f"the output's rounding to {self.format.name} hides it"
        if not softmax:
            hidden = (
                f"{self.op.name} shows the logarithm of the sum, in which the exponential cannot be told"
                " apart"
            )
        findings: Findings = {
            name: unmeasured(hidden) for name in ("exp_ulp", "grows_with_gap", "base", "flushes")
        }
        curve = None
        if softmax and self.wide:
            exponentials, curve = of_exponentials(self.x["curve"], self.y["curve"], self.format)
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

    def _call(self, x: Array) -> Array:
        """The kernel's output rows for x [rows, n], float64. Raises UnmeasuredError where there is none."""
        outcome = self.call_kernel(to_torch(x, self.format, self.device), self.options)
        return self.op.output_rows(to_float64(outcome.value), None, self.options)

    # Findings

    def _accuracy(self) -> Findings:
        """Judges a sample of the rows, those with an offset too, as any output is judged: output and fits."""
        reference, y, x = self._sample(np.inf, self.rows.density.judged if self.wide else 2**17)
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
            text += f", the largest error is {judgement.ratio:.3g} × the bound"
        if not self.wide:
            value["single_rounding"] = judgement.passed
            value["half_ulp"] = judgement.passed and value["max_ulp"] is not None and value["max_ulp"] < 0.51
            does = "explains all of them" if judgement.passed else "does not explain all of them"
            text += f"; one rounding of an honest {self.arithmetic.name} result {does}"
        return {"output": finding(value, text), "fits": self._fits()}

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

    def _fits(self) -> Finding:
        """The first of FITTING that every result of a sample satisfies, over all gaps, or else over
        gaps up to 16.
        """
        for reach, where in ((np.inf, ""), (16.0, " at gaps up to 16")):
            reference, y, x = self._sample(reach, self.rows.density.judged)
            for numerics in FITTING:
                if self._judged(reference, y, x, numerics).passed:
                    text = f"the tightest model that all {y.size} judged results{where} satisfy: {numerics}"
                    return finding(str(numerics), text)
        return finding(None, "no model of rounding that the judge knows fits all judged results")

    def _by_gap(self, names: tuple[str, ...], column: int) -> tuple[Array, Array]:
        """(gaps, outputs of `column`) of the rows [0, -g, far], in the order of the gaps."""
        x = np.concatenate([self.x[name] for name in names])
        y = np.concatenate([self.y[name] for name in names])
        alone = x[:, 2] < -2 * self.format.exp_underflow
        gap, order = np.unique(-x[alone, 1], return_index=True)
        return gap, y[alone][order, min(column, y.shape[1] - 1)]

    def _zero(self) -> Finding:
        gap, p = self._by_gap(("curve", "thresholds"), 1)
        f = self.format
        known = f"{f.name} ends at {f.exp_underflow:.6g}, its normal numbers at {f.exp_subnormal:.6g}"
        positive = np.flatnonzero(p != 0)
        if len(positive) == 0 or positive[-1] == len(gap) - 1:
            return finding({"zero_at": None, "kind": "other"}, f"no gap up to {gap[-1]:.6g} gives 0; {known}")
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
        return finding(
            {"zero_at": at, "kind": kind}, f"results are 0 from gap {at:.7g} on, so {words} ({known})"
        )

    def _saturation(self) -> Finding:
        gap, p = self._by_gap(("curve", "thresholds"), 0)
        limit = 1.0 if self.op.result is Result.PROBABILITY else 0.0
        quantity = {
            Result.PROBABILITY: "p_0 is 1",
            Result.LOG_PROBABILITY: "log p_0 is 0",
            Result.LOG_SUM: "the result is 0",
        }[self.op.result]
        below = np.flatnonzero(p != limit)
        if len(below) and below[-1] + 1 == len(gap):
            return finding(
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
        return finding({"at": at, "kind": kind, "format": format}, text)

    def _monotone(self) -> Finding:
        """Two neighbouring numbers in one row share its sum: where the smaller has the larger
        result, exp has an inversion.
        """
        if not self.op.keeps_length:
            return unmeasured("a row has one result only")
        x, y = self.x["neighbours"], self.y["neighbours"]
        wrong = np.flatnonzero((x[:, 2] < x[:, 1]) & (y[:, 2] > y[:, 1]))
        if len(wrong) == 0:
            return finding(0, f"no inversion in {len(x)} pairs of neighbouring gaps")
        first = float(-x[wrong, 2].max())
        return finding(
            len(wrong),
            f"{len(wrong)} inversions in {len(x)} pairs of neighbouring gaps, the first at gap {first:.9g}",
        )

    def _argument(self) -> Finding:
        """Which rounding of the gap the results show: their apparent gap ln p_0 - ln p_1 follows g,
        or RN_F(g).
        """
        if self.op.result is Result.LOG_SUM:
            return unmeasured("the result shows no single gap")
        if self.op.result is Result.LOG_PROBABILITY and not self.wide:
            return unmeasured(f"the result is the gap itself, rounded to {self.format.name}")
        name = "curve" if self.wide else "argument"
        x, y = self.x[name], self.y[name]
        gap = x[:, 0] - x[:, 1]
        reach = gap[y[:, 1] != 0].max(initial=0.0)
        deep = (gap > 0.5 * reach) & (gap < (0.8 * reach if self.wide else np.inf)) & (y[:, 1] != 0)
        if deep.sum() < 16:
            return unmeasured("too few results at large gaps are above 0")
        gap, y = gap[deep], y[deep]
        apparent = (
            np.log(y[:, 0]) - np.log(y[:, 1]) if self.op.result is Result.PROBABILITY else y[:, 0] - y[:, 1]
        )
        moved = apparent - gap
        for format in (f for f in (bfloat16, float16, float32) if f.precision < self.arithmetic.precision):
            step = format.round(gap) - gap
            if np.mean((moved - step) ** 2) < np.mean(step**2) / 64:
                text = f"results at {len(gap)} gaps are those of the gap rounded to {format.name}"
                return finding(format.name, f"{text}, which moves it by up to {np.abs(step).max():.3g}")
        if self.wide:
            run = self.y["deep"][:, 1]
            distinct = len(np.unique(run))
            if distinct < len(run) / 2:
                return finding(
                    "coarse", f"{len(run)} neighbouring gaps give {distinct} different results only"
                )
            return finding(
                "exact",
                f"{len(run)} neighbouring gaps give {distinct} different results, and no narrower format"
                " fits",
            )
        text = f"results at {len(gap)} gaps that {self.format.name} cannot hold follow the gaps themselves"
        spread = float(np.abs(moved).max())
        return finding("exact", f"{text}, to {spread:.2g}")

    def _shift(self) -> Finding:
        """The same gaps at 0 and at an offset that changes no difference, in two calls in which
        every row has its place.
        """
        self.shifted_x: list[Array] = []
        self.shifted_y: list[Array] = []
        if not self.op.keeps_length:
            return unmeasured("the result moves with the offset and is rounded where it lies")
        grids = {offset: gaps for offset in OFFSETS if len(gaps := self.rows.gaps_on_grid(offset)) >= 8}
        if not grids:
            return unmeasured(f"{self.format.name} has no gaps that every offset keeps")
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
            return finding(False, f"a common offset changes the results: {'; '.join(different)}")
        return finding(True, f"the same bits at the offsets {', '.join(f'{c:g}' for c in grids)} as at 0")

    def _accumulate(self) -> Finding:
        """Rows of n zeros: the exact result is 1/n, and every honest sum of ones is n
        (docs/verdict.md, section 2).
        """
        u = self.arithmetic.unit_roundoff
        total: dict[int, float] = {}
        wrong: list[int] = []
        for n in LENGTHS:
            got = self._call(np.zeros((1, n)))[0]
            if not np.isfinite(got).all():
                return unmeasured(f"NaN or infinity for {n} zeros")
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
            return finding(
                "no stagnation", f"{longest} ones add up to {longest}, as those of every shorter row do"
            )
        size = 2 ** int(math.log2(wrong[0]))
        format = next((f.name for f in (bfloat16, float16) if f.stagnation == size), None)
        what = "stops growing" if total[longest] < 0.75 * longest else "is rounded"
        shown = longest if longest in wrong else wrong[-1]
        text = f"{shown} ones seem to add up to {total[shown]:.6g}, the first wrong sum is that of {wrong[0]}"
        if format is None:
            return finding("unknown", f"{text}: no accumulator's format explains it")
        return finding(format, f"{text}: it {what} as in {format}")
