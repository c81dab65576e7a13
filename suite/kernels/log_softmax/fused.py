"""torch.log_softmax: the framework's own fused kernel."""

import torch

from suite.kernels import kernel


@kernel("log_softmax")
def fused(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return torch.log_softmax(x, dim)
