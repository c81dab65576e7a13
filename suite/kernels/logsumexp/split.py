"""m + log d with (m, d) from parts of the row that meet once, as the key splits of Flash-Decoding do."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.partial import log_sum_exp
from suite.kernels.parts.split import split_row
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp")
@upcast
def split(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    _, pair = split_row(x, dim)
    return log_sum_exp(pair).squeeze(dim)
