"""Maximum and sum in one pass over the row (Milakov and Gimelshein, arXiv 1805.02867), then (x - m)
- log d.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.online import online_normaliser
from suite.kernels.parts.upcast import upcast


@kernel("log_softmax")
@upcast
def online(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    m, d = online_normaliser(x, dim)
    return (x - m) - torch.log(d)
