"""The online algorithm, where the maximum moves only once it has grown by a factor of 256
(FlashAttention-4, arXiv 2603.05451).

Weights are then up to 2^8, which float32 holds as well as those up to 1; most blocks need no rescale.
"""

import math

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_scores import Result, Scores, normalised, of_scores
from suite.kernels.parts.partial import finite
from suite.kernels.parts.row_max import row_max

BLOCK = 64
THRESHOLD = math.log(256)


@kernel("attention")
@of_scores
def online_threshold(scores: Scores) -> Result:
    m, d, o = scores.start()
    for s, v in scores.blocks(BLOCK):
        largest = row_max(s, -1)
        m_new = torch.where(largest > m + THRESHOLD, largest, m)
        rescale, p = torch.exp(m - finite(m_new)), torch.exp(s - finite(m_new))
        d = d * rescale + p.sum(-1, keepdim=True)
        o = o * rescale + p @ v
        m = m_new
    return normalised(o, d), m + torch.log(d)
