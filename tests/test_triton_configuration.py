"""Configurations by device: which entry counts, that every parameter reaches its kernel, and what
an invalid file says.
"""

import json
import math
import re
import subprocess
from types import SimpleNamespace

import pytest
import torch

from tests.extras import needs
from tests.sources import compiled

needs("triton")

import triton  # noqa: E402, TID253  (skipped above where there is no Triton)

from suite.kernels.parts import triton_attention, triton_attention_backward, triton_configuration  # noqa: E402
from suite.kernels.parts.triton_attention_backward import attention  # noqa: E402
from suite.kernels.parts.triton_configuration import FILE, PARAMETERS, configuration, read, trying  # noqa: E402
from suite.kernels.parts.triton_fused import fused  # noqa: E402
from suite.kernels.parts.triton_log_softmax import log_softmax  # noqa: E402
from suite.kernels.parts.triton_online import online  # noqa: E402
from suite.kernels.parts.triton_split import split  # noqa: E402

CPU = torch.device("cpu")
DEFAULT = read(FILE)["default"]


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The stored configurations, in place of the package's, and a GPU of this name and capability."""
    file = tmp_path / "configurations.json"
    monkeypatch.setattr(triton_configuration, "FILE", file)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for cached in (triton_configuration._stored, triton_configuration.names_of):
        cached.cache_clear()

    def store(**entries):
        file.write_text(json.dumps({"default": DEFAULT, **entries}))

    yield store
    for cached in (triton_configuration._stored, triton_configuration.names_of):
        cached.cache_clear()


def rows(entries, warps):
    return {"rows": {"entries": entries, "warps": warps}}


def test_the_name_counts_before_the_capability_and_that_before_the_default(stored):
    cuda = torch.device("cuda:0")
    split = {"split": {**DEFAULT["split"], "warps": 16}}
    stored(
        **{
            "NVIDIA H200": rows(1024, 1),
            "capability 9.0": {**rows(2048, 2), **split},
            "NVIDIA H100": rows(512, 32),
        }
    )

    assert configuration("rows", cuda) == {"entries": 1024, "warps": 1}
    assert configuration("split", cuda)["warps"] == 16
    assert configuration("fused", cuda) == DEFAULT["fused"]
    assert configuration("rows", CPU) == DEFAULT["rows"]


def test_the_package_has_a_valid_file_whose_defaults_are_what_kernels_had():
    assert set(DEFAULT) == set(PARAMETERS)
    assert DEFAULT["attention"] == {"queries": 32, "keys": 32, "warps": 4, "stages": 1}
    assert DEFAULT["fused"] == {"entries": 4096, "entries_per_warp": 1024}


# The text of the file, what it becomes, and what is said.
INVALID = {
    "torn": ("}}", "}", "holds no configurations"),
    "a list": (None, "[]", "expected an object of objects, by device"),
    "an entry that is none": (None, '{"NVIDIA H200": 3}', "expected an object of objects, by device"),
    "no default": (
        None,
        "{}",
        "has no default of fused, online, split, rows, attention, attention_backward, attention_16_bit",
    ),
    "unknown kernels": ('"rows"', '"row"', "entry 'default': 'row' is not one of fused, online,"),
    "unknown parameter": ('"stages"', '"stage"', "expected an object with queries, keys, warps, stages"),
    "no power of two": (
        '"queries": 32',
        '"queries": 48',
        "queries of attention is 48; expected a power of two from 16 to 256",
    ),
    "too small": ('"keys": 32', '"keys": 8', "keys of attention is 8; expected a power of two from 16"),
    "a truth value": ('"stages": 1', '"stages": true', "stages of attention is True; expected a number"),
    "a text": ('"warps": 8', '"warps": "8"', "warps of rows is '8'; expected a power of two from 1 to 32"),
}


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_file_says_what_is_wrong_and_where(what, tmp_path):
    before, after, message = INVALID[what]
    path = tmp_path / "configurations.json"
    text = json.dumps({"default": DEFAULT})
    assert before is None or before in text
    path.write_text(after if before is None else text.replace(before, after, 1))

    with pytest.raises(ValueError, match=r"configurations\.json'") as raised:
        read(path)

    assert message in str(raised.value)


def test_a_candidate_counts_inside_alone_and_must_be_valid():
    with trying("rows", {"entries": 256, "warps": 2}):
        assert configuration("rows", CPU) == {"entries": 256, "warps": 2}
    assert configuration("rows", CPU) == DEFAULT["rows"]
    with (
        pytest.raises(ValueError, match="the candidate: warps of rows is 3"),
        trying("rows", {"entries": 256, "warps": 3}),
    ):
        pass


CALLS = {
    "fused": lambda: fused("softmax", torch.ones(8, 64), -1),
    "online": lambda: online("softmax", torch.ones(8, 512), -1),
    "split": lambda: split("softmax", torch.ones(8, 4096), -1),
    "rows": lambda: log_softmax(torch.ones(8, 8192), -1),
    "attention": lambda: attend(),
    "attention_backward": lambda: attend().sum().backward(),
    "attention_16_bit": lambda: attend(torch.float16),
    "attention_backward_16_bit": lambda: attend(torch.float16).sum().backward(),
}


def attend(format=torch.float32):
    q = torch.ones(1, 1, 40, 16, dtype=format, requires_grad=True)
    return attention(q, q, q, causal=None, scale=None, softcap=None, enable_gqa=False)[0]


@pytest.mark.parametrize(
    ("kernels", "parameter"), [(name, one) for name in PARAMETERS for one in PARAMETERS[name]]
)
def test_every_parameter_reaches_its_kernel(kernels, parameter, monkeypatch):
    launches = []
    for name in ("fused", "online", "split", "log_softmax", "attention", "attention_backward"):
        module = __import__(f"suite.kernels.parts.triton_{name}", fromlist=["launch"])
        monkeypatch.setattr(
            module,
            "launch",
            lambda kernel, grid, *_, **constants: launches.append((kernel.fn.__name__, grid, constants)),
        )

    def launched(candidate):
        launches.clear()
        with trying(kernels, candidate):
            CALLS[kernels]()
        return list(launches)

    changed = {**DEFAULT[kernels], parameter: DEFAULT[kernels][parameter] * 2}
    if parameter == "entries_per_warp":  # short rows have the fewest warps
        monkeypatch.setitem(CALLS, "fused", lambda: fused("softmax", torch.ones(1, 16384), -1))
    if parameter == "most_parts":
        changed[parameter] = 4

    assert launched(DEFAULT[kernels]) != launched(changed)


def test_launches_of_the_default_are_as_before(monkeypatch):
    found = SimpleNamespace(**{})
    monkeypatch.setattr(
        "suite.kernels.parts.triton_fused.launch",
        lambda _, grid, *__, **constants: vars(found).update(constants),
    )
    fused("softmax", torch.ones(100, 16384), -1)

    assert (found.ROWS, found.BLOCK, found.num_warps) == (1, 16384, 16)


def test_no_grid_is_larger_than_a_device_takes(monkeypatch):
    """Of the second and the third axis CUDA takes 65535 programs (CUDA C++ programming guide,
    compute capabilities).
    """
    grids = {}
    for module in (triton_attention, triton_attention_backward):
        monkeypatch.setattr(
            module, "launch", lambda kernel, grid, *_, **__: grids.setdefault(kernel.fn.__name__, grid)
        )
    q = torch.ones(1, 1, 1, 16).expand(35000, 2, 40, 16).requires_grad_()

    attention(q, q, q, causal=None, scale=None, softcap=None, enable_gqa=False)[0].sum().backward()

    assert set(grids) == {"attention_kernel", "keys_kernel", "queries_kernel"}
    for grid in grids.values():
        assert math.prod(grid) == 2 * 70000
        assert all(programs <= 65535 for programs in grid[1:])


def test_a_block_of_online_is_no_longer_than_its_rows(monkeypatch):
    launches = []
    monkeypatch.setattr(
        "suite.kernels.parts.triton_online.launch",
        lambda _, grid, *__, **constants: launches.append(constants),
    )
    with trying("online", {"block": 4096, "entries": 4096, "warps": 4}):
        for length in (100, 5000):
            online("softmax", torch.ones(100, length), -1)

    assert [(one["ROWS"], one["BLOCK"]) for one in launches] == [(32, 128), (1, 4096)]


SHARED_BYTES = 227 * 2**10
"""What a block may take of a multiprocessor's shared memory, capability 9.0 (CUDA C++ programming
guide, table of compute capabilities).
"""


@pytest.mark.parametrize("kernels", ["attention_16_bit", "attention_backward_16_bit"])
def test_large_tiles_load_ahead_and_fit_into_shared_memory(kernels, monkeypatch, tmp_path):
    """range() with stages becomes asynchronous copies, which a loop with while has none of."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    chosen = read(FILE)["capability 9.0"][kernels]
    names = ("keys_kernel", "queries_kernel") if "backward" in kernels else ("attention_kernel",)
    module = triton_attention_backward if "backward" in kernels else triton_attention
    for kernel in (getattr(module, name) for name in names):
        found = compiled_for_cuda(kernel, chosen)

        assert found.metadata.shared <= SHARED_BYTES
        assert "cp.async" in found.asm["ptx"]
        assert "wgmma" in found.asm["ptx"]


def compiled_for_cuda(kernel, chosen):
    """For heads of 128 entries in bfloat16 that lie one after the other, as a launch would specialise it."""
    constants = {
        "CAUSAL": True,
        "SOFTCAP": False,
        "QUERIES": chosen["queries"],
        "KEYS": chosen["keys"],
        "SIZE": 128,
        "VALUE": 128,
    }
    constants |= {name: 1 for name in kernel.arg_names if name.endswith("_column")}
    kinds = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "o_ptr", "do_ptr"), "*bf16") | dict.fromkeys(
        ("scale", "softcap"), "fp32"
    )
    kinds |= dict.fromkeys(("lse_ptr", "delta_ptr", "dq_ptr", "dk_ptr", "dv_ptr"), "*fp32")
    aligned = ("_ptr", "_row", "_head", "_batch", "_size")
    return compiled(kernel, kinds, constants, aligned, num_warps=chosen["warps"], num_stages=chosen["stages"])


MOST_THREADS, REGISTERS = 2048, 65536
"""Of a multiprocessor of capability 9.0 (as above)."""


@pytest.mark.parametrize("kernels", ["fused", "online", "split", "rows"])
def test_programs_of_rows_spill_nothing_and_fill_half_of_a_multiprocessor(kernels, monkeypatch, tmp_path):
    """Of bfloat16: rows of 1024 and 16384, of a vocabulary where a program has a part of a row."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches = []

    def launch(kernel, grid, *_, num_warps, **constants):
        launches.append((kernel, num_warps, constants))

    for name in ("fused", "online", "split", "log_softmax"):
        monkeypatch.setattr(f"suite.kernels.parts.triton_{name}.launch", launch)
    call = {"fused": fused, "online": online, "split": split, "rows": lambda op, x, dim: log_softmax(x, dim)}[
        kernels
    ]
    with trying(kernels, read(FILE)["capability 9.0"][kernels]):
        for length in (1024, 16384) if kernels in ("fused", "rows") else (128256,):
            call("softmax", torch.ones(1, length), -1)

    assert launches
    for kernel, warps, constants in launches:
        given = {**constants, "column_stride": 1}
        given = {name: given[name] for name in kernel.arg_names if name in given}
        kinds = dict.fromkeys(("x_ptr", "y_ptr"), "*bf16") | dict.fromkeys(("m_ptr", "d_ptr"), "*fp32")
        aligned = ("_ptr", "row_stride", "n")
        found = compiled(kernel, kinds | dict.fromkeys(given, "constexpr"), given, aligned, num_warps=warps)
        registers, spilled = resources(found, tmp_path)
        assert spilled == 0
        threads = 32 * warps
        assert threads * min(MOST_THREADS // threads, REGISTERS // (threads * registers)) >= MOST_THREADS // 2


def resources(found, tmp_path):
    """(registers of a thread, bytes that it spills) by NVIDIA's assembler, which comes with Triton."""
    (tmp_path / "kernel.ptx").write_text(found.asm["ptx"])
    command = [
        triton.knobs.nvidia.ptxas.path,
        "-v",
        "--gpu-name=sm_90a",
        tmp_path / "kernel.ptx",
        "-o",
        tmp_path / "kernel",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    return int(re.search(r"Used (\d+) registers", said)[1]), int(spilled[1]) + int(spilled[2])
