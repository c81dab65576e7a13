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

from suite.kernels import Kernel
from suite.timing.clock import timed


def adapted_call(kernel: Kernel, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any]) -> tuple[Any, float]:
    """(result, seconds) of kernel(*tensors, options=options) by way of the kernel's adapter.

    A result that is an array of the adapter's library becomes a torch tensor with its bits; anything else is handed on for
    the judge to refuse. seconds: of the kernel alone, until its result is there.
    Raises NotImplementedError where the adapter does not go, and whatever the kernel raises.
    """
    if kernel.adapter == "numpy":
        return _numpy_call(kernel, tensors, options)
    if kernel.adapter == "jax":
        return _jax_call(kernel, tensors, options)
    return timed(lambda: kernel(*tensors, options=options))


def _numpy_call(kernel: Kernel, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any]) -> tuple[Any, float]:
    arrays = [tensor.numpy() for tensor in tensors]
    value, seconds = timed(lambda: kernel(*arrays, options=options))
    if isinstance(value, np.ndarray | np.generic):
        value = torch.from_numpy(np.array(value))
    return value, seconds


def _jax_call(kernel: Kernel, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any]) -> tuple[Any, float]:
    """Arrays pass as numpy's. numpy has no bfloat16 of its own, so those go as their 16 bits."""
    import jax
    import ml_dtypes

    first = tensors[0]
    if first.device.type != "cpu":
        raise NotImplementedError(f"the jax adapter runs on the CPU only, not on {first.device}")
    finished: Callable[[Any], Any] = jax.block_until_ready
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    arrays = [x.view(torch.int16).numpy().view(bfloat16) if x.dtype == torch.bfloat16 else x.numpy() for x in tensors]
    with jax.enable_x64(first.dtype == torch.float64), jax.default_device(jax.devices("cpu")[0]):
        given = finished([jax.numpy.asarray(array) for array in arrays])
        value, seconds = timed(lambda: finished(kernel(*given, options=options)))
        if isinstance(value, jax.Array):
            result = np.array(value)
            if result.dtype == bfloat16:
                value = torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
            else:
                value = torch.from_numpy(result)
    return value, seconds
