"""The maximum of each row."""

from __future__ import annotations

import torch


def row_max(x: torch.Tensor, dim: int) -> torch.Tensor:
    """max x along dim, which stays with size 1; -inf where the dim is empty, as amax refuses to say."""
    if x.shape[dim] == 0:
        return torch.full_like(x.sum(dim, keepdim=True), -torch.inf)
    return x.amax(dim, keepdim=True)
