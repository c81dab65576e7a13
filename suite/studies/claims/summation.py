"""Whether the error of a softmax denominator grows like sqrt(n), as random rounding errors would have it."""

from __future__ import annotations

import numpy as np

from suite.formats import Array, Format, float16, float32
from suite.inputs.draws import Draw
from suite.studies.claims import Finding, claim

SOURCE = (
    "Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019: n u may be replaced by sqrt(n) u under independent"
    " errors"
)
FACTOR = 8  # lambda: a plain sqrt(n) u, tried first, is exceeded on ordinary rows
CRITERION = (
    f"error at most {FACTOR} sqrt(n) u, whose probability of failure is below 10^-9 if the errors are"
    " independent"
)


def sequential_error(terms: Array, f: Format) -> float:
    """|sum in order in the format - exact sum| / exact sum, in units of u."""
    total = 0.0
    rounded = f.round
    for term in terms:
        total = float(rounded(total + term))
    exact = float(terms.sum())
    return abs(total - exact) / exact / f.unit_roundoff


@claim(
    name="sqrt-rule-equal-float16",
    source=SOURCE,
    published="lambda sqrt(n) u",
    criterion=CRITERION,
    seconds=0.1,
)
def equal_terms() -> Finding:
    """The denominator of 4,096 equal logits in float16, summed in order, has an error of the order
    of sqrt(n) u.
    """
    error = sequential_error(np.ones(4096), float16)
    ratio = error / np.sqrt(4096)
    return Finding(
        measured=f"{error:.0f} u = {ratio:.1f} sqrt(n) u",
        agrees=bool(ratio <= FACTOR),
        note="the sum stays at 2048",
    )


@claim(
    name="sqrt-rule-normal-float32",
    source=SOURCE,
    published="lambda sqrt(n) u",
    criterion=CRITERION,
    seconds=0.1,
)
def normal_logits() -> Finding:
    """The denominators of 16,384 logits from 4 N(0,1) in float32, summed in order, have errors of
    the order of sqrt(n) u.
    """
    x = Draw("claims: sqrt rule").normal(8, 16_384) * 4
    terms = float32.round(np.exp(x - x.max(axis=1, keepdims=True)))
    in_order = np.add.accumulate(terms.astype(np.float32), axis=1)[:, -1].astype(np.float64)
    errors = (in_order - terms.sum(axis=1)) / terms.sum(axis=1) / float32.unit_roundoff
    ratios = np.abs(errors) / np.sqrt(x.shape[1])
    return Finding(
        measured=f"{ratios.min():.2f} to {ratios.max():.2f} sqrt(n) u",
        agrees=bool((ratios <= FACTOR).all()),
        note=(
            f"every row above sqrt(n) u: {bool((ratios > 1).all())}; "
            f"mean signed error {errors.mean():.0f} u: terms far below the sum "
            "are absorbed, a bias"
        ),
    )
