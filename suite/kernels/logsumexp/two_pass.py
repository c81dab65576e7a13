"""K ln 2 + log sum_j f_j 2^(k_j - K): exponentials as pairs f 2^k, no pass for a maximum (arXiv
2001.04438).
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.base_two import LN_2
from suite.kernels.parts.domains import product_domain
from suite.kernels.parts.partial import log_sum_exp
from suite.kernels.parts.two_pass import scaled_to_largest
from suite.kernels.parts.upcast import upcast


@kernel("logsumexp", domain=product_domain)
@upcast
def two_pass(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    k, e = scaled_to_largest(x, dim)
    return log_sum_exp((k * LN_2, e.sum(dim, keepdim=True))).squeeze(dim)
