"""How accurate numpy's float64 exp and log are on this machine: the one assumption of the float64
tier, measured.

The tier is proved for an error of at most ASSUMED_ULP ulps. Public tables put the worst libraries
at 1.5 ulp (exp) and 0.95 ulp (log) (Gladman, Innocente, Mather and Zimmermann, hal-03141101);
vectorised code may differ, so it is measured on POINTS points against the certified tier and the
result travels with every run.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass

import numpy as np

from suite.formats import float64
from suite.ops.arithmetic import Mpmath
from suite.oracle import cache
from suite.oracle.certified import ASSUMED_ULP, certified_tier

POINTS = 100_000
POINTS_WITHOUT_FLINT = 5_000


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How accurate this machine's exp and log are."""

    exp_ulp: float
    """The largest error of exp on [-745, 0]."""

    log_ulp: float
    """The largest error of log on [1, 2^20]."""

    points: int
    """For each of the two."""

    against: str
    """The tier that they were compared with."""


def measure(points: int | None = None) -> Accuracy:
    """Measures exp and log on equally spaced points, evaluated in one vector call each as the tier does."""
    against = certified_tier()
    count = points or (POINTS if against == "arb" else POINTS_WITHOUT_FLINT)
    gaps = -np.linspace(0.0, 745.0, count)
    sums = 2.0 ** np.linspace(0.0, 20.0, count)
    return Accuracy(_largest_ulp("exp", gaps), _largest_ulp("log", sums), count, against)


def _largest_ulp(name: str, points: np.ndarray) -> float:
    with np.errstate(under="ignore"):
        computed = getattr(np, name)(points)
    ulps = float64.ulp(computed)
    if certified_tier() == "arb":
        from flint import arb, ctx

        function = getattr(arb, name)
        with ctx.workprec(128):
            error = [
                float((function(arb(x)) - y).abs_upper())
                for x, y in zip(points.tolist(), computed.tolist(), strict=True)
            ]
        return float(np.max(np.asarray(error) / ulps))
    import mpmath

    with Mpmath.precision(128):
        function = getattr(mpmath, name)
        error = [
            float(abs(function(mpmath.mpf(x)) - y))
            for x, y in zip(points.tolist(), computed.tolist(), strict=True)
        ]
    return float(np.max(np.asarray(error) / ulps))


@functools.cache
def accuracy() -> Accuracy:
    """The measurement of this machine: from the disk where the same numpy was measured on the same
    CPU, else made now.
    """
    from suite.records.environment import numpy_identity

    path = cache.default_folder() / f"libm-{numpy_identity()}.json"
    try:
        stored = Accuracy(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        stored = measure()
        cache.write_atomically(path, json.dumps(asdict(stored)).encode())
    return stored


def is_accurate() -> bool:
    """Whether the float64 tier's assumption holds here; where it does not, every row goes to the
    certified tier.
    """
    measured = accuracy()
    return measured.exp_ulp <= ASSUMED_ULP and measured.log_ulp <= ASSUMED_ULP
