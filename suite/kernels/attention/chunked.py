"""Chunks of sqrt(S) keys, each with its own maximum, which meet once, at the end (Rabe and Staats,
arXiv 2112.05682, fig. 1).

o = sum_c exp(m_c - m) o_c,   d = sum_c exp(m_c - m) d_c,   m = max m_c

Queries come in chunks too, as there: what is kept of all chunks of keys is then small beside the scores.
"""

import math

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_scores import Result, Scores, normalised, of_scores
from suite.kernels.parts.partial import finite, numerators

QUERIES = 192


@kernel("attention")
@of_scores
def chunked(scores: Scores) -> Result:
    starts = range(0, max(len(scores.query), 1), QUERIES)
    outputs, lses = zip(
        *(of_queries(scores.part(queries=slice(i, i + QUERIES))) for i in starts), strict=True
    )
    return torch.cat(outputs, 2), torch.cat(lses, 2)


def of_queries(scores: Scores) -> Result:
    chunks = [scores.start()]
    for s, v in scores.blocks(max(1, math.isqrt(len(scores.key)))):
        m_c, e_c = numerators(s, -1)
        chunks.append((m_c, e_c.sum(-1, keepdim=True), e_c @ v))
    m_c, d_c, o_c = (torch.stack(part) for part in zip(*chunks, strict=True))
    m = m_c.amax(0)
    weight = torch.exp(m_c - finite(m))
    d = (weight * d_c).sum(0)
    return normalised((weight * o_c).sum(0), d), m + torch.log(d)
