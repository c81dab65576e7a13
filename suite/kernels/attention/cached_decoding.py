"""One query at a time against a cache: the keys that have become visible are appended, then the
query attends to all of it.

With a causal mask, or a window that ends, the cache holds what query i may see at most, and its
tail holds NaN; else all keys are there from the first step on, as in cross attention. The row of
scores is a product of a matrix and a vector.
"""

from dataclasses import replace

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_scores import Result, Scores, normalised, of_scores
from suite.kernels.parts.partial import finite
from suite.kernels.parts.row_max import row_max

LONGEST = 4096


@kernel("attention")
@of_scores
@torch.no_grad()  # a cache is for inference; what is written into it has no gradient
def cached_decoding(scores: Scores) -> Result:
    length, keys = len(scores.query), len(scores.key)
    if length > LONGEST:
        raise NotImplementedError(f"takes at most {LONGEST} queries, not {length}: each is a step of Python")
    k_cache, v_cache = torch.full_like(scores.k, torch.nan), torch.full_like(scores.v, torch.nan)
    filled, (m, d, o) = 0, scores.start()
    for i, last in enumerate(_last_visible(scores)):
        end = min(max(last + 1, filled), keys)
        k_cache[:, :, filled:end], v_cache[:, :, filled:end] = (
            scores.k[:, :, filled:end],
            scores.v[:, :, filled:end],
        )
        filled, one = end, slice(i, i + 1)
        step = scores.part(queries=one, keys=slice(0, filled))
        s = replace(step, k=k_cache[:, :, :filled]).final()
        m_i = torch.maximum(m[:, :, one], row_max(s, -1))
        e = torch.exp(s - finite(m_i))
        d[:, :, one] = d[:, :, one] * torch.exp(m[:, :, one] - finite(m_i)) + e.sum(-1, keepdim=True)
        m[:, :, one], o[:, :, one] = m_i, e @ v_cache[:, :, :filled]
    return normalised(o, d), m + torch.log(d)


def _last_visible(scores: Scores) -> list[int]:
    """The last key that each query may see by its position alone."""
    reach = 0 if scores.causal else (scores.window or (None, None))[1]
    return [len(scores.key) - 1 if reach is None else int(i) + reach for i in scores.query[:, 0].tolist()]
