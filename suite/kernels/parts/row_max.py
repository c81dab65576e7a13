"""The maximum of each row."""

from __future__ import annotations

import torch


def row_max(x: torch.Tensor, dim: int) -> torch.Tensor:
    """max x along dim, which stays with size 1; -inf where the dim is empty, as amax refuses to say.

    It has no gradient: no result depends on what is taken out of the exponents, and through it the
    rounding errors of a whole row's gradient would be added to the gradient of its largest entry.
    """
    if x.shape[dim] == 0:
        return torch.full_like(x.sum(dim, keepdim=True), -torch.inf)
    return x.detach().amax(dim, keepdim=True)
