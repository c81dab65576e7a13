"""Maximum and sum by blocks of columns, one rescale a block (arXiv 1805.02867, tiled), then (x - m)
- log d.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.blocked import blocked_normaliser
from suite.kernels.parts.upcast import upcast


@kernel("log_softmax")
@upcast
def online_blocked(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m, d = blocked_normaliser(x, dim)
    return (x - m) - torch.log(d)
