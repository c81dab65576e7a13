"""Four parts of the keys, each attended to on its own, then merged by their lse (Flash-Decoding,
Dao et al. 2023).

    o = sum_k exp(lse_k - lse) o_k,   lse = ln sum_k exp(lse_k)

Unlike in the online algorithm each part is normalised, and each lse rounded, before they meet.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_merge import merge
from suite.kernels.parts.attention_scores import Result, Scores, normalised, of_scores
from suite.kernels.parts.partial import numerators

PARTS = 4


@kernel("attention")
@of_scores
def split_kv(scores: Scores) -> Result:
    m, _, o = scores.start()
    merged = o, m  # nothing seen, or the sink, whose lse is its logit
    for s, v in scores.blocks(max(1, -(-len(scores.key) // PARTS))):
        m_k, e = numerators(s, -1)
        d = e.sum(-1, keepdim=True)
        merged = merge(merged, (normalised(e @ v, d), m_k + torch.log(d)))
    return merged
