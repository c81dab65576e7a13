"""What this machine can do at best, measured in the same run: how fast it copies, and how fast it
multiplies matrices.

A time means something beside these two: a kernel that only moves data cannot beat the copy (out of
a cache it can), and one that multiplies cannot beat the product. Each takes less than a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suite.timing import cpu, cuda

SECONDS = 0.3
"""The budget of each of the two."""

CACHES = 4
"""The copied tensor is so many times as large as the last-level cache, so that it comes from memory."""

CUDA_COPY_BYTES = 2**30
MATRIX, CUDA_MATRIX = 1024, 8192
"""Rows and columns of the square matrices."""


def copy_bytes_per_second(device: str) -> float:
    """Bytes read and written a second by a copy in memory, with torch's present threads."""
    import torch

    size = CUDA_COPY_BYTES if device.startswith("cuda") else CACHES * cpu.last_level_cache_bytes()
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * size / _median_seconds(lambda: target.copy_(source), device)


def matmul_operations_per_second(device: str, dtype: str) -> float:
    """Floating-point operations a second of a product of square matrices of this format, with
    torch's present threads.
    """
    import torch

    n = CUDA_MATRIX if device.startswith("cuda") else MATRIX
    matrix = torch.full((n, n), 1 / n, dtype=getattr(torch, dtype), device=device)
    return 2 * n**3 / _median_seconds(lambda: matrix @ matrix, device)


def _median_seconds(call: Callable[[], Any], device: str) -> float:
    if device.startswith("cuda"):
        return cuda.measure(call, device=device, budget_seconds=SECONDS).median.value
    return cpu.measure(call, budget_seconds=SECONDS).median.value
