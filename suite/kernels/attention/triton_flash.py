"""FlashAttention in Triton, both passes, float32 products without tf32."""

import torch

from suite.kernels import triton_kernel


@triton_kernel("attention", dtypes=("float32", "bfloat16", "float16"))
def triton_flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    causal: str | None = None, scale: float | None = None, softcap: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    from suite.kernels.parts.triton_attention_backward import attention

    o, lse = attention(q, k, v, causal=causal, scale=scale, softcap=softcap, enable_gqa=enable_gqa)
    return (o, lse) if return_lse else o
