"""Maximum and sum by blocks of columns, one rescale a block (arXiv 1805.02867, tiled), then m + log d."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.blocked import blocked_normaliser
from suite.kernels.parts.partial import log_sum_exp
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp")
@upcast
def online_blocked(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return log_sum_exp(blocked_normaliser(x, dim)).squeeze(dim)
