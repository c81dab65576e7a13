"""The sum without its largest term, for log1p: scipy's form, and Blanchard, Higham and Higham 2021,
algorithm 4.1.
"""

from __future__ import annotations

import torch


def sum_of_others(e: torch.Tensor, largest: torch.Tensor, dim: int) -> torch.Tensor:
    """sum of e along dim but for the entry at the index `largest`, which is 1: log1p puts it back
    unrounded.
    """
    return e.scatter(dim, largest, 0.0).sum(dim, keepdim=True)
