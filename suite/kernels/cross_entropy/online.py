"""Maximum and sum of exponentials in one pass over the classes (Milakov and Gimelshein, arXiv
1805.02867), then the loss.
"""

from typing import Any

import torch

from suite.kernels import kernel
from suite.kernels.parts.class_loss import class_loss, kept_rows
from suite.kernels.parts.online import online_normaliser


@kernel("cross_entropy")
def online(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    z = kept_rows(logits, target, **options)
    m, d = online_normaliser(z, -1)
    return class_loss(torch.log(d) - (z - m), target, dtype=logits.dtype, **options)
