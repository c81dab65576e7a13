"""(m, d) of blocks merged pairwise in a tree (arXiv 1805.02867, section 3.1), then (x - m) - log d."""

import torch

from suite.kernels import kernel
from suite.ops.parts.tree import tree_normaliser
from suite.ops.parts.wide import wide


@kernel("log_softmax")
@wide
def online_tree(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m, d = tree_normaliser(x, dim)
    return (x - m) - torch.log(d)
