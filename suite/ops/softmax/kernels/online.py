"""Maximum and sum in one pass over the row, then one pass of exp (Milakov and Gimelshein, arXiv 1805.02867)."""

import torch

from suite.kernels import kernel
from suite.ops.parts.online import online_normaliser
from suite.ops.parts.wide import wide


@kernel("softmax")
@wide
def online(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m, d = online_normaliser(x, dim)
    return torch.exp(x - m) / d
