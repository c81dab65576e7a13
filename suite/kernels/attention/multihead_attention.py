"""torch.nn.MultiheadAttention, with identity projections, by both of its ways to the same output.

With the weights asked for, it scales q, stores the scores and their softmax in the tensors' own
format; without, it calls scaled_dot_product_attention. Its fast path is for self-attention alone,
where q, k and v are one tensor, and is not taken.

Its inner attention has heads side by side, [B, L, H E]. An identity is exact for finite numbers. A
token that holds an infinity is NaN in all heads behind it, 0 x inf being NaN.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_check import check
from suite.kernels.parts.attention_visible import Window, as_mask
from suite.numerics import Numerics


@kernel("attention", constants={"need_weights": False})
@kernel(
    "attention",
    name="multihead_attention_weights",
    numerics=Numerics(scores="input", probabilities="input"),
    constants={"need_weights": True},
)
def multihead_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    need_weights: bool,
    mask: torch.Tensor | None = None, causal: str | None = None, window: Window | None = None,
    kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """[B, H, L, E]. Raises NotImplementedError where the module has no such heads: values of another
    size, heads that are shared.
    """
    check(q, k, v, mask=mask, causal=causal, window=window, kv_lengths=kv_lengths)
    (batches, heads, length, size), keys = q.shape, k.shape[2]
    if v.shape[3] != size:
        raise NotImplementedError(f"values have the head size of the queries, {size}, not {v.shape[3]}")
    module = _module(heads, size, q)
    seen = as_mask(q, k, mask=mask, causal=causal, window=window, kv_lengths=kv_lengths)
    attn_mask = None
    if seen is not None:
        full = seen.expand(batches, heads, length, keys).reshape(batches * heads, length, keys)
        attn_mask = ~full if full.dtype == torch.bool else full  # True is hidden there
    tokens = (x.transpose(1, 2).reshape(batches, x.shape[2], heads * size) for x in (q, k, v))
    output: torch.Tensor = module(*tokens, attn_mask=attn_mask, need_weights=need_weights)[0]
    return output.view(batches, length, heads, size).transpose(1, 2)


def _module(heads: int, size: int, like: torch.Tensor) -> torch.nn.MultiheadAttention:
    width = heads * size
    with torch.device("meta"):  # drawn weights would take numbers from the global generator
        module = torch.nn.MultiheadAttention(width, heads, bias=False, batch_first=True, dtype=like.dtype)
    module = module.to_empty(device=like.device)
    identity = torch.eye(width, dtype=like.dtype, device=like.device)
    with torch.no_grad():
        module.in_proj_weight.copy_(identity.repeat(3, 1))
        module.out_proj.weight.copy_(identity)
    return module.eval().requires_grad_(False)
