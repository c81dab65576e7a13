"""Maximum and sum in one pass over the row, then one pass of exp (Milakov and Gimelshein, arXiv
1805.02867).
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.online import online_normaliser
from suite.kernels.parts.upcast import upcast


@kernel("softmax")
@upcast
def online(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m, d = online_normaliser(x, dim)
    return torch.exp(x - m) / d
