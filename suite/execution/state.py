"""The global state that a kernel can corrupt for everybody after it: set to strict before, compared
after, put back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand

from suite.floating_point import keep_subnormals, round_to_nearest, rounding, subnormals_are_flushed
from suite.records.environment import matmul_precision

Switch = tuple[Callable[[], Any], Callable[[Any], Any]]


def _attribute(path: str) -> Switch | None:
    """The switch torch.<path>, None where this torch has none."""
    *parents, name = path.split(".")
    owner: Any = torch
    for parent in parents:
        owner = getattr(owner, parent, None)
    if owner is None or not hasattr(owner, name):
        return None
    return (lambda: getattr(owner, name)), (lambda value: setattr(owner, name, value))


MATMUL = "float32_matmul_precision"
"""torch's older switch for all backends at once."""


def _switches() -> dict[str, Switch]:
    """name -> (read, write). Newer torch has one precision switch a backend, and refuses to read
    the older ones beside it.
    """
    switches: dict[str, Switch] = {
        "default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "default_device": (lambda: str(torch.get_default_device()), _set_default_device),
        "threads": (torch.get_num_threads, torch.set_num_threads),
        "grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
        "deterministic_mode": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        "numpy_errors": (np.geterr, lambda mode: np.seterr(**mode)),
        "subnormals_flushed": (subnormals_are_flushed, _set_flush),
        "rounding": (rounding, lambda _: round_to_nearest()),
        "working_directory": (_working_directory, os.chdir),
        "torch_seed": (lambda: torch.get_rng_state().numpy().tobytes(), _set_torch_seed),
        "numpy_seed": (_numpy_seed, _set_numpy_seed),
        "python_seed": (random.getstate, random.setstate),
    }
    newer = (
        "backends.cuda.matmul.fp32_precision",
        "backends.cudnn.conv.fp32_precision",
        "backends.mkldnn.matmul.fp32_precision",
    )
    older = ("backends.cuda.matmul.allow_tf32", "backends.cudnn.allow_tf32")
    reduced = (
        "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
        "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    )
    # Before the newer switches, which it changes: put back first, it leaves them to be put back after it.
    switches[MATMUL] = (lambda: matmul_precision(torch), _set_matmul_precision)
    has_newer = _attribute(newer[0]) is not None
    for path in (*(newer if has_newer else older), *reduced):
        switch = _attribute(path)
        if switch is not None:
            switches[path] = switch
    return switches


def _set_matmul_precision(precision: str) -> None:
    if precision != "mixed":
        torch.set_float32_matmul_precision(precision)


def _set_default_device(name: str) -> None:
    torch.set_default_device(None if name == "cpu" else name)


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - twenty times as fast as pathlib's, and called around every kernel call
    except FileNotFoundError:
        return "one that was removed"


def _set_torch_seed(content: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(content), dtype=torch.uint8))


_NUMPY_SEED_BYTES = 624 * 4 + 4
"""Of the Mersenne twister behind numpy.random: key and position, read where they lie; get_state()
takes 35 microseconds.
"""


def _numpy_seed() -> bytes:
    generator = mtrand.get_bit_generator()
    if not isinstance(generator, np.random.MT19937):
        return b""
    return ctypes.string_at(generator.ctypes.state_address, _NUMPY_SEED_BYTES)


def _set_numpy_seed(content: bytes) -> None:
    if content and _numpy_seed():
        ctypes.memmove(mtrand.get_bit_generator().ctypes.state_address, content, _NUMPY_SEED_BYTES)


def _set_flush(flushed: bool) -> None:
    if flushed:
        torch.set_flush_denormal(True)
    else:
        keep_subnormals()


_SWITCHES = _switches()
State = Mapping[str, Any]


def read() -> State:
    """The value of every switch."""
    return {name: read_switch() for name, (read_switch, _) in _SWITCHES.items()}


def write(wanted: State, current: State) -> None:
    """Puts every switch to its value in `wanted` where it differs from `current`, the values just read."""
    moved = current[MATMUL] != wanted[MATMUL]  # which moves those of the backends along
    for name, (_, write_switch) in _SWITCHES.items():
        if current[name] != wanted[name] or (moved and name.startswith("backends.")):
            with contextlib.suppress(
                RuntimeError, OSError
            ):  # what cannot be put back shows as a change of the next call
                write_switch(wanted[name])


def strict(current: State) -> State:
    """The state in which every kernel is called: full precision everywhere, subnormals kept, this
    process's own threads.
    """
    state: dict[str, Any] = dict(current)
    state |= {
        "default_dtype": torch.float32,
        "default_device": "cpu",
        "grad_enabled": False,
        "deterministic_mode": 0,
        "subnormals_flushed": False,
        "rounding": "to nearest",
    }
    for name in state:
        if name.endswith("fp32_precision"):
            state[name] = "ieee"
        elif name.startswith("backends."):
            state[name] = False
    state[MATMUL] = "highest"
    return state


def changes(before: State, after: State) -> list[str]:
    """ "name from before to after" for every switch that differs, the name alone of a seed, which
    is kilobytes long.
    """
    differing = [
        name for name in before if before[name] != after[name] and (name, after[name]) != (MATMUL, "mixed")
    ]
    return [
        name if name.endswith("_seed") else f"{name} from {before[name]} to {after[name]}"
        for name in differing
    ]
