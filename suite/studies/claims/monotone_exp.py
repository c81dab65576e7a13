"""A larger logit should never get a smaller probability; with numpy's float32 exp it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.studies.claims import Finding, NotRunHereError, claim
from suite.studies.claims.math_libraries import numpy_capability

Singles = NDArray[np.float32]
ROWS, N = 200, 4096


def consecutive() -> Singles:
    """All float32 numbers of [-0.5, -0.25], ascending."""
    low, high = (int(np.float32(end).view(np.uint32)) for end in (-0.25, -0.5))
    return np.arange(high, low - 1, -1).astype(np.uint32).view(np.float32)


def inversions(function: Callable[[Singles], Any], x: Singles) -> int:
    """How often the value falls from one number of the ascending x to the next."""
    return int((np.diff(np.asarray(function(x))) < 0).sum())


@claim(
    name="numpy-exp-not-monotone",
    source="an earlier measurement of this project, on an Intel Xeon with AVX-512",
    published="1397",
    criterion="the same count",
    seconds=0.2,
)
def numpy_inversions() -> Finding:
    """numpy.exp in float32 is not monotone: so often it falls from one number of [-0.5, -0.25] to
    the next.
    """
    count = inversions(np.exp, consecutive())
    return Finding(measured=f"{count}", agrees=count == 1397, note=numpy_capability("exp"))


@claim(
    name="torch-exp-monotone",
    source="an earlier measurement of this project, on an Intel Xeon with AVX-512",
    published="0",
    criterion="the same count",
    seconds=0.2,
)
def torch_inversions() -> Finding:
    """torch.exp in float32 never falls from one number of [-0.5, -0.25] to the next."""
    import torch

    count = inversions(lambda x: torch.exp(torch.from_numpy(x)), consecutive())
    return Finding(
        measured=f"{count}",
        agrees=count == 0,
        note=f"CPU capability {torch.backends.cpu.get_cpu_capability()}",
    )


def rows_with_an_inversion(softmax: Callable[[Singles], Any]) -> int:
    """Of ROWS rows, 0 and N - 1 consecutive ascending float32 numbers, those in which a larger
    logit gets less.
    """
    x = consecutive()
    starts = np.arange(ROWS) * ((len(x) - N) // ROWS)
    rows = np.stack([np.append(x[start : start + N - 1], np.float32(0)) for start in starts])
    return int((np.diff(np.asarray(softmax(rows)), axis=1) < 0).any(axis=1).sum())


@claim(
    name="scipy-softmax-order",
    source="an earlier measurement of this project, on other rows: 29 of 200, torch 0",
    published="some; torch 0",
    criterion="only the sign: some rows of scipy's are out of order, none of torch's",
    seconds=0.3,
)
def scipy_rows() -> Finding:
    """scipy.special.softmax in float32 gives a larger logit a smaller probability on some rows;
    torch.softmax does not.
    """
    import torch

    try:
        from scipy.special import softmax
    except ImportError:
        raise NotRunHereError("needs scipy") from None
    scipy_count = rows_with_an_inversion(lambda rows: softmax(rows, axis=1))
    torch_count = rows_with_an_inversion(lambda rows: torch.softmax(torch.from_numpy(rows), 1))
    return Finding(
        measured=f"{scipy_count} of {ROWS}; torch {torch_count}",
        agrees=scipy_count > 0 and torch_count == 0,
        note=f"rows of 0 and {N - 1} consecutive numbers of [-0.5, -0.25]",
    )
