"""torch.nn.attention.flex_attention without torch.compile: the whole matrix of scores, by torch's
own operations.
"""

from typing import Any

import torch

from suite.kernels import kernel
from suite.kernels.parts import attention_flex
from suite.kernels.parts.attention_visible import Window


@kernel("attention")
def flex(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    mask: torch.Tensor | None = None, causal: str | None = None, scale: float | None = None,
    softcap: float | None = None,
    window: Window | None = None, alibi_slopes: torch.Tensor | None = None, sink: torch.Tensor | None = None,
    enable_gqa: bool = False, kv_lengths: torch.Tensor | None = None, return_lse: bool = False,
) -> Any:  # fmt: skip
    from torch.nn.attention import flex_attention as module

    flex_attention: attention_flex.Flex = module.flex_attention

    def eager(*tensors: torch.Tensor, **given: Any) -> Any:
        with torch.compiler.set_stance(
            "force_eager"
        ):  # else it is traced all the same, anew for each score_mod
            return flex_attention(*tensors, **given)

    return attention_flex.flex(
        eager, q, k, v, mask=mask, causal=causal, scale=scale, softcap=softcap, window=window,
        alibi_slopes=alibi_slopes,
        sink=sink, enable_gqa=enable_gqa, kv_lengths=kv_lengths, return_lse=return_lse,
    )  # fmt: skip
