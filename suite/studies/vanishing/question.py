"""Rows of logits with an upstream gradient, their exact gradient, and what is counted of a kernel's."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.inputs.draws import Draw
from suite.ops import Result

NORMALISED = (Result.PROBABILITY, Result.AVERAGE)
"""Results through whose weights every entry of an upstream gradient reaches every logit."""

COUNTS = ("zero", "false_zero", "flushed", "top_lost", "dead", "defect", "gain", "exact_gain", "not_finite")
"""zero: share of entries that are exactly 0; false_zero, flushed: shares of entries. top_lost:
share of rows in which the gradient of the largest logit, a normal number, is off by more than half,
0 included. dead: share of rows, all of whose entries are 0. defect: |sum dx - what it should be| /
sum |dx|, the mean over rows that are alive, None without one. gain, exact_gain: |dx| / |upstream|,
Euclidean norms over all rows. not_finite: share of entries.
"""

FLOORS = ("underflow", "dead_floor")
"""What no kernel of the format avoids: shares of entries, and of rows in all entries, whose exact
gradient rounds to 0.
"""

SCALE_ROWS = 64
SCALE_LENGTH = 256
HEAD_SIZE = 64


@dataclass(frozen=True, eq=False)
class Question:
    """Rows of logits and an upstream gradient: numbers of the format that is asked about."""

    logits: Array
    """[rows, n]."""

    upstream: Array
    """[rows, n] for softmax and attention, else [rows, 1]."""

    target: NDArray[np.int64]
    """[rows]; softmax, attention and logsumexp do not look at it."""

    @functools.cached_property
    def top(self) -> NDArray[np.int64]:
        return np.asarray(self.logits.argmax(1)[:, None])

    @functools.cached_property
    def parts(self) -> tuple[Array, Array]:
        """(p, 1 - p), each without cancellation: 1 - p of the largest entry is the sum of the others."""
        e = np.exp(self.logits - np.take_along_axis(self.logits, self.top, 1))
        others = e.copy()
        np.put_along_axis(others, self.top, 0.0, 1)
        others_sum = others.sum(1, keepdims=True)
        p = e / (1.0 + others_sum)
        rest = 1.0 - p
        np.put_along_axis(rest, self.top, others_sum / (1.0 + others_sum), 1)
        return p, rest

    def exact(self, result: Result) -> Array:
        """The gradient [rows, n] in float64. g - sum p g is taken from the largest entry's g, where
        p is all but 1.
        """
        p, rest = self.parts
        if result in NORMALISED:
            centred = self.upstream - np.take_along_axis(self.upstream, self.top, 1)
            return np.asarray(p * (centred - (p * centred).sum(1, keepdims=True)))
        if result is Result.LOG_SUM:
            return np.asarray(self.upstream * p)
        gradient, target = -p, self.target[:, None]
        np.put_along_axis(gradient, target, np.take_along_axis(rest, target, 1), 1)
        return np.asarray(self.upstream * (gradient if result is Result.LOG_PROBABILITY else -gradient))

    def entropy(self) -> tuple[float, float]:
        """(mean, mean lower bound) of the rows' entropy, nats.

        ln(1 + (n - 1) b) + s sqrt(n (n - 1)) b / (1 + (n - 1) b), s the norm of the centred logits,
        b = exp(-s sqrt(n/(n-1))) (Zhai et al., arXiv 2303.06296, theorem 3.1, which has the
        spectral norm of the logits for s).
        """
        p, n = self.parts[0], self.logits.shape[1]
        entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(1)
        spread = np.linalg.norm(self.logits - self.logits.mean(1, keepdims=True), axis=1)
        share = np.exp(-spread * math.sqrt(n / (n - 1)))
        bound = np.log1p((n - 1) * share) + spread * math.sqrt(n * (n - 1)) * share / (1 + (n - 1) * share)
        return float(entropy.mean()), float(bound.mean())


def counts(
    got: Array, exact: Array, question: Question, format: Format, *, total: Array | float = 0.0
) -> dict[str, float | None]:
    """COUNTS and FLOORS of a gradient [rows, n] against the exact one. total: what the entries of a
    row add up to, exactly.
    """
    zero, rounded = got == 0, format.round(exact)
    normal = np.abs(exact) >= format.smallest_normal
    off = np.abs(got - exact) > np.abs(exact) / 2
    alive = np.isfinite(got).all(1) & ~zero.all(1)
    kept = got[alive]
    with np.errstate(over="ignore"):
        left = np.abs(kept.sum(1) - np.broadcast_to(total, (len(got),))[alive])
        defect = left / np.abs(kept).sum(1)
    finite = np.where(np.isfinite(got), got, 0.0)
    return {
        "zero": float(zero.mean()),
        "false_zero": float((zero & normal).mean()),
        "flushed": float((zero & ~normal & (rounded != 0)).mean()),
        "top_lost": float(np.take_along_axis(off & normal, question.top, 1).mean()),
        "dead": float(zero.all(1).mean()),
        "defect": float(defect.mean()) if len(defect) else None,
        "gain": float(np.linalg.norm(finite) / np.linalg.norm(question.upstream)),
        "exact_gain": float(np.linalg.norm(exact) / np.linalg.norm(question.upstream)),
        "not_finite": float((~np.isfinite(got)).mean()),
        "underflow": float((rounded == 0).mean()),
        "dead_floor": float((rounded == 0).all(1).mean()),
    }


@functools.cache
def unit_logits() -> tuple[Array, Array]:
    """Logits q.k / sqrt(d) [rows, n] of standard normal q and k, a query a row; and those of q and
    k over their root mean squares, as QK-norm has them: at most sqrt(d) in magnitude, whatever q is
    multiplied by.
    """
    draw = Draw("vanishing/attention")
    query, key = draw.normal(SCALE_ROWS, HEAD_SIZE), draw.normal(SCALE_ROWS, SCALE_LENGTH, HEAD_SIZE)
    logits = np.einsum("re,rne->rn", query, key) / math.sqrt(HEAD_SIZE)
    sizes = np.sqrt((query**2).mean(-1))[:, None] * np.sqrt((key**2).mean(-1))
    return logits, logits / sizes


@functools.cache
def normal_rows(rows: int, n: int, key: str) -> Array:
    return Draw(f"vanishing/{key}/{rows}x{n}").normal(rows, n)
