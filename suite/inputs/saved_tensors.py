"""Tensors from files: .npz without pickle, and .safetensors. Files come from strangers, so every
size is checked.
"""

from __future__ import annotations

import functools
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from suite.formats import FORMATS, get_format
from suite.records.regular_files import open_regular
from suite.records.strict_json import parse

_SAFETENSORS = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "BOOL": ("bool", 1),
}
"""Names of dtypes in safetensors: torch's name, bytes of an entry. Integers are class indices or
lengths, BOOL is a mask.
"""
HEADER = 2**24
"""Bytes that the header of a .safetensors may have."""
LARGEST = 2**34
"""Bytes that all tensors of a file may have: 16 GiB."""
SMALL, RATIO = 2**30, 100
"""Those of a compressed file: 1 GiB, or 100 times the file's own where that is more. Deflate can
make 1,032 of one.
"""
DIMENSIONS, LARGEST_SIZE = 64, 2**62
NAMED = 300
"""Characters of a list of names in a message."""


def load(path: Path, *, dtype: str | None = None) -> dict[str, Any]:
    """The tensors of a file by name, as torch tensors.

    path: a regular file; `~` is the home directory. dtype: the format of arrays that hold raw
    16-bit or 8-bit patterns (uint16, uint8, or two-byte voids), as numpy has no bfloat16. Raises
    ValueError naming the file and what is wrong with it. Nothing in a file is ever executed, and no
    more memory is taken than its own size accounts for (SMALL, RATIO).
    """
    readers: dict[str, Callable[[BinaryIO, int], dict[str, Any]]] = {
        ".npz": functools.partial(_npz, dtype=dtype),
        ".safetensors": _safetensors,
    }
    if dtype is not None:
        get_format(dtype)
    if path.suffix not in readers:
        raise ValueError(
            f"tensor file {str(path)!r} has the ending {path.suffix!r}; expected .npz or .safetensors"
        )
    try:
        stream = open_regular(path)
    except ValueError as error:
        raise ValueError(f"tensor file {error}") from None
    with stream:
        try:
            tensors = readers[path.suffix](stream, os.fstat(stream.fileno()).st_size)
        except (
            Exception
        ) as error:  # zlib, zipfile, tokenize and numpy each have their own; MemoryError is one more
            raise ValueError(f"tensor file {str(path)!r} cannot be read: {_one_line(error)}") from None
    return tensors


def pick(tensors: Mapping[str, Any], names: tuple[str, ...], path: Path) -> Any:
    """The tensor under the first of these names. Raises ValueError with the names that the file has."""
    for name in names:
        if name in tensors:
            return tensors[name]
    raise ValueError(f"{path} has no tensor {' or '.join(map(repr, names))}; it has: {_named(tensors)}")


def _named(tensors: Mapping[str, Any]) -> str:
    return ", ".join(name if name.isprintable() else repr(name) for name in tensors)[:NAMED] or "none"


def _npz(stream: BinaryIO, size: int, *, dtype: str | None) -> dict[str, Any]:
    import torch

    tensors = {}
    with zipfile.ZipFile(stream) as archive:
        for name, member in _members(archive, size).items():
            with archive.open(member) as content:
                array = _array(content, member.file_size)
            raw = array.dtype.kind in "uV" and array.dtype.itemsize in (1, 2)
            if raw and dtype is None:
                raise ValueError(
                    f"{name} has raw {array.dtype} patterns: say which format they are with --dtype"
                )
            if raw and dtype is not None:
                if FORMATS[dtype].bits != 8 * array.dtype.itemsize:
                    raise ValueError(
                        f"{name} has {8 * array.dtype.itemsize}-bit patterns, which are no {dtype}"
                    )
                integer = np.uint8 if array.dtype.itemsize == 1 else np.uint16
                tensors[name] = torch.from_numpy(array.view(integer).copy()).view(getattr(torch, dtype))
            else:
                tensors[name] = torch.from_numpy(array)
    return tensors


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members by the name of their array, of an archive of `size` bytes. Raises ValueError for
    what numpy never writes.

    Sizes are checked as the archive claims them: zipfile reads no more of a member than it claims,
    and compares checksums.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            raise ValueError(f"member {name!r:.80} is no .npy file")
        if name in members:
            raise ValueError(f"{name!r:.80} stands twice in it")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name!r:.80} is neither stored nor deflated")
        members[name] = member
    if sum(member.compress_size for member in members.values()) > size:
        raise ValueError("its arrays overlap each other")
    total, allowed = (
        sum(member.file_size for member in members.values()),
        min(max(SMALL, RATIO * size), LARGEST),
    )
    if total > allowed:
        raise ValueError(
            f"its arrays have {total:,} bytes, in a file of {size:,}; at most {allowed:,} are read"
        )
    return members


def _array(content: IO[bytes], size: int) -> NDArray[Any]:
    """The array of a .npy member of `size` bytes, in C order. Nothing is allocated before its
    header fits its size.

    numpy's own reader believes the header: a shape of terabytes would be allocated first and found
    missing afterwards.
    """
    version = np.lib.format.read_magic(content)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"version {version} of .npy; expected 1.0 or 2.0")
    shape, fortran_order, dtype = read_header(content)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    if dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"an array of {dtype!s:.80}; expected numbers")
    if min(shape, default=0) < 0 or len(shape) > DIMENSIONS:
        raise ValueError(f"the shape {shape!r:.80}; expected at most {DIMENSIONS} sizes, none below 0")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > size:
        raise ValueError(f"the shape {shape!r:.80} of {dtype} needs {wanted:,} bytes, and there are {size:,}")
    data = content.read(wanted)
    if len(data) < wanted or content.read(1):
        raise ValueError(f"the shape {shape!r:.80} of {dtype} does not fit its data")
    flat = np.frombuffer(bytearray(data), dtype=dtype)
    return np.array(flat.reshape(shape, order="F" if fortran_order else "C"), order="C")


def _safetensors(stream: BinaryIO, size: int) -> dict[str, Any]:
    """8 bytes of header length, a JSON header, then the data
    (https://github.com/huggingface/safetensors#format).
    """
    import torch

    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("the file is shorter than its header says")
    if length > HEADER:
        raise ValueError(f"a header of {length:,} bytes; at most {HEADER:,} are read")
    header = parse(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop("__metadata__", None)
    available = size - 8 - length
    places = {name: _place(name, entry, available) for name, entry in header.items()}
    total = sum(end - start for _, _, start, end in places.values())
    if total > min(available, LARGEST):
        raise ValueError(
            f"its tensors have {total:,} bytes; the file has {available:,}, and at most {LARGEST:,} are read"
        )
    tensors = {}
    for name, (dtype, shape, start, end) in places.items():
        stream.seek(8 + length + start)
        data = stream.read(end - start)
        if len(data) < end - start:
            raise ValueError(f"{name!r:.80} ends before its data")
        torch_dtype = getattr(torch, dtype)
        if not data:
            tensors[name] = torch.empty(shape, dtype=torch_dtype)
            continue
        raw = torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.uint8))
        tensors[name] = raw.view(torch_dtype).reshape(shape)
    return tensors


def _place(name: str, entry: Any, available: int) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, start, end) of an entry of the header of safetensors, which has so many bytes
    of data after it.
    """
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{name!r:.80} has not all of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SAFETENSORS:
        raise ValueError(f"{name!r:.80} has dtype {dtype!r:.80}; expected one of {', '.join(_SAFETENSORS)}")
    if not _sizes(shape) or len(shape) > DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(
            f"{name!r:.80} has shape {shape!r:.80}, offsets {offsets!r:.80}; expected lists of sizes, two"
            " offsets"
        )
    torch_dtype, entry_bytes = _SAFETENSORS[dtype]
    start, end = offsets
    if not start <= end <= available or end - start != math.prod(shape) * entry_bytes:
        raise ValueError(f"{name!r:.80} has offsets {start}:{end} that do not fit its shape {shape!r:.80}")
    if any(n > LARGEST_SIZE for n in shape):
        raise ValueError(f"{name!r:.80} has the shape {shape!r:.80}, larger than a tensor can be")
    return torch_dtype, tuple(shape), start, end


def _sizes(value: Any) -> bool:
    """Whether this is a list of numbers from 0 on."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _one_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
