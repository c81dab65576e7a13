"""torch.softmax: the framework's own fused kernel."""

import torch

from suite.kernels import kernel


@kernel("softmax")
def fused(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return torch.softmax(x, dim)
