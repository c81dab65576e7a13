"""log sum_j exp(z_j - m) - (z_c - m), m = max z: the target's gap and a logarithm, neither of which
an offset can round.
"""

from typing import Any

import torch

from suite.kernels import kernel
from suite.kernels.parts.class_loss import class_loss, kept_rows


@kernel("cross_entropy")
def shifted(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    z = kept_rows(logits, target, **options)
    z = z - z.detach().amax(-1, keepdim=True)
    surprisal = torch.log(torch.exp(z).sum(-1, keepdim=True)) - z
    return class_loss(surprisal, target, dtype=logits.dtype, **options)
