"""p_j = exp(s_j) / sum_j exp(s_j): no maximum is taken out, so exp overflows from s = 88.7 on, and
vanishes below -104.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_domains import unshifted_domain
from suite.kernels.parts.attention_scores import Result, Scores, normalised, of_scores
from suite.numerics import Numerics


@kernel("attention", numerics=Numerics(shift="none"), domain=unshifted_domain)
@of_scores
def naive(scores: Scores) -> Result:
    e = torch.exp(scores.final())
    d = e.sum(-1, keepdim=True)
    if scores.sink is not None:
        d = d + torch.exp(scores.sink)
    return normalised(e, d) @ scores.v, torch.log(d)
