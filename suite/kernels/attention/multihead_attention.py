"""torch.nn.MultiheadAttention, with identity projections, by both of its ways to the same output.

With the weights asked for, it scales q, stores the scores and their softmax in the tensors' own
format; without, it calls scaled_dot_product_attention. Its fast path is for self-attention alone,
where q, k and v are one tensor, and is not taken.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_multihead import multihead
from suite.kernels.parts.attention_visible import Window
from suite.numerics import Numerics


@kernel("attention", numerics=Numerics(scores="input", probabilities="input"))
def multihead_attention_weights(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    mask: torch.Tensor | None = None, causal: str | None = None, window: Window | None = None,
    kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    return multihead(q, k, v, mask, causal, window, kv_lengths, need_weights=True)


@kernel("attention")
def multihead_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    mask: torch.Tensor | None = None, causal: str | None = None, window: Window | None = None,
    kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    return multihead(q, k, v, mask, causal, window, kv_lengths, need_weights=False)
