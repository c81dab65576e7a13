"""Small numerical defects from issue trackers, tried on what is installed here."""

from __future__ import annotations

import math

import numpy as np

from suite.formats import Array, bfloat16
from suite.studies.claims import Finding, NotRunHereError, claim
from suite.studies.claims.thresholds import sum_of_ones
from suite.verdict.judge import judge


@claim(
    name="pytorch-38839",
    source="issue pytorch/pytorch#38839",
    published="-1, -2 instead of -1.0986, -1.5514",
    criterion=(
        'reproduced if the bound of log_softmax refuses torch\'s output, as it would have then; "differs"'
        " means mended"
    ),
    seconds=0.5,
)
def log_softmax_with_an_offset() -> Finding:
    """log_softmax of rand(4, 3) - 10^7 in float32 loses the logarithm in the large maximum and
    returns rounded numbers.
    """
    import torch

    # rand - 1e7 in float32 is one of these two numbers.
    x = np.array(
        [[a, b, c] for a in (-1e7, -9999999.0) for b in (-1e7, -9999999.0) for c in (-1e7, -9999999.0)]
    )
    output = torch.log_softmax(torch.from_numpy(x).float(), 1)
    judgement = judge("log_softmax", torch.from_numpy(x).float(), output)
    shown = ", ".join(
        f"{value:.4f}" for value in sorted(set(np.round(output.double().numpy().ravel(), 4)), reverse=True)
    )
    return Finding(
        measured=shown, agrees=not judgement.passed, note=f"torch {torch.__version__}: {judgement.status}"
    )


@claim(
    name="executorch-20090",
    source="pull request pytorch/executorch#20090",
    published="1/256, not 1/512",
    criterion="equal, with the arithmetic emulated; torch's own kernel beside it",
    seconds=0.1,
)
def bfloat16_denominator() -> Finding:
    """Softmax of 512 equal logits gives 1/256 each where the denominator is a bfloat16."""
    import torch

    emulated = float(bfloat16.round(1 / sum_of_ones(512, bfloat16)))
    here = float(torch.softmax(torch.zeros(512, dtype=torch.bfloat16), 0)[0])
    return Finding(
        measured=f"1/{1 / emulated:.0f}",
        agrees=emulated == 1 / 256,
        note=f"torch.softmax here: 1/{1 / here:.0f}",
    )


def without_the_largest_term(x: Array) -> Array:
    """log_softmax as the issue proposes: log1p of the sum without the largest term."""
    tmp = x - x.max()
    e = np.exp(tmp)
    e[x.argmax()] = 0.0
    return np.asarray(tmp - np.log1p(e.sum()))


@claim(
    name="scipy-19521",
    source="issue scipy/scipy#19521",
    published="-1.3839e-87",
    criterion=(
        "the proposed form within 4 ulps of float64 of -e^-200 and scipy's own result 0, as the issue says"
    ),
    seconds=0.3,
)
def log_softmax_near_zero() -> Finding:
    """log_softmax([0, -200])[0] is -e^-200 to full accuracy by log1p without the largest term,
    where scipy returns 0.
    """
    import torch

    try:
        import scipy
        from scipy.special import log_softmax
    except ImportError:
        raise NotRunHereError("needs scipy") from None
    x, exact = np.array([0.0, -200.0]), -math.exp(-200)
    proposed, scipys = float(without_the_largest_term(x)[0]), float(log_softmax(x)[0])
    torchs = float(torch.log_softmax(torch.from_numpy(x), 0)[0])
    return Finding(
        measured=f"proposed {proposed:.4e}, scipy {scipys:.4g}, torch {torchs:.4g}",
        agrees=abs(proposed - exact) <= 4 * math.ulp(exact) and scipys == 0,
        note=(
            f"scipy {scipy.__version__}; an error of 1.4e-87 is inside every absolute bound, so that 0 is no"
            " failure"
        ),
    )
