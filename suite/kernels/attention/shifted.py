"""softmax(s) v, s of the whole row: p_j = exp(s_j - m) / sum_j exp(s_j - m), m = max s (Vaswani et
al. 2017, equation 1).
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_scores import Result, Scores, normalised, of_scores
from suite.kernels.parts.partial import finite
from suite.kernels.parts.row_max import row_max


@kernel("attention")
@of_scores
def shifted(scores: Scores) -> Result:
    s = scores.final()
    if scores.sink is not None:
        s = torch.cat([s, scores.column(0.0) + scores.sink], -1)
    m = row_max(s, -1)
    e = torch.exp(s - finite(m))
    d = e.sum(-1, keepdim=True)
    return normalised(e, d)[..., : scores.v.shape[2]] @ scores.v, m + torch.log(d)
