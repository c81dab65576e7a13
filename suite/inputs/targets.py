"""Targets of cross_entropy for rows of logits: class indices, some of them ignored, or class
probabilities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.inputs.draws import Draw
from suite.settings import Kind, Part, Wording

TARGETS = ("indices", "probabilities", "ignored")
"""indices: of classes, some rows ignored. probabilities: of the classes, in the logits' format.
ignored: every row is.
"""


class Target(Kind):
    """What the targets of the rows are."""

    name = "target"
    part = Part.INPUT
    default = "indices"
    levels = TARGETS
    wordings = (Wording("target", "targ", "other targets", "with targets that are no class indices"),)


def indices(x: Array, ignore_index: int, draw: Draw) -> NDArray[np.int64]:
    """[rows]: the first class, the last, the most likely or any; of eight rows one is ignored and
    one may hit a -inf.
    """
    rows, n = x.shape
    chosen = draw.integers(max(n, 1), rows)
    for row in range(rows):
        if row % 4 == 1:
            chosen[row] = (n - 1, 0)[(row // 4) % 2]
        likely = int(np.argmax(np.where(np.isnan(x[row]), -np.inf, x[row]))) if n else 0
        if row % 4 == 2 or (n and x[row, chosen[row]] == -np.inf and row % 8 != 5):
            chosen[row] = likely
    chosen[6::8] = ignore_index
    return chosen


def probabilities(x: Array, format: Format, draw: Draw) -> Array:
    """[rows, n]: weights of `format` that sum to about 1: one-hot, dense, or with zeros, also on
    logits of -inf.
    """
    rows, n = x.shape
    weights = draw.uniform(rows, n)
    weights[1::4] *= draw.integers(2, rows, n)[1::4]
    weights[np.arange(rows) % 8 != 5] *= (x > -np.inf)[np.arange(rows) % 8 != 5]
    total = weights.sum(axis=1)
    weights /= np.where(total > 0, total, 1.0)[:, None]
    for row in range(rows):
        if row % 4 == 2 or total[row] == 0:
            weights[row] = 0.0
            weights[row, int(np.argmax(np.where(np.isnan(x[row]), -np.inf, x[row])))] = 1.0
    return format.round(weights)
