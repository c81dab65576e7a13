"""Best practice for 16-bit tensors: compute in float32 and round once, at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

RowKernel = Callable[..., torch.Tensor]


def upcast(function: RowKernel) -> RowKernel:
    """Makes f(x, dim, ...) compute float16 and bfloat16 tensors in float32 and round its result; wider
    ones as they are.
    """

    @functools.wraps(function)
    def upcasted(x: torch.Tensor, dim: int = -1, **given: Any) -> torch.Tensor:
        inner = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return function(inner, dim, **given).to(x.dtype)

    return upcasted
