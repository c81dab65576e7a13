"""The closed places at which gradients vanish, in every format that a kernel may compute in."""

from __future__ import annotations

import math
import statistics

from suite.formats import FORMATS, Format
from suite.ops import Result
from suite.studies.grid import Formulas
from suite.studies.thresholds import arithmetics, saturation_formulas
from suite.studies.vanishing.question import NORMALISED, SCALE_LENGTH

LENGTH_SCALE = 4.0
"""The logit scale of the rows whose length grows."""


def saturations(format: Format, n: int) -> Formulas:
    """Gaps g of (0, -g, ..., -g) at which the gradient of the first entry, (n - 1) e^-g or so, is
    0: where p is 1, and for a kernel that knows 1 - p itself where that underflows: "zero", or
    "others" where it is the sum of the others' gradients. Names as in thresholds.py, evaluated for
    every format inside.
    """
    found = saturation_formulas(Result.PROBABILITY, format, n)
    for f in arithmetics(format):
        found[f"rounded {f.name}"] = f.saturation_rounded(n)
        found[f"zero {f.name}"] = f.exp_underflow + math.log(n - 1)
        found[f"others {f.name}"] = losses(Result.PROBABILITY, f, n).get(f"zero {f.name}")
    return {name: value for name, value in found.items() if value is not None and value <= format.largest}


def losses(result: Result, format: Format, n: int) -> Formulas:
    """Gaps at which the gradient of the others, p or p times that of the first, is 0, or below the
    normal numbers.

    With m = n - 1, e = e^-g: e / (1 + m e) = t has the solution t / (1 - m t), e / (1 + m e)^2 = t
    the smaller root 2 t / (1 - 2 m t + sqrt(1 - 4 m t)).
    """
    found: Formulas = {}
    for f in arithmetics(format):
        for name, t in (
            (f"zero {f.name}", f.smallest_subnormal / 2),
            (f"flushed {f.name}", f.smallest_normal),
        ):
            share = (n - 1) * t
            if result in NORMALISED and share < 0.25:
                found[name] = -_log(t) - math.log(2 / (1 - 2 * share + math.sqrt(1 - 4 * share)))
            elif result not in NORMALISED and share < 1:
                found[name] = -_log(t) + math.log1p(-share)
    return {name: value for name, value in found.items() if value is not None and value <= format.largest}


def _log(t: float) -> float:
    """ln t; half the smallest subnormal of float64 is 0 in float64."""
    return math.log(t) if t > 0 else -FORMATS["float64"].exp_underflow


def median_maximum(n: int) -> float:
    """The median of the largest of n standard normal numbers: the gap of a typical logit, in
    standard deviations.
    """
    return statistics.NormalDist().inv_cdf(0.5 ** (1 / n))


def theory_of_scale(format: Format) -> dict[str, float]:
    """Logit scales: at which e^-g of the median entry rounds to 0, and at which p of the median row
    rounds to 1.

    The gap between the two largest of n normal numbers is all but exponential with mean 1/a, a the
    typical largest (spacings of extremes, Renyi 1953), so its median is ln 2 / a.
    """
    largest = median_maximum(SCALE_LENGTH)
    return {
        "underflow": format.exp_underflow / largest,
        "rounded": format.saturation_rounded(2) * largest / math.log(2),
        "absorbed": format.saturation_in_format * largest / math.log(2),
    }


def theory_of_length(format: Format) -> dict[str, float]:
    """The row length at which e^-g of the median entry rounds to 0: ln 2 / -ln Phi(c / scale), c
    the threshold; longer ones than 2^53 are left out. Longer rows saturate less, so there is no
    such length for that.
    """
    gap = format.exp_underflow / LENGTH_SCALE
    tail = math.erfc(gap / math.sqrt(2)) / 2
    n = math.log(2) / -math.log1p(-tail) if tail > 0 else math.inf
    return {"underflow": n} if n < 2**53 else {}


def theory_of_gap(format: Format) -> dict[str, float]:
    """Gaps of a row of two."""
    return {
        "underflow": format.exp_underflow,
        "rounded": format.saturation_rounded(2),
        "absorbed": format.saturation_in_format,
    }
