"""A formula through torch.compile, and never anything else under that name."""

from __future__ import annotations

import functools
from typing import Any

import torch

from suite.kernels.parts.upcast import RowKernel

GRAPHS = 4
"""Kinds of input at a time, of all functions, whose graphs count as one's; a law that sets a global
switch makes a second.
"""

_SEEN: set[tuple[object, ...]] = set()


def compiled(function: RowKernel) -> RowKernel:
    """Makes f(x, dim, ...) a graph of torch.compile; shapes are symbolic, but for sizes 0 and 1, and
    each dtype is a graph.

    torch.compile keeps 8 graphs of a function and then runs it eagerly, or raises, with fullgraph.
    Here the graphs are dropped before that, and the ninth is compiled. Every other way back to
    eager (TORCH_COMPILE_DISABLE, suppress_errors) is a RuntimeError. Raises what the compiler
    raises, where there is none, say.
    """

    @functools.wraps(function)
    def traced(x: torch.Tensor, dim: int, **given: Any) -> torch.Tensor:
        if not torch.compiler.is_compiling():  # a constant of the graph: only an eager run gets here
            raise RuntimeError("torch.compile ran this function eagerly")
        return function(x, dim, **given)

    @functools.cache
    def graph() -> RowKernel:  # made at the first call: torch.compile takes seconds to import
        return torch.compile(traced, fullgraph=True, dynamic=True)

    @functools.wraps(function)
    def call(x: torch.Tensor, dim: int = -1, **given: Any) -> torch.Tensor:
        from torch._dynamo.exc import FailOnRecompileLimitHit

        kind = (
            function,
            *given.items(),
            x.dtype,
            dim,
            x.is_contiguous(),
            *(min(size, 2) for size in x.shape),
        )
        if kind not in _SEEN and len(_SEEN) == GRAPHS:
            torch.compiler.reset()
            _SEEN.clear()
        _SEEN.add(kind)
        try:
            return graph()(x, dim, **given)
        except FailOnRecompileLimitHit:
            torch.compiler.reset()
            return graph()(x, dim, **given)

    return call
