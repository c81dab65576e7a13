"""What every attention kernel of the suite refuses: calls without a meaning."""

from __future__ import annotations

from typing import Any

import torch

from suite.ops import get_op

OPTIONS = ("causal", "scale", "softcap", "window", "enable_gqa")


def check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **given: Any) -> None:
    """given: options and further tensors of a call by name; None is an absent one.

    Raises ValueError that names the argument and its value: shapes that do not match, heads that
    cannot be shared, a mask that is neither boolean nor floating, a scale that is no number,
    tensors of several dtypes or devices, lengths beyond the keys.
    """
    tensors = {"q": q, "k": k, "v": v} | {
        n: t for n, t in given.items() if n not in OPTIONS and t is not None
    }
    options = {name: value for name, value in given.items() if name in OPTIONS}
    get_op("attention").resolve_options(
        options, {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    )
    for name, tensor in tensors.items():
        if tensor.device != q.device:
            raise ValueError(f"{name} is on {tensor.device}; q is on {q.device}")
        if name == "kv_lengths":
            if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
                raise ValueError(f"kv_lengths has dtype {tensor.dtype}; expected an integer one")
        elif not tensor.is_floating_point() and not (name == "mask" and tensor.dtype == torch.bool):
            expected = "torch.bool or a floating one" if name == "mask" else "a floating one"
            raise ValueError(f"{name} has dtype {tensor.dtype}; expected {expected}")
        if name in ("k", "v") and tensor.dtype != q.dtype:
            raise ValueError(f"{name} has dtype {tensor.dtype}; q has {q.dtype}")
    lengths, keys = tensors.get("kv_lengths"), k.shape[2]
    if lengths is not None and bool(((lengths < 0) | (lengths > keys)).any()):
        raise ValueError(f"kv_lengths={lengths.tolist()} must lie between 0 and the {keys} keys")
