"""log sum_j exp(x_j), in the tensor's own format. Overflows where theory says so."""

import torch

from suite.kernels import kernel
from suite.kernels.parts.domains import unshifted_domain
from suite.numerics import Numerics


@kernel("logsumexp", numerics=Numerics(shift="none", probabilities="input"), domain=unshifted_domain)
def naive(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return torch.log(torch.exp(x).sum(dim))
