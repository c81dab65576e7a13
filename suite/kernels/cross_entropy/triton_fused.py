"""Loss and gradient in Triton, each in its own pass over the classes."""

from typing import Any

import torch

from suite.kernels import triton_kernel


@triton_kernel("cross_entropy")
def triton_fused(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    from suite.kernels.parts.triton_cross_entropy import cross_entropy

    return cross_entropy(logits, target, **options)
