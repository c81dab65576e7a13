"""Calling kernels of other array libraries: the same bits in their arrays, and back. Conversions
are outside the clock.

torch   f(torch.Tensor) -> torch.Tensor
numpy   f(numpy.ndarray) -> numpy.ndarray; there is no bfloat16
jax     f(jax.Array) -> jax.Array on the CPU; JAX's 64-bit mode is on during a float64 call, and only then
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from suite.execution.gradients import gradients
from suite.kernels import Kernel
from suite.ops import UPSTREAM, AnyOp
from suite.timing.clock import timed
from suite.verdict.tensors import as_tuple, check_output

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How a library's kernels are called."""

    arrays: Callable[[Tensors], Mapping[str, Any]] = lambda tensors: tensors
    """The tensors as arrays of the library."""
    tensors: Callable[[Any], Any] = lambda value: value
    """A result's arrays as tensors of torch, with their bits. Anything else stays what it is, for
    the judge to refuse.
    """
    finished: Callable[[Any], Any] | None = None
    """Waits for a result of a library that answers before it is there, and returns it; None where
    there is nothing to wait for.
    """
    scope: Callable[[Tensors], contextlib.AbstractContextManager[Any]] = lambda tensors: (
        contextlib.nullcontext()
    )
    """What must hold during both."""


def adapter_of(kernel: Kernel) -> Adapter:
    """The adapter that the kernel names."""
    return {"torch": _TORCH, "numpy": _NUMPY}.get(kernel.adapter) or _jax()


def adapted_call(kernel: Kernel, tensors: Tensors, options: Mapping[str, Any]) -> tuple[Any, float]:
    """(result, seconds) of kernel(tensors, options=options) by way of the kernel's adapter; of its
    backward where the gradient of an output is among the tensors.

    seconds: of the kernel alone, until its result is there.
    Raises NotImplementedError where the adapter does not go, and whatever the kernel raises.
    """
    if UPSTREAM in tensors:
        return timed(lambda: gradients(kernel, tensors, options))
    adapter = adapter_of(kernel)
    finished = adapter.finished or (lambda value: value)
    with adapter.scope(tensors):
        given = adapter.arrays(tensors)
        value, seconds = timed(lambda: finished(kernel(given, options=options)))
        return adapter.tensors(value), seconds


def wrong_kind(
    op: AnyOp,
    output: Any,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    device: str,
    options: Mapping[str, Any],
) -> tuple[str, str] | None:
    """(status, reason) where what an adapted call returned is nothing that can be judged."""
    if any(isinstance(one, np.ndarray | np.generic) for one in as_tuple(output)):
        return (
            "wrong_type",
            "returned a numpy array; expected one tensor of torch (numpy kernels declare adapter='numpy')",
        )
    return check_output(op, output, shapes, dtype, device, options)


def _converted(value: Any, convert: Callable[[Any], torch.Tensor], kinds: Any) -> Any:
    """The result with each array of these kinds converted, of one output or a tuple of several."""
    if isinstance(value, tuple):
        return tuple(_converted(one, convert, kinds) for one in value)
    return convert(value) if isinstance(value, kinds) else value


_TORCH = Adapter()
_NUMPY = Adapter(
    arrays=lambda tensors: {name: tensor.numpy() for name, tensor in tensors.items()},
    tensors=lambda value: _converted(
        value, lambda one: torch.from_numpy(np.array(one)), (np.ndarray, np.generic)
    ),
)


def _jax() -> Adapter:
    """Arrays pass as numpy's. numpy has no bfloat16 of its own, so those go as their 16 bits."""
    import jax
    import ml_dtypes

    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    finished: Callable[[Any], Any] = jax.block_until_ready

    def arrays(tensors: Tensors) -> Mapping[str, Any]:
        passed = {
            name: x.view(torch.int16).numpy().view(bfloat16) if x.dtype == torch.bfloat16 else x.numpy()
            for name, x in tensors.items()
        }
        given: Mapping[str, Any] = finished(
            {name: jax.numpy.asarray(array) for name, array in passed.items()}
        )
        return given

    def to_torch(array: Any) -> torch.Tensor:
        result = np.array(array)
        if result.dtype == bfloat16:
            return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(result)

    @contextlib.contextmanager
    def scope(tensors: Tensors) -> Any:
        first = next(iter(tensors.values()))
        if first.device.type != "cpu":
            raise NotImplementedError(f"the jax adapter runs on the CPU only, not on {first.device}")
        with jax.enable_x64(first.dtype == torch.float64), jax.default_device(jax.devices("cpu")[0]):
            yield

    return Adapter(
        arrays=arrays,
        tensors=lambda value: _converted(value, to_torch, jax.Array),
        finished=finished,
        scope=scope,
    )
