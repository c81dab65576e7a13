"""Maximum and sum in one pass over the row (Milakov and Gimelshein, arXiv 1805.02867), then the result."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.online import online_normaliser
from suite.kernels.parts.partial import finish
from suite.kernels.parts.upcast import upcast


@kernel("softmax", "log_softmax", "logsumexp")
@upcast
def online(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    return finish(op, x, online_normaliser(x, dim), dim)
