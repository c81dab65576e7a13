"""torch.logsumexp: the framework's own kernel."""

import torch

from suite.kernels import kernel


@kernel("logsumexp")
def fused(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return torch.logsumexp(x, dim)
