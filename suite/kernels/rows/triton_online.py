"""Running maximum and sum over blocks of the row, in Triton."""

import torch

from suite.kernels import triton_kernel


@triton_kernel("softmax", "log_softmax", "logsumexp")
def triton_online(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    from suite.kernels.parts.triton_online import online

    return online(op, x, dim)
