"""exp(x_i - m_k) exp(m_k - m) / d: each part of the row has its own maximum and exponentials; only
(m_k, d_k) meet.

As Flash-Decoding splits keys and tensor parallelism splits a vocabulary: an entry is never read again.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.split import split_row
from suite.kernels.parts.upcast import upcast


@kernel("softmax")
@upcast
def split(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    own, (m, d) = split_row(x, dim)
    return torch.cat([e_k * (torch.exp(m_k - m) / d) for m_k, e_k in own], dim)
