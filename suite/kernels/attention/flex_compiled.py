"""torch.nn.attention.flex_attention through torch.compile: one C++ or Triton kernel for each
score_mod, mask_mod and shape.

Shapes are constants (dynamic=False): with symbolic ones torch 2.13 compiles no boolean mask and no
softcap on the CPU.
"""

import functools
from typing import Any

import torch

from suite.kernels import kernel
from suite.kernels.parts import attention_flex
from suite.kernels.parts.attention_visible import Window


@functools.cache
def graph() -> attention_flex.Flex:  # made at the first call: torch.compile takes seconds to import
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, fullgraph=True, dynamic=False)


def compiled(*tensors: torch.Tensor, **given: Any) -> Any:
    """fullgraph: nothing of it runs eagerly. Raises NotImplementedError with torch's reason where
    the compiler refuses.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit
    from torch._inductor.exc import InductorError

    try:
        return graph()(*tensors, **given)
    except FailOnRecompileLimitHit:  # torch keeps 8 graphs of a function
        torch.compiler.reset()
        return graph()(*tensors, **given)
    except InductorError as error:
        why = str(error).partition("NotImplementedError: ")[2].partition("\n")[0]
        if not why:
            raise
        raise NotImplementedError(why) from None


@kernel("attention", slow=True)
def flex_compiled(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    mask: torch.Tensor | None = None, causal: str | None = None, scale: float | None = None,
    softcap: float | None = None,
    window: Window | None = None, alibi_slopes: torch.Tensor | None = None, sink: torch.Tensor | None = None,
    enable_gqa: bool = False, kv_lengths: torch.Tensor | None = None, return_lse: bool = False,
) -> Any:  # fmt: skip
    return attention_flex.flex(
        compiled, q, k, v, mask=mask, causal=causal, scale=scale, softcap=softcap, window=window,
        alibi_slopes=alibi_slopes,
        sink=sink, enable_gqa=enable_gqa, kv_lengths=kv_lengths, return_lse=return_lse,
    )  # fmt: skip
