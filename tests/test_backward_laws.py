"""The laws of gradients: for each a fault that it finds and no other law does, and correct kernels
that keep it.
"""

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.formats import DTYPES, float16
from suite.inputs.upstream import UPSTREAMS
from suite.kernels import Kernel, own_kernels
from suite.laws import Trial, get_law
from suite.oracle import Oracle

ORACLE = Oracle()
LINEAR = ("doubled", "other_upstream")
OF_ANY_OP = ("repeat", "written", "canaries")
"""The further laws that a case of the backward may ask for."""


def run(kernel, *laws, op="softmax", shape=(6, 20), upstream="normal", dtype="float32", **case):
    kernel = kernel if isinstance(kernel, Kernel) else Kernel(id="k", op=op, call=kernel)
    given = Case(op=op, family="normal", shape=shape, upstream=upstream, laws=laws, **case)
    return evaluate(given, kernel, dtype=dtype, oracle=ORACLE)


def softmax_whose_upstream_is(seen):
    """A softmax whose backward is right for seen(g) in place of the upstream g."""

    class Softmax(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            p = torch.softmax(x, -1)
            ctx.save_for_backward(p)
            return p

        @staticmethod
        def backward(ctx, g):
            (p,) = ctx.saved_tensors
            g = seen(g)
            return p * (g - (p * g).sum(-1, keepdim=True))

    return lambda x, dim=-1: Softmax.apply(x)


def clipped():
    """No normal number of the inputs is beyond 4.76, and twice one often is."""
    return softmax_whose_upstream_is(lambda g: g.clamp(-5, 5))


def of_the_first_direction():
    """Only the size of a later upstream counts."""
    kept = []

    def seen(g):
        kept.append(kept[0] if kept else g.clone())
        return kept[-1] * (g.norm() / kept[-1].norm())

    return softmax_whose_upstream_is(seen)


def of_the_call_before_at_the_third():
    kept = []

    def seen(g):
        kept.append(g.clone())
        return kept[-2] if len(kept) == 3 else g

    return softmax_whose_upstream_is(seen)


FAULTS = {
    "clipped": (clipped, "doubled", "the upstream doubled"),
    "of_the_first_direction": (of_the_first_direction, "other_upstream", "the upstream reversed"),
    "of_the_call_before_at_the_third": (
        of_the_call_before_at_the_third,
        "other_upstream",
        "the first upstream once more",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_law_finds_a_fault_that_no_other_finds(name):
    fault, law, words = FAULTS[name]
    found = {one: run(fault(), one) for one in (*LINEAR, *OF_ANY_OP)}

    assert run(fault()).status == "passed"
    assert {one for one, record in found.items() if record.status != "passed"} == {law}
    assert found[law].status == "law_broken"
    assert f"law       {law}: {words}: softmax backward float32 [6, 20]: inaccurate" in found[law].message


KEEPING = [
    (op, kernel)
    for op, kernels in (
        ("softmax", ("fused", "shifted", "online")),
        ("log_softmax", ("shifted",)),
        ("logsumexp", ("shifted",)),
        ("cross_entropy", ("shifted",)),
    )
    for kernel in kernels
]


@pytest.mark.parametrize(("op", "kernel"), KEEPING)
def test_correct_kernels_keep_them(op, kernel):
    """In every format, each with a kind of upstream of its own, and with the largest upstream there is."""
    for number, dtype in enumerate(DTYPES):
        for upstream in (list(UPSTREAMS)[(number + len(kernel)) % len(UPSTREAMS)], "huge"):
            record = run(own_kernels(op)[kernel], *LINEAR, *OF_ANY_OP, op=op, upstream=upstream, dtype=dtype)
            assert record.status == "passed", record.message
            assert record.bitwise["repeat"] is True


def test_a_right_way_back_is_linear_to_the_bit_and_where_it_underflows_within_the_bound():
    fused = own_kernels("softmax")["fused"]
    normal, tiny = run(fused, "doubled"), run(fused, "doubled", upstream="tiny", dtype="float16")

    assert (normal.status, normal.bitwise) == ("passed", {"doubled": True})
    assert (tiny.status, tiny.bitwise) == ("passed", {"doubled": False})


def test_both_upstreams_of_attention_with_its_log_sum_exp_take_part():
    """A fault in the gradient through the second output alone is found."""

    def attention(q, k, v, return_lse=True, clip=False):
        s = q @ k.mT / q.shape[-1] ** 0.5
        lse = torch.logsumexp(s, -1)
        if clip and lse.requires_grad:
            lse.register_hook(lambda g: g.clamp(-3, 3))
        return torch.softmax(s, -1) @ v, lse

    def clipping(q, k, v, return_lse=True):
        return attention(q, k, v, clip=True)

    case = {"op": "attention", "shape": (1, 2, 9, 4), "options": {"return_lse": True}}
    right, wrong = (run(f, *LINEAR, **case) for f in (attention, clipping))

    assert right.status == "passed", right.message
    assert wrong.status == "law_broken"
    assert "law       doubled" in wrong.message


def trial_of(upstream):
    return Trial(
        inputs={"x": np.zeros((1, 2)), "upstream": np.array(upstream)}, options={"dim": -1},
        output=np.zeros((1, 2)), dim=1, keeps_length=False, targeted=False, format=float16, judge_output=None,
        unsupported=None,
    )  # fmt: skip


def test_an_upstream_that_cannot_be_doubled_is_not_asked_about():
    law = get_law("doubled")(trial_of([[40000.0, 1.0]]))
    with pytest.raises(StopIteration) as end:
        next(law)

    assert end.value.value.held
    assert end.value.value.note == "twice the upstream is no number of the format"
    [call] = next(get_law("doubled")(trial_of([[10000.0, 1.0]])))
    assert call.inputs["upstream"].tolist() == [[20000.0, 2.0]]


def test_the_other_upstream_is_the_same_numbers_at_other_places_and_the_first_comes_back():
    reversed_call, again = next(get_law("other_upstream")(trial_of([[3.0, 1.0]])))

    assert reversed_call.inputs["upstream"].tolist() == [[1.0, 3.0]]
    assert again.inputs == {}
