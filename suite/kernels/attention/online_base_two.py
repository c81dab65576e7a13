"""The online algorithm with exp2(fma(s, c, -m c)), c = log2(e): FlashAttention's exponent (arXiv
2307.08691, section 3.1).

The product m c is rounded: an error of up to u |m| in every exponent, which cancels in the quotient
until m moves (docs/verdict.md, section 14). The lse leaves base two at the end: (m c + log2 d) ln
2.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_domains import folded_domain
from suite.kernels.parts.attention_scores import Result, Scores, normalised, of_scores
from suite.kernels.parts.base_two import LN_2, LOG2_E, fma, rounded
from suite.kernels.parts.partial import finite
from suite.kernels.parts.row_max import row_max

BLOCK = 64


@kernel("attention", domain=folded_domain)
@of_scores
def online_base_two(scores: Scores) -> Result:
    m, d, o = scores.start()
    c = rounded(LOG2_E, m)
    for s, v in scores.blocks(BLOCK):
        m_new = torch.maximum(m, row_max(s, -1))
        rescale, p = torch.exp2((m - finite(m_new)) * c), torch.exp2(fma(s, c, -finite(m_new) * c))
        d = d * rescale + p.sum(-1, keepdim=True)
        o = o * rescale + p @ v
        m = m_new
    return normalised(o, d), (m * c + torch.log2(d)) * LN_2
