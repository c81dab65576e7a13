"""Tensors of any library as float64 numpy arrays, exactly, and back. torch is imported only where a
torch tensor is made.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import FORMATS, Array, Format

NUMPY = (np.ndarray, np.generic)
"""Arrays, and the scalars that numpy makes of arrays without dims."""


def is_tensor(value: Any) -> bool:
    """Whether the value is a torch tensor or a numpy array or scalar."""
    torch = sys.modules.get("torch")
    return isinstance(value, NUMPY) or (torch is not None and isinstance(value, torch.Tensor))


def dtype_name(tensor: Any) -> str:
    """The name of a tensor's dtype: "float32", "bfloat16", "int64", ..."""
    return tensor.dtype.name if isinstance(tensor, NUMPY) else str(tensor.dtype).removeprefix("torch.")


def device_name(tensor: Any) -> str:
    return str(tensor.device) if hasattr(tensor, "device") else "cpu"


def format_of(tensor: Any) -> Format | None:
    """The tensor's format, or None where its dtype is not one of ours."""
    return FORMATS.get(dtype_name(tensor))


def to_float64(tensor: Any) -> Array:
    """The tensor's values, exactly, as a float64 numpy array of its shape; never a view of the
    tensor's memory.
    """
    if isinstance(tensor, NUMPY):
        return np.array(tensor, dtype=np.float64)
    torch = sys.modules["torch"]
    with torch.no_grad():
        return np.array(
            tensor.detach().to(device="cpu", dtype=torch.float64).resolve_neg().numpy(), dtype=np.float64
        )


def to_numpy(tensor: Any) -> NDArray[Any]:
    """The tensor's values, exactly: float64 of a floating tensor, int64 of a tensor of integers,
    bool of truth values.
    """
    if dtype_name(tensor) == "bool":
        return np.array(
            tensor if isinstance(tensor, NUMPY) else tensor.detach().cpu().numpy(), dtype=np.bool_
        )
    if isinstance(tensor, NUMPY):
        return np.array(tensor, dtype=np.int64) if tensor.dtype.kind in "iu" else to_float64(tensor)
    if tensor.is_floating_point():
        return to_float64(tensor)
    return np.array(tensor.detach().cpu().numpy(), dtype=np.int64)


def to_torch(values: NDArray[Any], format: Format, device: str = "cpu") -> Any:
    """A contiguous torch tensor of `format` with these values, which must be numbers of the format
    (NaN, inf allowed).

    Integers become int64 and truth values bool, whatever the format.
    """
    import torch

    if values.dtype.kind == "b":
        return torch.from_numpy(np.array(values, order="C")).to(device=device)
    if values.dtype.kind == "i":
        return torch.from_numpy(np.array(values, dtype=np.int64, order="C")).to(device=device)
    exact = torch.from_numpy(np.array(values, dtype=np.float64, order="C"))
    tensor = exact.to(dtype=getattr(torch, format.name))
    assert bool(((tensor.double() == exact) | exact.isnan()).all()), f"values that {format.name} cannot hold"
    return tensor.to(device=device)


def bits(tensor: Any) -> NDArray[np.uint8]:
    """A copy of the tensor's bytes in logical order: equal exactly when every bit is equal, NaN
    payloads included.
    """
    if isinstance(tensor, NUMPY):
        return np.frombuffer(tensor.tobytes(), dtype=np.uint8)
    torch = sys.modules["torch"]
    if not tensor.numel():
        return np.empty(0, dtype=np.uint8)
    flat = tensor.new_empty(tensor.numel()).copy_(tensor.detach().resolve_neg().reshape(-1)).view(torch.uint8)
    return np.array(flat.cpu().numpy(), dtype=np.uint8)
