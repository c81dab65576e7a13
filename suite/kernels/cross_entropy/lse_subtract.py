"""lse(z) - z_c, as fused losses store it: rounding lse costs |lse| units, all of them under a large
offset (pytorch#11752).
"""

from typing import Any

import torch

from suite.kernels import kernel
from suite.kernels.parts.class_loss import class_loss, kept_rows
from suite.numerics import Numerics


@kernel("cross_entropy", numerics=Numerics(shift="lse"))
def lse_subtract(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    z = kept_rows(logits, target, **options)
    m = z.detach().amax(-1, keepdim=True)
    lse = m + torch.log(torch.exp(z - m).sum(-1, keepdim=True))
    return class_loss(lse - z, target, dtype=logits.dtype, **options)
