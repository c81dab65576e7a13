"""m + log d with (m, d) from parts of the row that meet once, as the key splits of Flash-Decoding do."""

import torch

from suite.kernels import kernel
from suite.ops.parts.partial import log_sum_exp
from suite.ops.parts.split import split_row
from suite.ops.parts.wide import wide


@kernel("logsumexp")
@wide
def split(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    _, pair = split_row(x, dim)
    return log_sum_exp(pair).squeeze(dim)
