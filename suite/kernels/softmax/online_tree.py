"""(m, d) of blocks merged pairwise in a tree (arXiv 1805.02867, section 3.1), then one pass of exp."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.tree import tree_normaliser
from suite.kernels.parts.upcast import upcast


@kernel("softmax")
@upcast
def online_tree(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m, d = tree_normaliser(x, dim)
    return torch.exp(x - m) / d
