"""Parts of a row side by side, then merged, in Triton."""

import torch

from suite.kernels import triton_kernel


@triton_kernel("softmax", "log_softmax", "logsumexp")
def triton_split(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    from suite.kernels.parts.triton_split import split

    return split(op, x, dim)
