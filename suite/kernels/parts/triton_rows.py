"""What the Triton kernels share on the host: a tensor as rows, and a launch, compiled on CUDA and
interpreted on the CPU.

A kernel is written once, with @triton.jit. Triton decides when it is imported whether everything is
compiled or interpreted (TRITON_INTERPRET); here the launch decides, so that one process can do
both. For that the kernels use builtins of triton.language only: tl.max, tl.sum and tl.zeros are
jitted functions themselves, tl.reduce and tl.full are not.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import triton  # noqa: TID253  (this module is imported inside kernels only)
import triton.language as tl  # noqa: TID253
from triton.runtime import interpreter  # noqa: TID253
from triton.runtime.interpreter import InterpretedFunction  # noqa: TID253
from triton.runtime.jit import KernelInterface  # noqa: TID253

from suite.kernels.parts.triton_configuration import configuration

Compute = Callable[[str, torch.Tensor, torch.Tensor], None]


def over_rows(compute: Compute, op: str, x: torch.Tensor, dim: int) -> torch.Tensor:
    """The result of an op along a dim of x, from compute(op, rows, result), which fills result.

    rows: [rows, n] with any strides, a view of x wherever one exists. result: contiguous, [rows,
    n], or [rows] for logsumexp.
    """
    moved = x.movedim(dim, -1)
    shape = moved.shape[:-1] if op == "logsumexp" else moved.shape
    if x.numel() == 0:
        empty = x.new_full(shape, -torch.inf)  # the logsumexp of an empty row; the others have no entries
        return empty if op == "logsumexp" else empty.movedim(-1, dim)
    rows = moved.reshape(-1, moved.shape[-1])
    # The interpreter's bfloat16 is not the device's: it truncates where the device rounds, and it
    # loses subnormal numbers. https://github.com/triton-lang/triton/pull/10945
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        rows = rows.float()
    result = torch.empty(
        rows.shape[:1] if op == "logsumexp" else rows.shape, dtype=rows.dtype, device=x.device
    )
    compute(op, rows, result)
    result = result.to(x.dtype).reshape(shape)
    return result if op == "logsumexp" else result.movedim(-1, dim)


def arithmetic(x: torch.Tensor) -> tl.dtype:
    """The format that kernels compute in."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def rows_per_program(block: int, entries: int) -> int:
    """How many rows of `block` entries make up `entries`, both powers of two; at least one."""
    return max(1, entries // block)


def launch(
    kernel: KernelInterface[Any], grid: tuple[int, ...], *arguments: torch.Tensor | int, **constants: Any
) -> None:
    """Runs a @triton.jit kernel once for every program of the grid, on the device of its first argument.

    Raises NotImplementedError on a device where TRITON_INTERPRET would have it interpreted.
    """
    x = arguments[0]
    assert isinstance(x, torch.Tensor)
    if x.device.type == "cpu":
        _interpret(kernel, grid, *arguments, **constants)
    elif isinstance(kernel, InterpretedFunction):
        raise NotImplementedError(f"TRITON_INTERPRET is set: nothing can be compiled for {x.device}")
    else:
        with torch.cuda.device(x.device):
            kernel[grid](*arguments, **constants)


@contextlib.contextmanager
def _range_of_scalars() -> Iterator[None]:
    """Lets the interpreter count to a scalar of a kernel, range(0, end): with numpy 2.4 Triton 3.6 does not
    (triton-lang/triton#9171). On a device it is range() that loads ahead, not while.
    """
    original = getattr(interpreter, "_patch_lang_tensor", None)
    if original is None:  # another Triton
        yield
        return

    def patched(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
    try:
        yield
    finally:
        interpreter._patch_lang_tensor = original


def _interpret(
    kernel: KernelInterface[Any], grid: tuple[int, ...], *arguments: torch.Tensor | int, **constants: Any
) -> None:
    """numpy's warnings are the interpreter's: -inf - -inf is NaN on a device without a word."""
    interpreted = kernel if isinstance(kernel, InterpretedFunction) else InterpretedFunction(kernel.fn)
    with np.errstate(all="ignore"), warnings.catch_warnings(), _range_of_scalars():
        warnings.simplefilter("ignore")
        interpreted[grid](*arguments, **constants)


def as_rows(x: torch.Tensor, dim: int) -> torch.Tensor:
    """x [rows, n] with dim last, a view where one exists. bfloat16 becomes float32 for the
    interpreter, as in over_rows().
    """
    rows = x.movedim(dim, -1).reshape(-1, x.shape[dim])
    return rows.float() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else rows


def as_tensor(rows: torch.Tensor, x: torch.Tensor, dim: int) -> torch.Tensor:
    """Rows in the layout of x again, rounded to its dtype."""
    return rows.to(x.dtype).reshape(x.movedim(dim, -1).shape).movedim(-1, dim)


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype of what is kept for each row: that of the arithmetic."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def tiling(rows: torch.Tensor) -> tuple[tuple[int, ...], dict[str, Any]]:
    """(grid, constants) of a launch whose programs hold a block of at most the configured entries
    at a time.
    """
    chosen = configuration("rows", rows.device)
    block = min(chosen["entries"], triton.next_power_of_2(rows.shape[1]))
    ROWS = rows_per_program(block, chosen["entries"])
    constants = {"FORMAT": arithmetic(rows), "ROWS": ROWS, "BLOCK": block, "num_warps": chosen["warps"]}
    return (triton.cdiv(len(rows), ROWS),), constants
