"""Layouts: equal values at other places in memory; who reads past the strides fails through the
engine, who does not passes.
"""

import itertools

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.formats import float32
from suite.inputs.layouts import LAYOUTS, arrange
from suite.kernels import Kernel, own_kernels
from suite.oracle import Oracle

ORACLE = Oracle()
SHAPES = [(7,), (1,), (3, 5), (4, 1), (1, 6), (2, 3, 5), (2, 3, 2, 4), (0, 5), (3, 0)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def numbered(shape, layout="contiguous", dtype=torch.float32):
    """Different small integers; the same in every slice of the first dim for the layout that needs it."""
    rest = shape[1:] if layout == "expanded" else shape
    values = torch.arange(int(np.prod(rest)), dtype=torch.float64).reshape(rest)
    return values.expand(shape).contiguous().to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layout", "shape"), list(itertools.product(LAYOUTS, SHAPES)))
def test_a_layout_keeps_values_shape_and_dtype(layout, shape, dtype):
    tensor = numbered(shape, layout, dtype)
    arranged = arrange(tensor, layout)
    assert arranged.shape == tensor.shape
    assert arranged.dtype == dtype
    assert torch.equal(arranged, tensor)


@pytest.mark.parametrize(
    ("layout", "strides", "offset"),
    [
        ("contiguous", (15, 5, 1), 0),
        ("transposed", (1, 2, 6), 0),
        ("strided", (33, 11, 2), 1),
        ("padded", (30, 10, 1), 3),
        ("expanded", (0, 5, 1), 0),
    ],
)
def test_the_strides_are_what_the_name_says(layout, strides, offset):
    arranged = arrange(numbered((2, 3, 5), layout), layout)
    assert arranged.stride() == strides
    assert arranged.storage_offset() == offset


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_between_the_entries_lies_nan_and_nothing_else(layout, dtype):
    arranged = arrange(numbered((3, 5), layout, dtype), layout)
    length = arranged.untyped_storage().nbytes() // arranged.element_size()
    storage = torch.as_strided(arranged, (length,), (1,), 0)
    entries = 5 if layout == "expanded" else 15
    assert int(storage.isfinite().sum()) == entries
    assert int(storage.isnan().sum()) == length - entries
    if layout == "expanded":
        assert length == 15
    if layout in ("strided", "padded"):
        assert storage[0].isnan()
        assert storage[-1].isnan()
        assert length > entries + 10


def test_an_unknown_layout_is_misuse_with_the_valid_ones():
    valid = "contiguous, transposed, strided, padded, expanded"
    with pytest.raises(ValueError, match=f"layout='diagonal' is not one of {valid}"):
        arrange(torch.zeros(2, 3), "diagonal")
    with pytest.raises(ValueError, match=f"layout='diagonal' is not one of {valid}"):
        Case(op="softmax", family="normal", shape=(2, 3), layout="diagonal")


@pytest.mark.parametrize(
    ("shape", "options"),
    [((4, 6), {}), ((4, 6), {"dim": 0}), ((6,), {}), ((2, 3, 5), {"dim": 1}), ((1, 4), {})],
)
def test_the_slices_of_an_expanded_case_are_one(shape, options):
    x = Case(op="softmax", family="normal", shape=shape, options=options, layout="expanded").inputs(float32)[
        "x"
    ]
    assert x.shape == shape
    assert all(np.array_equal(x[0], part) for part in x)
    plain = Case(op="softmax", family="normal", shape=shape, options=options).inputs(float32)["x"]
    assert shape[0] == 1 or not np.array_equal(x, plain)
    if len(shape) > 1 and shape[1] > 1:
        assert len(np.unique(x[0])) == x[0].size


def reads_the_storage(x, dim=-1):
    """As a kernel that was given a pointer and a shape."""
    return torch.softmax(torch.as_strided(x, (x.numel(),), (1,), x.storage_offset()).reshape(x.shape), dim)


def last_stride_is_1(x, dim=-1):
    return torch.softmax(torch.as_strided(x, x.shape, (*x.stride()[:-1], 1)), dim)


def rows_lie_n_apart(x, dim=-1):
    return torch.softmax(torch.as_strided(x, x.shape, (x.shape[-1], x.stride(-1))), dim)


def ignores_the_offset(x, dim=-1):
    return torch.softmax(torch.as_strided(x, x.shape, x.stride(), 0), dim)


def writes_into_its_input(x, dim=-1):
    x[..., :1].add_(0.0).mul_(1.0 + 1e-3)
    return torch.softmax(x, dim)


FAULTS = {
    reads_the_storage: {"transposed", "strided", "padded", "expanded"},
    last_stride_is_1: {"transposed", "strided"},
    rows_lie_n_apart: {"transposed", "strided", "padded", "expanded"},
    ignores_the_offset: {"strided", "padded"},
}


def run(function, layout, *, op="softmax", shape=(6, 33), dtype="float32", options=None):
    case = Case(op=op, family="two_heavy_ends", shape=shape, layout=layout, options=options or {})
    kernel = function if isinstance(function, Kernel) else Kernel(id="k", op=op, call=function)
    return evaluate(case, kernel, dtype=dtype, oracle=ORACLE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_who_takes_memory_for_something_else_fails_just_in_the_layouts_that_show_it(fault, layout):
    record = run(fault, layout)
    assert (record.status == "passed") == (layout not in FAULTS[fault]), record.message


@pytest.mark.parametrize(
    "layout", [layout for layout in LAYOUTS if layout != "expanded"]
)  # torch refuses to write there
def test_a_changed_input_is_seen_in_every_layout(layout):
    record = run(writes_into_its_input, layout)
    assert "law_broken" in record.broken, record.message


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_honest_kernels_pass_in_every_layout(op, layout, dtype):
    kernels = own_kernels(op)
    for name in ("shifted", "online"):
        for shape, options in (((6, 33), {}), ((33, 3), {"dim": 0}), ((9,), {}), ((2, 3, 17), {"dim": -1})):
            record = run(kernels[name], layout, op=op, shape=shape, dtype=dtype, options=options)
            assert record.status == "passed", record.message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numpy_kernels_get_the_same_strides(layout):
    seen = []

    def kernel(x, dim=-1):
        seen.append(tuple(stride // x.itemsize for stride in x.strides))
        e = np.exp(x - x.max(axis=dim, keepdims=True))
        return e / e.sum(axis=dim, keepdims=True)

    record = run(Kernel(id="k", op="softmax", call=kernel, adapter="numpy"), layout)
    assert record.status == "passed", record.message
    assert seen == [arrange(torch.zeros(6, 33), layout).stride()]


@pytest.mark.parametrize("target", ["indices", "probabilities"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cross_entropy_has_layouts_too(layout, target):
    def storage(logits, target, **options):
        flat = torch.as_strided(logits, (logits.numel(),), (1,), logits.storage_offset()).reshape(
            logits.shape
        )
        return torch.nn.functional.cross_entropy(flat, target, **options)

    case = Case(
        op="cross_entropy",
        family="normal",
        shape=(4, 5, 3),
        layout=layout,
        target=target,
        options={"reduction": "none"},
    )
    assert evaluate(case, own_kernels("cross_entropy")["shifted"], oracle=ORACLE).status == "passed"
    fault = evaluate(case, Kernel(id="k", op="cross_entropy", call=storage), oracle=ORACLE)
    assert (fault.status == "passed") == (layout == "contiguous"), fault.message
