"""The errors of a kernel's exponential, over all gaps: how large, whether they grow, and in which base."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suite.formats import LN2, Array, Format, float64
from suite.studies.exponential.exact import exponentials
from suite.studies.exponential.finding import Finding, Findings, finding, unmeasured

Mask = NDArray[np.bool_]

RATIO_ULP = 3.0
"""p_1 / p_0 in place of e^-g: the kernel's two divisions and this one, each within u; a relative 3
u is below 3 ulps.
"""
BUCKETS = 64
LOG2_E = 1.4426950408889634
LOG2_E_REST = 2.0355273740931033e-17
"""log2 e - LOG2_E."""


def of_exponentials(x: Array, y: Array, format: Format) -> tuple[Findings, dict[str, list[float]]]:
    """exp_ulp, grows_with_gap and base, and the curve, from the rows whose sum is a power of two."""
    points = Points.of(x, y, format)
    u = format.unit_roundoff
    least = np.maximum(np.abs(points.error_ulp) - points.allowance, 0.0)
    largest = int(np.argmax(least))
    near = float(least[points.gap < LN2].max())
    text = (
        f"largest error {least[largest]:.3g} ulp, at gap {points.gap[largest]:.6g}, and {near:.3g} ulp up"
        f" to gap ln 2; of {len(least)} exponentials, {points.exact.mean():.0%} of them known exactly,"
        f" the rest to {RATIO_ULP:g} ulp"
    )
    findings = {"exp_ulp": finding(float(least[largest]), text)}
    if points.exact.mean() < 0.05:
        findings["exp_ulp"] = unmeasured(
            "the largest entry is hardly ever 1/2 in rows of sum 2, so that no sum is known"
        )

    octave = np.floor(points.gap / LN2).astype(int)
    groups = [points.relative[points.even & (octave == k)] / u for k in range(octave.max() + 1)]
    known = [k for k, errors in enumerate(groups) if len(errors)]
    gaps = (np.array(known) + 0.5) * LN2
    mean = np.array([groups[k].mean() for k in known])
    spread = np.array([groups[k].std() for k in known])
    largest_u = np.array([np.abs(groups[k]).max() for k in known])
    findings["grows_with_gap"] = _growth(gaps, largest_u, format)
    findings["base"] = _base(gaps, mean, spread, format)
    if largest_u.max() * u > 0.5:
        findings["base"] = finding(
            "unknown", "some results at large gaps are no approximation of e^-g at all"
        )
    return findings, _curve(points, least, format)


def _curve(points: Points, least: Array, format: Format) -> dict[str, list[float]]:
    u, reach = format.unit_roundoff, format.exp_subnormal
    bucket = np.minimum((points.gap / reach * BUCKETS).astype(int), BUCKETS - 1)
    curve: dict[str, list[float]] = {"gap": [], "exp_ulp": [], "signed_u": [], "allowed_u": []}
    for k in np.unique(bucket):
        inside = bucket == k
        gap = (float(k) + 0.5) * reach / BUCKETS
        curve["gap"].append(round(gap, 4))
        curve["exp_ulp"].append(_short(float(least[inside].max())))
        curve["signed_u"].append(_short(float(points.relative[inside].mean()) / u))
        curve["allowed_u"].append(_short(2.25 * gap + 6))
    return curve


@dataclass(frozen=True, slots=True)
class Points:
    """Exponentials that were seen, [points] each."""

    gap: Array

    error_ulp: Array
    """The error in ulps of e^-g."""

    relative: Array
    """The same error, relative."""

    allowance: Array
    """How uncertain the error is, in ulps."""

    exact: Mask
    """What was seen is the kernel's own exponential."""

    even: Mask
    """Of the gaps that are spread evenly over each octave."""

    @classmethod
    def of(cls, x: Array, y: Array, format: Format) -> Points:
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
        hi, lo = exponentials(gap, format)
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


def _line(gap: Array, value: Array, weight: Array) -> tuple[float, float]:
    """(slope, its standard error) of the weighted least-squares line through the values."""
    weight = weight / weight.sum()
    centred = gap - weight @ gap
    spread = float(weight @ centred**2)
    slope = float(weight @ (centred * value)) / spread
    rest = value - weight @ value - slope * centred
    return slope, math.sqrt(float(weight @ rest**2) / max(len(gap) - 2, 1) / spread)


def _growth(gap: Array, largest_u: Array, format: Format) -> Finding:
    """Whether the largest relative error of each octave, in u, grows with the gap: everywhere, or
    while the sum is not 1.
    """
    if largest_u.max() * format.unit_roundoff > 0.5:
        return finding(None, "undecided: some results at large gaps are no approximation of e^-g at all")
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
            return finding(True, f"{text}: {cause}")
    if start > 0.25 * float(gap[-1]):
        return finding(
            None, f"undecided: errors of {start:.3g} u at every gap hide a growth of 1 u per unit of gap"
        )
    return finding(False, f"the largest error is {largest_u.max():.3g} u and does not grow with the gap")


def _base(gap: Array, mean_u: Array, spread_u: Array, format: Format) -> Finding:
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
            return finding("2", text)
        if abs(slope) < abs(expected) / 4:
            return finding("e", f"{text} (as does base 2 with a log2 e of more bits)")
    return finding("unknown", text)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
