"""softmax and logsumexp with the whole row in one block, log_softmax block by block, in Triton."""

import torch

from suite.kernels import triton_kernel


@triton_kernel("softmax", "log_softmax", "logsumexp")
def triton_fused(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    from suite.kernels.parts import triton_fused, triton_log_softmax, triton_softmax_backward

    if op == "softmax":
        return triton_softmax_backward.softmax(x, dim)
    return triton_log_softmax.log_softmax(x, dim) if op == "log_softmax" else triton_fused.fused(op, x, dim)
