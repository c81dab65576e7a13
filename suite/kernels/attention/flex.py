"""torch.nn.attention.flex_attention: the options as score_mod and mask_mod (Dong et al., arXiv 2412.05496).

softcap, ALiBi and an additive mask change scores; causal, window, a boolean mask and lengths hide
keys. A sink scales the output by 1 / (1 + e^(sink - lse)), as FlexAttention has no logit without a
value.

flex: without torch.compile, the whole matrix of scores by torch's own operations. flex_compiled: one
C++ or Triton kernel for each score_mod, mask_mod and shape. Shapes are constants (dynamic=False): with
symbolic ones torch 2.13 compiles no boolean mask and no softcap on the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_check import check
from suite.kernels.parts.attention_visible import Window, offset, within

Flex = Callable[..., Any]


def eager(*tensors: torch.Tensor, **given: Any) -> Any:
    from torch.nn.attention import flex_attention as module

    run: Flex = module.flex_attention
    with torch.compiler.set_stance("force_eager"):  # else it is traced all the same, anew for each score_mod
        return run(*tensors, **given)


@functools.cache
def graph() -> Flex:  # made at the first call: torch.compile takes seconds to import
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


@kernel("attention", name="flex_compiled", slow=True, constants={"run": compiled})
@kernel("attention", constants={"run": eager})
def flex(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    run: Flex,
    mask: torch.Tensor | None = None, causal: str | None = None, scale: float | None = None,
    softcap: float | None = None,
    window: Window | None = None, alibi_slopes: torch.Tensor | None = None, sink: torch.Tensor | None = None,
    enable_gqa: bool = False, kv_lengths: torch.Tensor | None = None, return_lse: bool = False,
) -> Any:  # fmt: skip
    """attention by `run`, which is called as torch's flex_attention.

    Raises ValueError as check() does, and NotImplementedError for a sink in 16 bits: the output
    that it scales is rounded by then, so it would be rounded twice.
    """
    options: dict[str, Any] = {"causal": causal, "softcap": softcap, "window": window}
    further: dict[str, Any] = {"mask": mask, "alibi_slopes": alibi_slopes, "kv_lengths": kv_lengths}
    check(q, k, v, **options, **further, sink=sink, scale=scale, enable_gqa=enable_gqa)
    if sink is not None and q.dtype in (torch.float16, torch.bfloat16):
        raise NotImplementedError(
            f"a sink in {q.dtype}: it scales an output that flex_attention has already rounded"
        )
    if q.device.type == "cpu" and torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        raise NotImplementedError("flex_attention has no backward on the CPU")
    given: dict[str, Any] = {
        "score_mod": _score_mod(q, k, **options, **further),
        "block_mask": _block_mask(q, k, **options, **further),
        "scale": scale,
        "enable_gqa": enable_gqa,
    }
    if sink is None and not return_lse:
        return run(q, k, v, **given)
    output, lse = _with_lse(run, q, k, v, **given)
    if sink is not None:
        logit = sink.to(lse.dtype)[:, None].expand_as(lse)
        output = (output * torch.exp(lse - torch.logaddexp(lse, logit)).nan_to_num(0.0)[..., None]).to(
            q.dtype
        )
        lse = torch.logaddexp(lse, logit)
    return (output, lse) if return_lse else output


def _with_lse(run: Flex, *tensors: torch.Tensor, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    from torch.nn.attention import flex_attention as module

    if hasattr(module, "AuxRequest"):  # torch 2.9 and later
        output, further = run(*tensors, **given, return_aux=module.AuxRequest(lse=True))
        return output, further.lse
    output, lse = run(*tensors, **given, return_lse=True)
    return output, lse


def _score_mod(
    q: torch.Tensor,
    k: torch.Tensor,
    *,
    softcap: float | None,
    alibi_slopes: torch.Tensor | None,
    mask: torch.Tensor | None,
    causal: str | None,
    **_: Any,
) -> Flex | None:
    compute = torch.float64 if q.dtype == torch.float64 else torch.float32
    o = offset(causal, q.shape[2], k.shape[2])
    slopes = None if alibi_slopes is None else alibi_slopes.to(compute)
    bias = None if mask is None or mask.dtype == torch.bool else _full(mask, q, k).to(compute)
    if softcap is None and slopes is None and bias is None:
        return None

    def score_mod(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        if softcap is not None:
            s = softcap * torch.tanh(s / softcap)
        if slopes is not None:
            s = s - slopes[h] * (i + o - j).abs()
        return s if bias is None else s + bias[b, h, i, j]

    return score_mod


def _block_mask(
    q: torch.Tensor,
    k: torch.Tensor,
    *,
    causal: str | None,
    window: Window | None,
    mask: torch.Tensor | None,
    kv_lengths: torch.Tensor | None,
    **_: Any,
) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    (batches, heads, length, _size), keys = q.shape, k.shape[2]
    o = offset(causal, length, keys)
    boolean = _full(mask, q, k) if mask is not None and mask.dtype == torch.bool else None
    if causal is None and window is None and boolean is None and kv_lengths is None:
        return None

    def mask_mod(b: Any, h: Any, i: Any, j: Any) -> Any:
        seen = within(i + o, j, causal=causal, window=window)
        if kv_lengths is not None:
            seen = seen & (j < kv_lengths[b])
        return seen if boolean is None else seen & boolean[b, h, i, j]

    alike = boolean is None  # for all heads
    return create_block_mask(mask_mod, batches, None if alike else heads, length, keys, device=q.device)


def _full(mask: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return mask.expand(*q.shape[:3], k.shape[2])
