"""saved_tensors.py: tensors of files from strangers, against a writer made from the format's
specification.
"""

import gc
import io
import json
import os
import random
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.inputs.saved_tensors import load, pick
from suite.tensors import bits

NAMES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
NAMES |= {torch.int64: "I64", torch.int32: "I32"}


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def safetensors(tensors, *, metadata=None, padding=0):
    """https://github.com/huggingface/safetensors#format: u64 little-endian N, N bytes of JSON
    padded by spaces, the data.
    """
    header = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, tensor in tensors.items():
        start, data = len(data), data + raw(tensor)
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, len(data)],
        }
    return with_header(json.dumps(header).encode() + b" " * padding, data)


def with_header(header, data):
    return len(header).to_bytes(8, "little") + header + data


def npz(arrays, *, compressed=False):
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors")


def saved(folder, content, ending=".safetensors"):
    path = folder / f"file{ending}"
    path.write_bytes(content)
    return path


def value_or_value_error(path, **options):
    """Whether the file was read. Any other exception than ValueError fails the test."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # numpy warns of headers by Python 2
        try:
            tensors = load(path, **options)
        except ValueError:
            return False
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    return True


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def tensors(draw):
    dtype, shape = draw(st.sampled_from(sorted(NAMES, key=str))), draw(shapes)
    size = int(np.prod(shape, dtype=np.int64)) * torch.empty(0, dtype=dtype).element_size()
    content = draw(st.binary(min_size=size, max_size=size))
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy()).view(dtype).reshape(shape)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=5), tensors(), max_size=4), st.integers(0, 9))
def test_safetensors_gives_every_bit_that_a_writer_by_the_specification_wrote(scratch, written, padding):
    written.pop("__metadata__", None)
    path = saved(scratch, safetensors(written, metadata={"format": "pt"}, padding=padding))
    read = load(path)

    assert list(read) == list(written)
    for name, tensor in written.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert np.array_equal(bits(read[name]), bits(tensor))


EXAMPLE = {"x": torch.tensor([[1.0, -2.0], [float("nan"), 0.5]]), "y": torch.ones(3, dtype=torch.bfloat16)}
changes = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=200)
@given(changes, st.none() | st.integers(0, 300))
def test_changed_bytes_of_a_safetensors_file_give_value_error_or_a_value(scratch, changes, cut):
    content = bytearray(safetensors(EXAMPLE))
    for place, byte in changes:
        content[place % len(content)] = byte
    value_or_value_error(saved(scratch, bytes(content[:cut])))


def test_a_safetensors_file_cut_at_any_byte_is_refused(scratch):
    content = safetensors(EXAMPLE)

    assert [cut for cut in range(len(content)) if value_or_value_error(saved(scratch, content[:cut]))] == []
    assert value_or_value_error(saved(scratch, content))


sizes = st.sampled_from(
    [-1, 0, 1, 2, 4, 7, 2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, 1.5, "2", None, True]
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(sizes, max_size=4),
    st.lists(sizes, max_size=3) | st.just([0, 0]) | st.just([0, 16]),
    st.sampled_from(["F32", "F16", "F64", "I32", "", 7, None, []]),
)
def test_a_safetensors_header_by_a_stranger_gives_value_error_or_a_value_within_the_file(
    scratch, shape, offsets, dtype
):
    header = {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    path = saved(scratch, with_header(json.dumps(header).encode(), bytes(16)))

    if value_or_value_error(path):
        assert load(path)["x"].nbytes <= 16


@pytest.mark.parametrize("shape", [[2**32, 2**32], [2**62, 4], [2**33, 2**31]], ids=str)
def test_a_safetensors_shape_whose_product_overflows_is_refused(scratch, shape):
    """The product wraps around to 0 in 64 bits, which is just the size of no data."""
    header = {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}

    assert not value_or_value_error(saved(scratch, with_header(json.dumps(header).encode(), b"")))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff",
        b"{",
        b'{"x": 1}',
        b'{"x": []}',
        b'{"x": {}}',
        b'{"x": null}',
    ],
    ids=repr,
)
def test_a_safetensors_header_of_another_shape_is_refused(scratch, header):
    assert not value_or_value_error(saved(scratch, with_header(header, b"")))


def test_a_safetensors_header_nested_without_end_is_refused(scratch):
    assert not value_or_value_error(saved(scratch, with_header(b"[" * 200_000, b"")))


def test_a_safetensors_header_longer_than_the_file_is_refused_before_it_is_read(scratch):
    for length in (1, 100, 2**31, 2**63, 2**64 - 1):
        with pytest.raises(ValueError, match="the file is shorter than its header says"):
            load(saved(scratch, length.to_bytes(8, "little")))


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_npz_gives_every_bit_that_numpy_wrote(scratch, dtype, compressed):
    written = {
        "x": np.array([[1.0, -0.0], [np.nan, np.inf]], dtype=dtype),
        "y": np.zeros((0, 3), dtype=dtype),
    }
    read = load(saved(scratch, npz(written, compressed=compressed), ".npz"))

    assert list(read) == ["x", "y"]
    for name, array in written.items():
        assert tuple(read[name].shape) == array.shape
        assert bits(read[name]).tobytes() == array.tobytes()


def test_npz_keeps_the_shape_of_a_scalar(scratch):
    assert tuple(load(saved(scratch, npz({"x": np.float32(2.0)}), ".npz"))["x"].shape) == ()


def test_npz_takes_arrays_in_column_order(scratch):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))

    assert np.array_equal(load(saved(scratch, npz({"x": array}), ".npz"))["x"].numpy(), array)


@pytest.mark.parametrize(
    ("dtype", "patterns"),
    [
        ("bfloat16", np.array([0x3F80, 0xBF80, 0x7FC1], dtype=np.uint16)),
        ("float16", np.array([0x3C00, 0xBC00, 0x7E01], dtype=np.uint16)),
        ("float8_e5m2", np.array([0x3C, 0xBC, 0x7F], dtype=np.uint8)),
        ("bfloat16", np.array([0x3F80, 0xBF80, 0x7FC1], dtype=np.uint16).view("V2")),
    ],
)
def test_npz_gives_raw_patterns_in_the_format_that_is_named(scratch, dtype, patterns):
    read = load(saved(scratch, npz({"x": patterns}), ".npz"), dtype=dtype)["x"]

    assert read.dtype == getattr(torch, dtype)
    assert read[:2].double().tolist() == [1.0, -1.0]
    assert bits(read).tobytes() == patterns.tobytes()


@pytest.mark.parametrize(
    ("array", "dtype", "message"),
    [
        (
            np.zeros(2, dtype=np.uint16),
            None,
            "x has raw uint16 patterns: say which format they are with --dtype",
        ),
        (np.zeros(2, dtype=np.uint16), "float32", "x has 16-bit patterns, which are no float32"),
        (np.zeros(2, dtype=np.uint8), "float16", "x has 8-bit patterns, which are no float16"),
        (np.zeros(2, dtype=np.uint16), "half", "half"),
        (np.array(["text"]), None, r"file\.npz' cannot be read: \S"),
        (np.array([{}], dtype=object), None, r"Object arrays cannot be loaded when allow_pickle=False"),
        (np.zeros(2, dtype=">f4"), None, r"byte order"),
    ],
)
def test_npz_arrays_that_are_no_tensor_are_refused_with_the_reason(scratch, array, dtype, message):
    path = saved(scratch, npz({"x": array}), ".npz")

    with pytest.raises(ValueError, match=message):
        load(path, dtype=dtype)


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("change", [0x00, 0xFF, 0x01, 0x80], ids=hex)
def test_any_one_changed_byte_of_an_npz_gives_value_error_or_a_value(scratch, compressed, change):
    """Every byte of the file: set to 0, set to 255, lowest and highest bit flipped."""
    content = npz({"x": np.array([1.0, 2.0], dtype=np.float32)}, compressed=compressed)
    others = {}
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] = change if change in (0, 0xFF) else changed[place] ^ change
        try:
            value_or_value_error(saved(scratch, bytes(changed), ".npz"))
        except Exception as error:
            others.setdefault(f"{type(error).__name__}: {error}", place)
    assert others == {}


def test_an_npz_cut_at_any_byte_is_refused(scratch):
    content = npz({"x": np.array([1.0, 2.0], dtype=np.float32)})

    assert [
        cut for cut in range(len(content)) if value_or_value_error(saved(scratch, content[:cut], ".npz"))
    ] == []


def test_an_npz_that_is_refused_is_closed(scratch):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert not value_or_value_error(saved(scratch, npz({"x": np.ones(2)})[:-9], ".npz"))
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == []


def npz_with(member, *names, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as file:
        warnings.simplefilter("ignore", UserWarning)  # of names that stand twice
        for name in names or ("x.npy",):
            file.writestr(name, member)
    return stream.getvalue()


def npy(header):
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        npz_with(b""),
        npz_with(b"text"),
        npz_with(b"text", "x.txt"),
        npz_with(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,)}")),
        npz_with(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}")),
        npz_with(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}")),
        npz_with(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}")),
        npz_with(npy("{'descr': 'O', 'fortran_order': False, 'shape': (3,)}")),
        npz_with(npy("((((" * 400)),
        b"\x93NUMPY\x01\x00" + npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}")[8:],
    ],
    ids=["empty", "text", "empty member", "text member", "other member", "huge", "wraps", "negative", "short",
        "pickle", "deep",
         "a plain npy"],
)  # fmt: skip
def test_an_npz_by_a_stranger_is_refused(scratch, content):
    assert not value_or_value_error(saved(scratch, content, ".npz"))


@pytest.mark.parametrize(
    ("descr", "shape", "message"),
    [
        ("'<f4'", "(1152921504606846976,)", "needs 4,611,686,018,427,387,904 bytes, and there are 1"),
        ("'<f4'", "(-4,)", "none below 0"),
        ("'<f4'", "(" + "1," * 65 + ")", "at most 64 sizes"),
        ("[('a', '<f4'), ('b', '<i4')]", "(1,)", "expected numbers"),
        ("('<f4', (1000000000,))", "()", "expected numbers|cannot be read"),
        ("'V0'", "(4611686018427387904,)", "cannot be read"),
        ("'O'", "(1,)", "allow_pickle=False"),
    ],
    ids=["terabytes", "negative", "dims", "records", "subarray", "nothing each", "objects"],
)
def test_an_npy_header_is_checked_before_anything_is_allocated(scratch, descr, shape, message):
    header = npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")
    path = saved(scratch, npz_with(header + bytes(16)), ".npz")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_arrays_in_column_order_big_endian_and_without_dims_are_read_or_refused_with_the_reason(scratch):
    with pytest.raises(ValueError, match="byte order"):
        load(saved(scratch, npz({"x": np.asfortranarray(np.ones((2, 3), dtype=">f8"))}), ".npz"))
    read = load(
        saved(
            scratch,
            npz({"a": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)), "b": np.float64(7)}),
            ".npz",
        )
    )
    assert np.array_equal(read["a"].numpy(), np.arange(24.0).reshape(2, 3, 4))
    assert read["a"].is_contiguous()
    assert (tuple(read["b"].shape), float(read["b"])) == ((), 7.0)


def test_a_bomb_is_refused_by_what_it_claims(scratch):
    """2 GiB of zeros in 2 MB: nothing is unpacked to find out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name in "ab":
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(b"x")
    content = bytearray(stream.getvalue())
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as file:
        start = file.start_dir
    while (
        start := content.find(b"PK\1\2", start)
    ) >= 0:  # the size that the directory claims of each member: 2 GiB
        content[start + 24 : start + 28] = (2**31).to_bytes(4, "little")
        start += 4
    with pytest.raises(
        ValueError,
        match=r"its arrays have 4,294,967,296 bytes, in a file of \d+; at most 1,073,741,824 are read",
    ):
        load(saved(scratch, bytes(content), ".npz"))


def test_members_that_numpy_never_writes_are_refused(scratch):
    whole = npz({"x": np.ones(2)})
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        member = file.read("x.npy")
    expected = {
        npz_with(member, "x.npy", "x.npy"): "'x' stands twice in it",
        npz_with(member, "x.txt"): "member 'x.txt' is no .npy file",
        npz_with(member, method=zipfile.ZIP_LZMA): "'x' is neither stored nor deflated",
        npz_with(member + b"more"): "does not fit its data",
    }
    for content, message in expected.items():
        with pytest.raises(ValueError, match=message):
            load(saved(scratch, content, ".npz"))


def test_a_name_that_is_a_path_is_a_name_and_writes_nothing(tmp_path):
    """Members are read in memory; the name of one is the name of its tensor and nothing else."""
    with zipfile.ZipFile(io.BytesIO(npz({"x": np.ones(2)}))) as file:
        member = file.read("x.npy")
    (tmp_path / "inner").mkdir()
    path = saved(tmp_path / "inner", npz_with(member, "../evil.npy", "/tmp/evil.npy", "a/b.npy"), ".npz")

    assert list(load(path)) == ["../evil", "/tmp/evil", "a/b"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file.npz", "inner"]


def test_a_safetensors_header_with_a_name_twice_is_refused(scratch):
    entry = '"x": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}'
    with pytest.raises(ValueError, match="'x' stands twice in one object"):
        load(saved(scratch, with_header(f"{{{entry}, {entry}}}".encode(), bytes(4))))


def test_safetensors_whose_tensors_share_their_bytes_are_refused(scratch):
    """A small file would else become as many tensors as its header has names."""
    entries = {f"x{n}": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for n in range(100)}
    with pytest.raises(ValueError, match="its tensors have 1,600 bytes; the file has 16"):
        load(saved(scratch, with_header(json.dumps(entries).encode(), bytes(16))))


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, ending):
    (tmp_path / f"folder{ending}").mkdir()
    os.mkfifo(tmp_path / f"pipe{ending}")
    (tmp_path / f"loop{ending}").symlink_to(tmp_path / f"loop{ending}")
    (tmp_path / f"device{ending}").symlink_to("/dev/zero")
    expected = {
        "folder": "a folder, not a file",
        "pipe": "a named pipe",
        "loop": "cannot be opened",
        "device": "a device",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=rf"tensor file '.*{name}\{ending}' (is )?{message}"):
            load(tmp_path / f"{name}{ending}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = saved(tmp_path, b"")
    path.chmod(0)
    with pytest.raises(ValueError, match="cannot be opened: Permission denied"):
        load(path)


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    """As commands in reports have it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path, npz({"x": np.ones(2)}), ".npz")

    assert list(load(Path("~/file.npz"))) == ["x"]


def test_three_hundred_corrupted_files_give_value_error_or_a_value_in_little_memory(scratch):
    """Runs of bytes overwritten, removed and doubled, in both formats, with and without compression."""
    chance = random.Random(4)
    arrays = {
        "x": np.arange(64, dtype=np.float32).reshape(8, 8),
        "y": np.ones((3, 4), order="F"),
        "z": np.float64(1),
    }
    valid = [
        (npz(arrays), ".npz"),
        (npz(arrays, compressed=True), ".npz"),
        (safetensors(EXAMPLE), ".safetensors"),
    ]
    read = 0
    tracemalloc.start()
    try:
        for number in range(300):
            content, ending = valid[number % 3]
            start, length = chance.randrange(len(content)), chance.randrange(1, 24)
            middle = [chance.randbytes(length), b"", content[start : start + length] * 2, b"\xff" * length][
                chance.randrange(4)
            ]
            read += value_or_value_error(
                saved(scratch, content[:start] + middle + content[start + length :], ending)
            )
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert 0 < read < 200


def test_another_ending_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"has the ending '.pt'; expected .npz or .safetensors"):
        load(saved(tmp_path, b"", ".pt"))
    with pytest.raises(ValueError, match=r"tensor file '.*absent.npz' does not exist"):
        load(tmp_path / "absent.npz")


def test_a_refusal_names_the_file(tmp_path):
    for ending in (".npz", ".safetensors"):
        with pytest.raises(ValueError, match=rf"tensor file '.*/file\{ending}' cannot be read: \S"):
            load(saved(tmp_path, b"text", ending))


def test_pick_takes_the_first_name_that_there_is(tmp_path):
    assert pick({"input": 1, "x": 2}, ("x", "input"), tmp_path) == 2
    assert pick({"input": 1}, ("x", "input"), tmp_path) == 1
    with pytest.raises(ValueError, match="has no tensor 'y' or 'output'; it has: x, z"):
        pick({"x": 1, "z": 2}, ("y", "output"), tmp_path)
    with pytest.raises(ValueError, match="it has: none"):
        pick({}, ("y",), tmp_path)
