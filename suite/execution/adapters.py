"""Calling kernels of other array libraries: the same bits in their arrays, and back. Conversions are outside the clock.

torch   f(torch.Tensor) -> torch.Tensor
numpy   f(numpy.ndarray) -> numpy.ndarray; there is no bfloat16
jax     f(jax.Array) -> jax.Array on the CPU; JAX's 64-bit mode is on during a float64 call, and only then
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from suite.execution.gradients import gradients
from suite.kernels import Kernel
from suite.ops import UPSTREAM
from suite.timing.clock import timed


def adapted_call(kernel: Kernel, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> tuple[Any, float]:
    """(result, seconds) of kernel(tensors, options=options) by way of the kernel's adapter; of its backward where the gradient
    of an output is among the tensors.

    A result that is an array of the adapter's library becomes a torch tensor with its bits; anything else is handed on for
    the judge to refuse. seconds: of the kernel alone, until its result is there.
    Raises NotImplementedError where the adapter does not go, and whatever the kernel raises.
    """
    if UPSTREAM in tensors:
        return timed(lambda: gradients(kernel, tensors, options))
    if kernel.adapter == "numpy":
        return _numpy_call(kernel, tensors, options)
    if kernel.adapter == "jax":
        return _jax_call(kernel, tensors, options)
    return timed(lambda: kernel(tensors, options=options))


def _numpy_call(kernel: Kernel, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> tuple[Any, float]:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    value, seconds = timed(lambda: kernel(arrays, options=options))
    return _converted(value, lambda one: torch.from_numpy(np.array(one)), (np.ndarray, np.generic)), seconds


def _converted(value: Any, convert: Callable[[Any], torch.Tensor], kinds: Any) -> Any:
    """The result with each array of these kinds converted, of one output or a tuple of several."""
    if isinstance(value, tuple):
        return tuple(_converted(one, convert, kinds) for one in value)
    return convert(value) if isinstance(value, kinds) else value


def _jax_call(kernel: Kernel, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> tuple[Any, float]:
    """Arrays pass as numpy's. numpy has no bfloat16 of its own, so those go as their 16 bits."""
    import jax
    import ml_dtypes

    first = next(iter(tensors.values()))
    if first.device.type != "cpu":
        raise NotImplementedError(f"the jax adapter runs on the CPU only, not on {first.device}")
    finished: Callable[[Any], Any] = jax.block_until_ready
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    arrays = {
        name: x.view(torch.int16).numpy().view(bfloat16) if x.dtype == torch.bfloat16 else x.numpy()
        for name, x in tensors.items()
    }

    def to_torch(array: Any) -> torch.Tensor:
        result = np.array(array)
        if result.dtype == bfloat16:
            return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(result)

    with jax.enable_x64(first.dtype == torch.float64), jax.default_device(jax.devices("cpu")[0]):
        given = finished({name: jax.numpy.asarray(array) for name, array in arrays.items()})
        value, seconds = timed(lambda: finished(kernel(given, options=options)))
        return _converted(value, to_torch, jax.Array), seconds
