"""torch.nn.functional.scaled_dot_product_attention, one kernel a backend, and never another one
under its name.

What the function has no argument for (a window, lengths, causal "bottom_right") becomes part of its
mask. A backend that refuses a call raises NotImplementedError with torch's reason.
"""

import warnings

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_check import check
from suite.kernels.parts.attention_visible import Window, as_mask

REFUSALS = ("No available kernel", "No viable backend")
"""How the message of torch begins where the only backend that is allowed does not take the call."""


@kernel("attention", name="sdpa_cudnn", devices=("cuda",), constants={"backend": "CUDNN_ATTENTION"})
@kernel("attention", name="sdpa_efficient", devices=("cuda",), constants={"backend": "EFFICIENT_ATTENTION"})
@kernel("attention", name="sdpa_flash", constants={"backend": "FLASH_ATTENTION"})
@kernel("attention", name="sdpa_math", constants={"backend": "MATH"})
def sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *,
    backend: str,
    mask: torch.Tensor | None = None, causal: str | None = None, scale: float | None = None,
    window: Window | None = None,
    enable_gqa: bool = False, kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """[B, H, L, Ev]. is_causal where nothing but causal "top_left" hides a key, else a mask.

    backend: a name of torch.nn.attention.SDPBackend.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    check(
        q, k, v, mask=mask, causal=causal, scale=scale, window=window, enable_gqa=enable_gqa,
        kv_lengths=kv_lengths,
    )  # fmt: skip
    is_causal = causal == "top_left" and mask is None and window is None and kv_lengths is None
    given = (
        None if is_causal else as_mask(q, k, mask=mask, causal=causal, window=window, kv_lengths=kv_lengths)
    )
    with warnings.catch_warnings(record=True) as reasons, sdpa_kernel(getattr(SDPBackend, backend)):
        warnings.simplefilter("always")
        try:
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=given, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
            )
        except RuntimeError as error:
            if not str(error).startswith(REFUSALS):
                raise
            why = " ".join(str(reason.message).partition(" (Triggered")[0] for reason in reasons)
            raise NotImplementedError(why or str(error)) from None
