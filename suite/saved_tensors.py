"""Tensors from files: .npz without pickle, and .safetensors. Files come from strangers, so every size is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from suite.formats import FORMATS, get_format

_SAFETENSORS = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
}
"""Names of dtypes in safetensors: torch's name, bytes of an entry. Integers are class indices."""
_HEADER_LIMIT = 100_000_000


def load(path: Path, *, dtype: str | None = None) -> dict[str, Any]:
    """The tensors of a file by name, as torch tensors.

    dtype: the format of arrays that hold raw 16-bit or 8-bit patterns (uint16, uint8, or two-byte voids), as numpy has no
    bfloat16. Raises ValueError naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise ValueError(f"tensor file {str(path)!r} does not exist")
    if path.suffix == ".npz":
        return _load_npz(path, dtype)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    raise ValueError(f"tensor file {str(path)!r} has the ending {path.suffix!r}; expected .npz or .safetensors")


def pick(tensors: Mapping[str, Any], names: tuple[str, ...], path: Path) -> Any:
    """The tensor under the first of these names. Raises ValueError with the names that the file has."""
    for name in names:
        if name in tensors:
            return tensors[name]
    raise ValueError(f"{path} has no tensor {' or '.join(map(repr, names))}; it has: {', '.join(tensors) or 'none'}")


def _load_npz(path: Path, dtype: str | None) -> dict[str, Any]:
    import torch

    if dtype is not None:
        get_format(dtype)
    tensors = {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            for name in file.files:
                array = np.array(file[name], order="C")
                raw = array.dtype.kind in "uV" and array.dtype.itemsize in (1, 2)
                if raw and dtype is None:
                    raise ValueError(f"{name} has raw {array.dtype} patterns: say which format they are with --dtype")
                if raw and dtype is not None:
                    if FORMATS[dtype].bits != 8 * array.dtype.itemsize:
                        raise ValueError(f"{name} has {8 * array.dtype.itemsize}-bit patterns, which are no {dtype}")
                    integer = np.uint8 if array.dtype.itemsize == 1 else np.uint16
                    tensors[name] = torch.from_numpy(array.view(integer).copy()).view(getattr(torch, dtype))
                else:
                    tensors[name] = torch.from_numpy(array)
    except Exception as error:  # zlib, zipfile, tokenize and numpy each have their own
        raise ValueError(f"tensor file {str(path)!r} cannot be read: {_one_line(error)}") from None
    return tensors


def _load_safetensors(path: Path) -> dict[str, Any]:
    """8 bytes of header length, a JSON header, then the data (https://github.com/huggingface/safetensors#format)."""
    import torch

    content = path.read_bytes()
    try:
        length = int.from_bytes(content[:8], "little")
        if len(content) < 8 or length > min(len(content) - 8, _HEADER_LIMIT):
            raise ValueError("the file is shorter than its header says")
        header = json.loads(content[8 : 8 + length])
        data = content[8 + length :]
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in _SAFETENSORS:
                raise ValueError(f"{name} has dtype {entry['dtype']}; expected one of {', '.join(_SAFETENSORS)}")
            dtype, entry_bytes = _SAFETENSORS[entry["dtype"]]
            start, end = (int(offset) for offset in entry["data_offsets"])
            shape = tuple(int(n) for n in entry["shape"])
            size = math.prod(shape) * entry_bytes
            if min(shape, default=0) < 0 or not 0 <= start <= end <= len(data) or end - start != size:
                raise ValueError(f"{name} has offsets {start}:{end} that do not fit its shape {list(shape)}")
            torch_dtype = getattr(torch, dtype)
            if not size:
                tensors[name] = torch.empty(shape, dtype=torch_dtype)
                continue
            raw = torch.from_numpy(np.frombuffer(data[start:end], dtype=np.uint8).copy())
            tensors[name] = raw.view(torch_dtype).reshape(shape)
    except Exception as error:
        raise ValueError(f"tensor file {str(path)!r} cannot be read: {_one_line(error)}") from None
    return tensors


def _one_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
