"""The judge is judged: every planted fault is caught by the smoke cases, by a status that its fault explains."""

import numpy as np
import pytest
import torch

from suite import Numerics, inputs, judge
from suite.case import Case
from suite.execution import evaluate
from suite.execution.host import InProcess
from suite.formats import float32
from suite.kernels import Kernel
from suite.oracle import Oracle
from tests.planted_faults import FAULTS, catches


def test_there_are_enough_faults():
    assert len(FAULTS) >= 60


@pytest.mark.parametrize(("name", "dtype"), [(f.name, dtype) for f in FAULTS.values() for dtype in f.dtypes])
def test_fault_is_caught_for_its_own_reason(name, dtype):
    caught = catches(FAULTS[name], dtype)

    assert any(set(record.broken) & set(FAULTS[name].statuses) for record in caught), f"{name} passes: {FAULTS[name].breaks}"
    assert all(record.message and record.reproduce for record in caught)


def bfloat16_denominator(x):
    """Sums of 128 neighbours in float32, then the partial sums in bfloat16."""
    e = torch.exp(x - x.amax(-1, keepdim=True))
    partial = torch.nn.functional.pad(e, (0, -e.shape[-1] % 128)).unflatten(-1, (-1, 128)).sum(-1)
    total = torch.zeros(e.shape[0], 1)
    for p in torch.split(partial, 1, -1):
        total = (total + p).to(torch.bfloat16).float()
    return e / total


def last_entry_left_out(x):
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e[:, :-1].sum(-1, keepdim=True)


def last_tile_not_rescaled(x):
    head, tail = x[:, :-1024], x[:, -1024:]
    m, m_tail = head.amax(-1, keepdim=True), tail.amax(-1, keepdim=True)
    top = torch.maximum(m, m_tail)
    d = torch.exp(head - m).sum(-1, keepdim=True) + torch.exp(tail - top).sum(-1, keepdim=True)
    return torch.exp(x - top) / d


@pytest.mark.parametrize("family", ["sparse", "two_heavy_ends"])
def test_a_row_of_151936_entries_hides_nothing(family):
    """Normal logits of this length hide all three faults behind a relative bound of a percent; these families cannot."""
    x = torch.from_numpy(inputs.build(family, 2, 151936, float32, 0)).float()
    oracle = Oracle()

    assert judge("softmax", x, torch.softmax(x, -1), oracle=oracle).passed
    for kernel in (bfloat16_denominator, last_entry_left_out, last_tile_not_rescaled):
        assert judge("softmax", x, kernel(x), oracle=oracle).status == "inaccurate", kernel.__name__


def test_a_vacuous_declaration_is_unjudged_and_never_passed():
    """A bfloat16 accumulator over 1000 equal entries may be wrong by half: whatever it returns proves nothing."""
    x = torch.zeros(4, 1000)
    judgement = judge("softmax", x, torch.softmax(x, -1), numerics=Numerics(accumulate="bfloat16"))

    assert judgement.status == "unjudged"
    assert judgement.judged == 0
    with pytest.raises(AssertionError, match="nothing was proved"):
        judgement.raise_if_failed()


def test_flushing_host_does_not_change_a_verdict():
    """A kernel that leaves flush-to-zero on is itself law_broken, and the next kernel's reference is not touched."""

    def flusher(x, dim=-1):
        torch.set_flush_denormal(True)
        return torch.softmax(x, dim)

    case = Case(op="softmax", family="underflow_edge", shape=(8, 33))
    oracle, host = Oracle(), InProcess()
    bad = evaluate(case, Kernel(id="flusher", op="softmax", call=flusher), dtype="float64", oracle=oracle, host=host)
    good = evaluate(case, Kernel(id="good", op="softmax", call=torch.softmax), dtype="float64", oracle=Oracle(), host=host)

    assert "law_broken" in bad.broken
    assert "subnormals_flushed from False to True" in bad.message
    assert good.status == "passed"
    assert np.float64(1e-310) * 1.0 != 0
