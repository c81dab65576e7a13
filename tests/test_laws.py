"""Each law alone: a kernel that breaks it and nothing else, and correct kernels that keep it."""

import pytest
import torch

from suite.case import Case
from suite.execution import evaluate
from suite.kernels import Kernel, own_kernels
from suite.laws import all_laws, get_law
from suite.oracle import Oracle

ORACLE = Oracle()


def run(function, law, *, op="softmax", shape=(6, 20), dtype="float32", options=None):
    case = Case(op=op, family="normal", shape=shape, laws=(law,), options=options or {})
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


@pytest.mark.parametrize(
    ("law", "make"),
    [("permutation", replaying), ("repeat", right_at_first), ("batch", lambda: wrong_alone), ("batch", lambda: raises_alone)],
)
def test_a_law_catches_what_one_output_cannot_show(law, make):
    broken = run(make(), law)
    other = "repeat" if law == "permutation" else "permutation" if law == "batch" else None

    assert broken.status == "law_broken"
    assert f"law       {law}:" in broken.message
    if other:
        assert run(make(), other).status == "passed"


@pytest.mark.parametrize("law", sorted(all_laws()))
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_correct_kernels_keep_every_law(law, op, dtype):
    for kernel in own_kernels(op).values():
        if kernel.id in ("shifted", "online"):
            assert run(kernel, law, op=op, dtype=dtype).status == "passed"


@pytest.mark.parametrize(("shape", "dim"), [((20,), 0), ((4, 5), 0), ((2, 5, 3), 1), ((2, 3, 5), -1), ((1, 7), -1)])
@pytest.mark.parametrize("op", ["softmax", "logsumexp"])
def test_laws_hold_along_any_dim(op, shape, dim):
    function = getattr(torch, op)
    for law in all_laws():
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
    with pytest.raises(ValueError, match="unknown law 'shfit'; expected one of batch, canaries, neighbour, permutation, "):
        get_law("shfit")
