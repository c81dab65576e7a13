"""(m, d) of blocks merged pairwise in a tree (arXiv 1805.02867, section 3.1), then m + log d."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.partial import log_sum_exp
from suite.kernels.parts.tree import tree_normaliser
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp")
@upcast
def online_tree(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return log_sum_exp(tree_normaliser(x, dim)).squeeze(dim)
