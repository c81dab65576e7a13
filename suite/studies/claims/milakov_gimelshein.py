"""Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867."""

from __future__ import annotations

import numpy as np

from suite.formats import Array, float32
from suite.inputs import all_families, build
from suite.studies.claims import Finding, claim

ROWS, N = 16, 33


def running_normalisers(x: Array) -> Array:
    """d_j of every row [rows, n] by the paper's recurrence in float32: d <- d exp(m - m') + exp(x_j - m')."""
    m = x[:, 0].astype(np.float32)
    d = np.ones_like(m)
    history = [d]
    for column in x.T[1:].astype(np.float32):
        larger = np.maximum(m, column)
        d = d * np.exp(m - larger) + np.exp(column - larger)
        m = larger
        history.append(d)
    return np.stack(history, axis=1).astype(np.float64)


@claim(
    name="online-normaliser-range",
    source="Milakov and Gimelshein, arXiv 1805.02867, section 3",
    published="1 <= d_j <= j",
    criterion="on every finite row of every input family, in float32",
    seconds=0.5,
)
def normaliser_range() -> Finding:
    """The online normaliser stays between 1 and the number of elements so far, so that it can
    neither overflow nor vanish.
    """
    smallest, largest, count = np.inf, 0.0, 0
    for name, family in all_families().items():
        rows, n = family.fixed_shape or (ROWS, N)
        x = build(name, rows, n, float32, 0)
        x = x[np.isfinite(x).all(axis=1)]
        if len(x) == 0:
            continue
        with np.errstate(under="ignore", over="ignore"):
            d = running_normalisers(x)
        smallest = min(smallest, float(d.min()))
        largest = max(largest, float((d / np.arange(1, n + 1)).max()))
        count += len(x)
    return Finding(
        measured=f"d_j >= {smallest:.7g}, d_j / j <= {largest:.7g}",
        agrees=smallest >= 1 and largest <= 1,
        note=f"{count} rows",
    )
