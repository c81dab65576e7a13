"""Each law alone: a kernel that breaks it and nothing else, and correct kernels that keep it."""

import ctypes

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.execution.host import Call
from suite.execution.in_process import InProcess
from suite.inputs.layouts import arrange
from suite.kernels import Kernel, own_kernels
from suite.laws import RELATIONS, get_law
from suite.oracle import Oracle

ORACLE = Oracle()


def run(function, law, *, op="softmax", shape=(6, 20), dtype="float32", options=None, target="indices"):
    case = Case(op=op, family="normal", shape=shape, laws=(law,), options=options or {}, target=target)
    kernel = function if isinstance(function, Kernel) else Kernel(id="k", op=op, call=function)
    return evaluate(case, kernel, dtype=dtype, oracle=ORACLE)


def replaying():
    first = {}
    return lambda x, dim=-1: first.setdefault(x.shape, torch.softmax(x, dim)).clone()


def right_at_first():
    calls = []

    def kernel(x, dim=-1):
        calls.append(1)
        return torch.softmax(x, dim) * (1.0 if len(calls) == 1 else 1.5)

    return kernel


def wrong_alone(x, dim=-1):
    return torch.softmax(x, dim) * (1.0 if x.shape[0] > 1 else 1.5)


def raises_alone(x, dim=-1):
    if x.shape[0] == 1:
        raise IndexError("one row only")
    return torch.softmax(x, dim)


def previous_result_at_the_third_call():
    results = []

    def kernel(x, dim=-1):
        results.append(torch.softmax(x, dim))
        return results[-2 if len(results) == 3 else -1].clone()

    return kernel


def maximum_of_the_batch(x, dim=-1):
    e = torch.exp(x - x.max())
    return e / e.sum(dim, keepdim=True)


def nan_spreads(x, dim=-1):
    return torch.softmax(x, dim) + 0 * x.sum()


def wrong_far_from_0(x, dim=-1):
    return torch.softmax(x if x.abs().max() < 100 else 1.01 * x, dim)


def log_sum_exp_subtracted(x, dim=-1):
    return torch.exp(x - torch.logsumexp(x, dim, keepdim=True))


def leaves_the_last_entry_unwritten():
    """From the second call on: what the first leaves there is chance."""
    calls = []

    def kernel(x, dim=-1):
        calls.append(1)
        y = torch.empty_like(x)
        y[...] = torch.softmax(x, dim)
        if len(calls) == 1:
            return y
        fresh = torch.empty_like(x)
        fresh[..., :-1] = y[..., :-1]
        return fresh

    return kernel


def entry(tensor, place):
    """The entry of memory at this place from the tensor's first, or None where there is no memory."""
    where = tensor.storage_offset() + place
    inside = 0 <= where < tensor.untyped_storage().nbytes() // tensor.element_size()
    return torch.as_strided(tensor, (1,), (1,), where) if inside else None


def writes_behind_its_output(x, dim=-1):
    y = torch.empty_like(x)
    y.copy_(torch.softmax(x, dim))
    behind = entry(y, y.numel())
    if behind is not None:
        behind.zero_()
    return y


def writes_before_its_output(x, dim=-1):
    y = x.new_empty(x.shape)
    y.copy_(torch.softmax(x, dim))
    before = entry(y, -1)
    if before is not None:
        before.zero_()
    return y


def writes_before_its_input(x, dim=-1):
    before = entry(x, -1)
    if before is not None:
        before.zero_()
    return torch.softmax(x, dim)


def reads_one_entry_too_many(x, dim=-1):
    y = torch.softmax(x, dim)
    behind = entry(x, x.numel())
    if behind is not None:
        y[-1] = torch.softmax(torch.cat([x[-1], behind]), 0)[:-1]
    return y


def reads_one_entry_too_early(x, dim=-1):
    y = torch.softmax(x, dim)
    before = entry(x, -1)
    if before is not None:
        y[0] = torch.softmax(torch.cat([before, x[0]]), 0)[1:]
    return y


FAULTS = [
    (replaying, "permutation", "repeat"),
    (replaying, "replay", "repeat"),
    (previous_result_at_the_third_call, "replay", "repeat permutation shift"),
    (right_at_first, "repeat", ""),
    (lambda: wrong_alone, "batch", "canaries neighbour permutation repeat replay shift written"),
    (lambda: raises_alone, "batch", "canaries neighbour permutation repeat replay shift written"),
    (lambda: maximum_of_the_batch, "neighbour", "batch canaries permutation repeat replay shift written"),
    (lambda: nan_spreads, "neighbour", "batch canaries permutation repeat replay shift written"),
    (lambda: wrong_far_from_0, "shift", "batch canaries permutation repeat replay written"),
    (lambda: log_sum_exp_subtracted, "shift", "batch canaries permutation repeat replay written"),
    (leaves_the_last_entry_unwritten, "written", ""),
    (lambda: writes_behind_its_output, "canaries", "batch neighbour permutation repeat replay shift written"),
    (lambda: writes_before_its_output, "canaries", "batch neighbour permutation repeat replay shift written"),
    (lambda: writes_before_its_input, "canaries", "batch neighbour permutation repeat replay shift written"),
    (lambda: reads_one_entry_too_many, "canaries", "batch neighbour permutation repeat replay shift written"),
    (
        lambda: reads_one_entry_too_early,
        "canaries",
        "batch neighbour permutation repeat replay shift written",
    ),
]


@pytest.mark.parametrize(
    ("make", "law", "kept"),
    FAULTS,
    ids=[f"{law}-{(make() if 'lambda' in make.__name__ else make).__name__}" for make, law, _ in FAULTS],
)
def test_a_law_catches_what_one_output_cannot_show(make, law, kept):
    broken = run(make(), law)

    assert broken.status == "law_broken", broken.message
    assert f"law       {law}:" in broken.message
    for other in kept.split():
        record = run(make(), other)
        assert record.status == "passed", record.message


def test_every_law_has_a_fault():
    assert {law for _, law, _ in FAULTS} == set(RELATIONS)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (writes_behind_its_output, "a tensor that the kernel made: 1 entries behind it were overwritten"),
        (writes_before_its_output, "a tensor that the kernel made: 1 entries before it were overwritten"),
        (writes_before_its_input, "the input: 1 entries before it were overwritten"),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_what_was_overrun_is_said(fault, what, dtype):
    assert what in run(fault, "canaries", dtype=dtype).message


@pytest.mark.parametrize("law", RELATIONS)
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_correct_kernels_keep_every_law(law, op, dtype):
    for kernel in own_kernels(op).values():
        if kernel.id in ("shifted", "online"):
            record = run(kernel, law, op=op, dtype=dtype)
            assert record.status == "passed", record.message


OPTIONS = [{"reduction": "none"}, {"reduction": "mean", "label_smoothing": 0.1}, {"reduction": "sum"}]


@pytest.mark.parametrize("law", RELATIONS)
@pytest.mark.parametrize("target", ["indices", "probabilities"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_correct_kernels_of_cross_entropy_keep_every_law(law, target, dtype):
    for kernel in own_kernels("cross_entropy").values():
        if kernel.id in ("shifted", "online"):
            for options in OPTIONS:
                record = run(kernel, law, op="cross_entropy", dtype=dtype, options=options, target=target)
                assert record.status == "passed", record.message


def replaying_losses():
    first = {}
    return lambda z, t, **options: first.setdefault(z.shape, cross_entropy(z, t, **options)).clone()


def loss_with_the_maximum_of_the_batch(z, t, **options):
    z = z - z.max()
    return cross_entropy(torch.log(torch.exp(z)), t, **options)


def loss_writes_before_its_logits(z, t, **options):
    writes_before_its_input(z)
    return cross_entropy(z, t, **options)


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (replaying_losses, "replay"),
        (replaying_losses, "permutation"),
        (lambda: loss_with_the_maximum_of_the_batch, "neighbour"),
        (lambda: loss_writes_before_its_logits, "canaries"),
        (
            lambda: (
                lambda z, t, **options: cross_entropy(z if z.abs().max() < 100 else 1.01 * z, t, **options)
            ),
            "shift",
        ),
    ],
)
def test_losses_that_break_a_law_are_caught(make, law):
    options = {"reduction": "none"}
    broken = run(make(), law, op="cross_entropy", options=options)
    assert broken.status == "law_broken", broken.message
    assert f"law       {law}:" in broken.message
    assert run(make(), "repeat", op="cross_entropy", options=options).status == "passed"


@pytest.mark.parametrize("law", ["batch", "neighbour"])
def test_a_law_that_says_nothing_of_a_reduced_loss_compares_nothing(law):
    record = run(
        own_kernels("cross_entropy")["shifted"], law, op="cross_entropy", options={"reduction": "mean"}
    )
    assert record.status == "passed"
    assert record.bitwise == {}


def numpy_softmax(x, dim=-1):
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def numpy_writes_before_its_input(x, dim=-1):
    """As a C extension that was given a pointer. In plain memory the entry before is not ours to write."""
    if guarded_now():
        ctypes.memset(x.ctypes.data - x.itemsize, 0, x.itemsize)
    return numpy_softmax(x, dim)


def guarded_now():
    """Whether this call is between canaries: a dispatch mode is on."""
    return torch.utils._python_dispatch._get_current_dispatch_mode() is not None


@pytest.mark.parametrize("law", RELATIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_correct_kernels_of_numpy_keep_every_law(law, dtype):
    def kernel(x, dim=-1):
        return numpy_softmax(x.astype(np.float64), dim).astype(x.dtype)

    record = run(Kernel(id="k", op="softmax", call=kernel, adapter="numpy"), law, dtype=dtype)
    assert record.status == "passed", record.message


def test_a_numpy_kernel_that_writes_before_its_input_is_caught():
    kernel = Kernel(id="k", op="softmax", call=numpy_writes_before_its_input, adapter="numpy")

    assert "the input: 1 entries before it were overwritten" in run(kernel, "canaries").message
    assert run(kernel, "written").status == "passed"


@pytest.mark.parametrize("memory", ["filled", "guarded"])
def test_memory_under_watch_is_full_of_nan_and_the_switches_are_back_afterwards(memory):
    made = []

    def kernel(x, dim=-1):
        made.extend(
            [torch.empty(3), torch.empty_like(x), x.new_empty(2, 2), torch.empty_strided((2, 3), (1, 2))]
        )
        made.append(torch.empty(4, dtype=torch.int32))
        return torch.softmax(x, dim)

    mode, fill = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory
    call = Call({"x": torch.zeros(2, 3)}, {"dim": -1}, memory)
    [outcome] = InProcess().submit(Kernel(id="k", op="softmax", call=kernel), [call])
    assert outcome.status is None, outcome.message
    assert outcome.state_changes == ()
    assert outcome.overrun == ""
    assert all(bool(t.isnan().all()) for t in made[:4])
    assert [tuple(t.shape) for t in made] == [(3,), (2, 3), (2, 2), (2, 3), (4,)]
    assert made[3].stride() == (1, 2)
    assert torch.get_deterministic_debug_mode() == mode
    assert torch.utils.deterministic.fill_uninitialized_memory == fill


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided", "padded", "expanded"])
def test_canaries_keep_the_layout_of_the_input(layout):
    seen = []

    def kernel(x, dim=-1):
        seen.append((x.clone(), x.stride()))
        return torch.softmax(x, dim)

    x = arrange(torch.zeros(3, 5) if layout == "expanded" else torch.arange(15.0).reshape(3, 5), layout)
    [outcome] = InProcess().submit(
        Kernel(id="k", op="softmax", call=kernel), [Call({"x": x}, {"dim": -1}, "guarded")]
    )
    assert outcome.overrun == ""
    assert not outcome.modified
    ((values, stride),) = seen
    assert torch.equal(values, x)
    assert stride == x.stride()


@pytest.mark.parametrize(
    ("shape", "dim"), [((20,), 0), ((4, 5), 0), ((2, 5, 3), 1), ((2, 3, 5), -1), ((1, 7), -1)]
)
@pytest.mark.parametrize("op", ["softmax", "logsumexp"])
def test_laws_hold_along_any_dim(op, shape, dim):
    function = getattr(torch, op)
    for law in RELATIONS:
        record = run(lambda x, dim=-1: function(x, dim), law, op=op, shape=shape, options={"dim": dim})
        assert record.status == "passed", record.message


def test_bitwise_agreement_is_recorded_and_not_judged():
    calls = []

    def other_bits(x, dim=-1):
        calls.append(1)
        y = torch.softmax(x, dim)
        return torch.nextafter(y, torch.ones(())) if len(calls) > 1 else y

    record = run(other_bits, "repeat")
    assert record.status == "passed"
    assert record.bitwise == {"repeat": False}
    assert run(torch.softmax, "repeat").bitwise == {"repeat": True}


def test_an_unknown_law_is_answered_with_the_valid_ones():
    with pytest.raises(
        ValueError, match="unknown law 'shfit'; expected one of batch, canaries, neighbour, permutation, "
    ):
        get_law("shfit")
