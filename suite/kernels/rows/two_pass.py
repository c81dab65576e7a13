"""exp(x) as a pair: mantissa f and exponent k, exp(x) = f 2^k (Dukhan and Ablavatski, arXiv
2001.04438, algorithm 3).

    k = round(x log2 e),    f = exp(x - k ln 2),    ln 2 = high + low

    softmax  e / s,    logsumexp  K ln 2 + log s,    e = f 2^(k - K),    s = sum e,    K = max k

The exponent is a number, not a field of bits, so nothing overflows and no pass over x looks for a
maximum. The reduction x - k ln 2 takes two FMAs, without which its products would be rounded and
offsets from 1e5 on would show.
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.base_two import LN_2, LOG2_E, fma, rounded
from suite.kernels.parts.domains import product_domain
from suite.kernels.parts.partial import Pair, finite, log_sum_exp
from suite.kernels.parts.row_max import row_max
from suite.kernels.parts.upcast import upcast

LN_2_BEYOND_FLOAT64 = 2.3190468138462996e-17
LARGEST_ARGUMENT = 64.0
"""Beyond 2^31 in float32 the exponents are rounded, too; a gap is 256 there or 0, and f need only
stay finite.
"""


@kernel("softmax", "logsumexp", domain=product_domain)
@upcast
def two_pass(x: torch.Tensor, dim: int = -1, *, op: str) -> torch.Tensor:
    k, e = scaled_to_largest(x, dim)
    s = e.sum(dim, keepdim=True)
    return e / s if op == "softmax" else log_sum_exp((k * LN_2, s)).squeeze(dim)


def scaled_to_largest(x: torch.Tensor, dim: int) -> Pair:
    """(K, f 2^(k - K)) with K = max k, which keeps the dim at size 1. Powers of two are exact: K
    scales, it does not round.

    Exact to a rounding of x - k ln 2 for |x| < 1e7 in float32 and 2^50 in float64.
    """
    k = torch.round(x * LOG2_E)
    high = rounded(LN_2, x)
    low = rounded((LN_2 - high) + LN_2_BEYOND_FLOAT64, x)
    argument = fma(k, -low, fma(k, -high, x)).clamp(-LARGEST_ARGUMENT, LARGEST_ARGUMENT)
    f = torch.exp(argument).masked_fill(k == -torch.inf, 0.0)
    largest = row_max(k, dim)
    return largest, f * torch.exp2(k - finite(largest))
