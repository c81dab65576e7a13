"""The textbook formulas from exp(x_j), in the tensor's own format. They overflow where theory says so.

softmax  e / s,    log_softmax  x - log s,    logsumexp  log s,        e = exp(x),  s = sum e
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.domains import unshifted_domain
from suite.numerics import Numerics


@kernel(
    "softmax",
    "log_softmax",
    "logsumexp",
    numerics=Numerics(shift="none", probabilities="input"),
    domain=unshifted_domain,
)
def naive(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    e = torch.exp(x)
    s = e.sum(dim, keepdim=True)
    if op == "softmax":
        return e / s
    return x - torch.log(s) if op == "log_softmax" else torch.log(s).squeeze(dim)
