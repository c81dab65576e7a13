"""The compensated sum of Kahan and Neumaier: what each addition loses is kept and added at the end.

A. Neumaier, Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen, ZAMM 54 (1974),
algorithm IV.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

LANES = 128


def neumaier(terms: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(total, lost): the running sum of the terms in their order, and the sum of its rounding errors."""
    total = lost = torch.zeros_like(terms[0])
    for term in terms:
        new = total + term
        lost = lost + torch.where(total.abs() >= term.abs(), (total - new) + term, (term - new) + total)
        total = new
    return total, lost


def compensated_sum(e: torch.Tensor, dim: int) -> torch.Tensor:
    """sum of e along dim, which stays with size 1: LANES interleaved sums, as vector registers hold
    them, halved to one.
    """
    rows = e.movedim(dim, -1)
    n = rows.shape[-1]
    padded = torch.nn.functional.pad(rows, (0, max(-(-n // LANES), 1) * LANES - n))
    lanes, lost = neumaier(torch.split(padded, LANES, -1))
    while lanes.shape[-1] > 1:
        left, right = lost.chunk(2, -1)
        lanes, more = neumaier(lanes.chunk(2, -1))
        lost = left + right + more
    return (lanes + lost).movedim(-1, dim)
