"""Each global switch: a change of it is seen, named and put back. What a host makes of that is in
test_bad_kernels.py.
"""

import ctypes
import os
import platform
import random

import numpy as np
import pytest
import torch

from suite.execution import state

INTEL = platform.machine() in ("x86_64", "AMD64")
C = ctypes.CDLL(None)
CHANGES = {
    "default_dtype": lambda: torch.set_default_dtype(torch.float64),
    "default_device": lambda: torch.set_default_device("meta"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "grad_enabled": lambda: torch.set_grad_enabled(not torch.is_grad_enabled()),
    "deterministic_mode": lambda: torch.use_deterministic_algorithms(True),
    "numpy_errors": lambda: np.seterr(all="raise"),
    "subnormals_flushed": lambda: torch.set_flush_denormal(True),
    "rounding": lambda: C.fesetround(0x800 if INTEL else 0x400000),
    "working_directory": lambda: os.chdir("/"),
    "torch_seed": lambda: torch.rand(1),
    "numpy_seed": lambda: np.random.rand(),  # noqa: NPY002 - the generator that a kernel may disturb
    "python_seed": lambda: random.random(),
    "backends.cuda.matmul.fp32_precision": lambda: setattr(
        torch.backends.cuda.matmul, "fp32_precision", "tf32"
    ),
    "backends.cudnn.conv.fp32_precision": lambda: setattr(
        torch.backends.cudnn.conv,
        "fp32_precision",
        "ieee" if torch.backends.cudnn.conv.fp32_precision != "ieee" else "tf32",
    ),
    "backends.mkldnn.matmul.fp32_precision": lambda: setattr(
        torch.backends.mkldnn.matmul, "fp32_precision", "bf16"
    ),
    "backends.cuda.matmul.allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "backends.cudnn.allow_tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "float32_matmul_precision": lambda: torch.set_float32_matmul_precision("medium"),
} | {
    f"backends.cuda.matmul.allow_{dtype}_reduced_precision_reduction": (
        lambda dtype=dtype: setattr(
            torch.backends.cuda.matmul, f"allow_{dtype}_reduced_precision_reduction", False
        )
    )
    for dtype in ("fp16", "bf16")
}


@pytest.fixture(autouse=True)
def _this_process_stays_whole():
    before = state.read()
    yield
    state.write(before, state.read())


def test_every_switch_has_a_change_here():
    assert set(state.read()) <= set(CHANGES)


@pytest.mark.parametrize("name", sorted(set(CHANGES) & set(state.read())))
def test_a_change_is_seen_named_and_put_back(name):
    before = state.read()
    CHANGES[name]()
    after = state.read()

    found = state.changes(before, after)
    named = [change.split(" from ")[0] for change in found]
    if name == "float32_matmul_precision":  # it moves those of the backends along
        named = [one for one in named if not one.startswith("backends.")]
    assert named == [name]
    assert len(found[0]) < 300
    state.write(before, after)
    assert state.read() == before


@pytest.mark.parametrize(("mode", "name"), [(0x400, "downward"), (0x800, "upward"), (0xC00, "toward zero")])
@pytest.mark.skipif(not INTEL, reason="the numbers of the modes are those of x86")
def test_every_rounding_mode_is_told_from_the_others(mode, name):
    before = state.read()
    C.fesetround(mode)
    after = state.read()
    state.write(before, after)

    assert state.changes(before, after) == [f"rounding from to nearest to {name}"]
    assert C.fegetround() == 0


def test_a_draw_from_each_generator_is_the_one_that_it_would_have_been():
    before = state.read()
    drawn = [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()]  # noqa: NPY002
    state.write(before, state.read())

    assert [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()] == drawn  # noqa: NPY002


def test_a_working_directory_that_was_removed_is_no_error(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    before = state.read()
    gone.rmdir()
    after = state.read()

    assert after["working_directory"] == "one that was removed"
    assert len(state.changes(before, after)) == 1
    state.write(before, after)  # the directory is gone: what cannot be put back is left


def test_the_strict_state_is_full_precision_and_this_process_otherwise():
    torch.set_default_dtype(torch.float64)
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = True
    current = state.read()
    strict = state.strict(current)
    state.write(strict, current)

    assert state.read() == strict
    assert (strict["default_dtype"], strict["subnormals_flushed"]) == (torch.float32, False)
    assert {value for name, value in strict.items() if name.endswith("fp32_precision")} <= {"ieee"}
    assert (strict["threads"], strict["working_directory"]) == (
        current["threads"],
        current["working_directory"],
    )
