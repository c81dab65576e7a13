"""Block sizes, warps and stages of the Triton kernels, by device: triton_configurations.json, whose
entries `softmax-suite tune` makes.

    {"default": {kernels: {parameter: value}}, "NVIDIA H200": {...}, "capability 9.0": {...}}

The entry of a device's name counts before that of its capability, kernel by kernel, and the default
for what neither has. triton.autotune is not used: it times inside the first call, and what it
picks, and so the bits of a result, may change from run to run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from suite.records import strict_json

FILE = Path(__file__).with_name("triton_configurations.json")

PARAMETERS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "fused": {"entries": (128, 2**16), "entries_per_warp": (32, 2**16)},
    "online": {"block": (16, 2**16), "entries": (128, 2**16), "warps": (1, 32)},
    "split": {
        "shortest_part": (16, 2**16),
        "most_parts": (1, 2**12),
        "entries": (128, 2**16),
        "warps": (1, 32),
    },
    "rows": {"entries": (128, 2**16), "warps": (1, 32)},
    "attention": {"queries": (16, 256), "keys": (16, 256), "warps": (1, 32), "stages": (1, 8)},
    "attention_backward": {"queries": (16, 256), "keys": (16, 256), "warps": (1, 32), "stages": (1, 8)},
    "attention_16_bit": {"queries": (16, 256), "keys": (16, 256), "warps": (1, 32), "stages": (1, 8)},
    "attention_backward_16_bit": {
        "queries": (16, 256),
        "keys": (16, 256),
        "warps": (1, 32),
        "stages": (1, 8),
    },
}
"""Kernels -> parameter -> the least and the most it can be. rows: those of log_softmax,
cross_entropy and softmax's backward; entries: of a program, where rows are short enough to have
several in one. ..._16_bit: of bfloat16 and float16, heads of at most 128; tiles of others take more
memory.
"""

Configuration = Mapping[str, int]
_TRIED: dict[str, Configuration] = {}


def configuration(kernels: str, device: torch.device) -> Configuration:
    """The parameters of some kernels on a device.

    Raises ValueError where the file is not what the docstring of this module says.
    """
    return _TRIED.get(kernels) or _stored(kernels, *names_of(device))


@functools.cache
def names_of(device: torch.device) -> tuple[str, ...]:
    """The entries that hold for a device, the first one before the others."""
    if device.type != "cuda":
        return device.type, "default"
    major, minor = torch.cuda.get_device_capability(device)
    return torch.cuda.get_device_name(device), f"capability {major}.{minor}", "default"


@functools.cache
def _stored(kernels: str, *names: str) -> Configuration:
    entries = read(FILE)
    return next(entries[name][kernels] for name in names if kernels in entries.get(name, {}))


@contextlib.contextmanager
def trying(kernels: str, candidate: Configuration) -> Iterator[None]:
    """Calls inside have this configuration, whatever is stored. Raises ValueError for one that cannot be."""
    check_configuration(kernels, candidate, "the candidate")
    _TRIED[kernels] = candidate
    try:
        yield
    finally:
        del _TRIED[kernels]


def read(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """All entries of a file. Raises ValueError, naming file, entry and parameter, for one that cannot be."""
    try:
        entries = strict_json.read(path)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} holds no configurations: {error}") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"{str(path)!r} holds no configurations: expected an object of objects, by device")
    for name, entry in entries.items():
        for kernels, found in entry.items():
            check_configuration(kernels, found, f"{str(path)!r}, entry {name!r}")
    if missing := [kernels for kernels in PARAMETERS if kernels not in entries.get("default", {})]:
        raise ValueError(f"{str(path)!r} has no default of {', '.join(missing)}")
    return entries


def check_configuration(kernels: str, found: Any, where: str) -> None:
    """Raises ValueError where it is no configuration of these kernels."""
    if kernels not in PARAMETERS:
        raise ValueError(f"{where}: {kernels!r} is not one of {', '.join(PARAMETERS)}")
    expected = PARAMETERS[kernels]
    if not isinstance(found, dict) or set(found) != set(expected):
        raise ValueError(f"{where}: {kernels} is {found!r}; expected an object with {', '.join(expected)}")
    for parameter, value in found.items():
        least, most = expected[parameter]
        power = type(value) is int and value > 0 and (value & (value - 1) == 0 or parameter == "stages")
        if not power or not least <= value <= most:
            kind = "a number" if parameter == "stages" else "a power of two"
            raise ValueError(
                f"{where}: {parameter} of {kernels} is {value!r}; expected {kind} from {least} to {most}"
            )
