"""Maximum and sum in one pass over the row (Milakov and Gimelshein, arXiv 1805.02867), then m + log d."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.online import online_normaliser
from suite.kernels.parts.partial import logarithm
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp")
@upcast
def online(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m, d = online_normaliser(x, dim)
    infinite = m == torch.inf
    return torch.where(infinite, m, m + logarithm(d)).squeeze(dim)
