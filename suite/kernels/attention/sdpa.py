"""torch.nn.functional.scaled_dot_product_attention, one kernel a backend, and never another one
under its name.

What the function has no argument for (a window, lengths, causal "bottom_right") becomes part of its
mask. A backend that refuses a call raises NotImplementedError with torch's reason.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_sdpa import sdpa
from suite.kernels.parts.attention_visible import Window


@kernel("attention")
def sdpa_math(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    mask: torch.Tensor | None = None, causal: str | None = None, scale: float | None = None,
    window: Window | None = None,
    enable_gqa: bool = False, kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    return sdpa("MATH", q, k, v, mask, causal, scale, window, enable_gqa, kv_lengths)


@kernel("attention")
def sdpa_flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    mask: torch.Tensor | None = None, causal: str | None = None, scale: float | None = None,
    window: Window | None = None,
    enable_gqa: bool = False, kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    return sdpa("FLASH_ATTENTION", q, k, v, mask, causal, scale, window, enable_gqa, kv_lengths)


@kernel("attention", devices=("cuda",))
def sdpa_efficient(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    mask: torch.Tensor | None = None, causal: str | None = None, scale: float | None = None,
    window: Window | None = None,
    enable_gqa: bool = False, kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    return sdpa("EFFICIENT_ATTENTION", q, k, v, mask, causal, scale, window, enable_gqa, kv_lengths)


@kernel("attention", devices=("cuda",))
def sdpa_cudnn(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    mask: torch.Tensor | None = None, causal: str | None = None, scale: float | None = None,
    window: Window | None = None,
    enable_gqa: bool = False, kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    return sdpa("CUDNN_ATTENTION", q, k, v, mask, causal, scale, window, enable_gqa, kv_lengths)
