"""FlashAttention-2 with its backward pass, which computes P again instead of keeping it (arXiv
2307.08691, algorithm 2).

    P = exp(s - lse),   D = rowsum(do o) - dlse,   ds = P (do v^T - D),   dv = P^T do,   dsink = -sum
                        exp(sink - lse) D

and from ds the gradients of what s is made of, so dq = scale ds k and dk = scale ds^T q where s =
scale q k^T. Kept between the passes: q, k, v and o in their own format, lse in float32. The forward
pass is `online`; blocks of queries are one here.
"""

from __future__ import annotations

from functools import partial

import torch

from suite.kernels import kernel
from suite.kernels.attention.online import tiled
from suite.kernels.parts.attention_backward import Gradients, finite_entries, with_backward
from suite.kernels.parts.attention_scores import Result, Scores
from suite.kernels.parts.partial import finite


def gradients(
    scores: Scores,
    o: torch.Tensor,
    lse: torch.Tensor,
    d_o: torch.Tensor,
    d_lse: torch.Tensor,
    *,
    block: int = 64,
) -> Gradients:
    """o, d_o: [B, H, L, Ev]; lse, d_lse: [B, H, L, 1]."""
    found = Gradients.zeros(scores)
    delta = (d_o * o).sum(-1, keepdim=True) - d_lse
    if scores.sink is not None and found.sink is not None:
        found.sink.sub_((torch.exp(scores.sink - finite(lse)) * delta).sum((0, 2, 3))[:, None, None])
    for start in range(0, len(scores.key), block):
        keys = slice(start, start + block)
        part = scores.part(keys=keys)
        p = torch.exp(part.final() - finite(lse))
        d_s = torch.where(p == 0, 0.0, p * (d_o @ finite_entries(part.v).mT - delta))
        found.v[:, :, keys] = p.mT @ d_o
        found.add(part, d_s, keys)
    return found


@kernel("attention")
@with_backward(gradients)
def recompute(scores: Scores) -> Result:
    return tiled(scores)


@kernel("attention")
@with_backward(partial(gradients, block=16))
def recompute_block_16(scores: Scores) -> Result:
    return tiled(scores, block=16)
