"""Block by block with a running maximum m, sum d and output o (FlashAttention-2, arXiv 2307.08691,
algorithm 1).

    m' = max(m, max s),   d' = d exp(m - m') + sum exp(s - m'),   o' = o exp(m - m') + exp(s - m') v

The order of one row is that of the algorithm; its blocks of queries, which never meet, are one here.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_scores import Result, Scores, normalised, of_scores
from suite.kernels.parts.partial import finite
from suite.kernels.parts.row_max import row_max


def tiled(scores: Scores, *, block: int = 64) -> Result:
    m, d, o = scores.start()
    for s, v in scores.blocks(block):
        m_new = torch.maximum(m, row_max(s, -1))
        rescale, p = torch.exp(m - finite(m_new)), torch.exp(s - finite(m_new))
        d = d * rescale + p.sum(-1, keepdim=True)
        o = o * rescale + p @ v
        m = m_new
    return normalised(o, d), m + torch.log(d)


@kernel("attention")
@of_scores
def online(scores: Scores) -> Result:
    return tiled(scores)


@kernel("attention")
@of_scores
def online_block_16(scores: Scores) -> Result:
    return tiled(scores, block=16)
