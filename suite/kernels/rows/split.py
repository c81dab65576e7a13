"""A row in a fixed number of parts, each with its own maximum and exponentials; only (m_k, d_k) meet.

    softmax  exp(x_i - m_k) exp(m_k - m) / d

Flash-Decoding splits keys like this, tensor parallelism a vocabulary. The softmax reads no entry again.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.partial import finish, merge, numerators
from suite.kernels.parts.upcast import upcast

PARTS = 8


@kernel("softmax", "log_softmax", "logsumexp")
@upcast
def split(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    own = [numerators(part, dim) for part in torch.tensor_split(x, PARTS, dim)]  # empty parts in a short row
    m, d = merge([(m_k, e_k.sum(dim, keepdim=True)) for m_k, e_k in own])
    if op == "softmax":
        return torch.cat([e_k * (torch.exp(m_k - m) / d) for m_k, e_k in own], dim)
    return finish(op, x, (m, d), dim)
