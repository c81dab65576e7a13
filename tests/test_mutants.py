"""The judge is judged: every mutant is caught by the smoke and quick cases, by a status that
the mutant explains.
"""

import inspect
import math

import numpy as np
import pytest
import torch

from suite import Numerics, inputs, judge
from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.execution.in_process import InProcess
from suite.formats import float32
from suite.kernels import Kernel
from suite.ops import NAMES
from suite.oracle import Oracle
from suite.records.record import PASSING
from tests.losses import Loss
from tests.mutants import MUTANTS
from tests.mutants.calls import along, as_if, shifted, upcast
from tests.mutants.mutant import last
from tests.mutants.rows import blocked
from tests.mutants.search import ORACLE, cases_of, catches, caught_by, right

PAIRS = [(mutant.name, dtype) for mutant in MUTANTS.values() for dtype in mutant.dtypes]


def test_there_are_enough_mutants():
    assert len(MUTANTS) >= 420
    assert {op: sum(mutant.op == op for mutant in MUTANTS.values()) >= 14 for op in NAMES} == dict.fromkeys(
        NAMES, True
    )


@pytest.mark.share(of=5, by=lambda name, dtype: (MUTANTS[name].op, MUTANTS[name].direction))
@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_a_mutant_is_caught_for_its_own_reason(name, dtype):
    mutant = MUTANTS[name]
    caught = catches(mutant, dtype, profile="standard")

    assert any(right(mutant, record) for record in caught), f"{name} passes: {mutant.breaks}"
    assert all(record.message and record.reproduce for record in caught)


def test_an_exp2_of_degree_3_is_caught_in_bfloat16():
    """Its error of 8.8e-5 is a fortieth of a unit of the output, so nearly every result of bfloat16
    is right all the same.
    """
    _, record = caught_by(MUTANTS["softmax: coarse_exp2"], "bfloat16", profile="smoke")

    assert record.status == "inaccurate"
    assert record.judgement.failed < record.judgement.entries / 2


@pytest.mark.share(of=2)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loss_whose_steps_are_replaced_is_right(dtype):
    """Every mutant of cross_entropy is this kernel with one step exchanged."""
    kernel = Kernel(id="loss", op="cross_entropy", call=Loss(), outside=True)
    host = InProcess()
    for name, case in cases_of("cross_entropy", dtype, "quick"):
        if math.prod(case.shape) <= 50_000:
            assert evaluate(case, kernel, dtype=dtype, oracle=ORACLE, host=host).status == "passed", (
                name,
                case.id,
            )


def right_by(name):
    """The kernel of a mutant, mended: what is left of its machinery must pass."""

    def written_in_full(x, dim=-1):
        written = torch.empty(x.shape, dtype=x.dtype)
        written[...] = along(x, dim)
        return written

    def read_by_its_strides(x, dim=-1):
        return along(as_if(x, lambda x: x.stride()), dim)

    def rescaled(x, dim=-1):
        return last(
            lambda x: blocked(
                x, 16, lambda d, m, m_new: d * torch.exp((m - m_new).nan_to_num(0, 0, -torch.inf))
            )
        )(x, dim)

    def one_shifted(x, dim=-1, temperature=1.0, off_by_one=False):
        if not off_by_one:
            return torch.softmax(shifted(x, dim) / temperature, dim).to(x.dtype)
        m = upcast(x).amax(dim, keepdim=True).clamp(min=0)
        e = torch.exp((upcast(x) - m) / temperature)
        return (e / (e.sum(dim, keepdim=True) + torch.exp(-m / temperature))).to(x.dtype)

    return {f.__name__: f for f in (written_in_full, read_by_its_strides, rescaled, one_shifted)}[name]


@pytest.mark.share(of=2)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["written_in_full", "read_by_its_strides", "rescaled", "one_shifted"])
def test_a_mutant_that_is_mended_passes(name, dtype):
    call, host = right_by(name), InProcess()
    parameters = frozenset(inspect.signature(call).parameters)
    kernel = Kernel(id=name, op="softmax", call=call, outside=True, parameters=parameters)
    for _, case in cases_of("softmax", dtype, "smoke"):
        record = evaluate(case, kernel, dtype=dtype, oracle=ORACLE, host=host)
        assert record.status in PASSING, record.message


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
    """Normal logits of this length hide all three mutants behind a relative bound of a percent;
    these families cannot.
    """
    x = torch.from_numpy(inputs.build(family, 2, 151936, float32, 0)).float()
    oracle = Oracle()

    assert judge("softmax", x, torch.softmax(x, -1), oracle=oracle).passed
    for kernel in (bfloat16_denominator, last_entry_left_out, last_tile_not_rescaled):
        assert judge("softmax", x, kernel(x), oracle=oracle).status == "inaccurate", kernel.__name__


def test_a_vacuous_declaration_is_unjudged_and_never_passed():
    """A bfloat16 accumulator over 1000 equal entries may be wrong by half: whatever it returns
    proves nothing.
    """
    x = torch.zeros(4, 1000)
    judgement = judge("softmax", x, torch.softmax(x, -1), numerics=Numerics(accumulate="bfloat16"))

    assert judgement.status == "unjudged"
    assert judgement.judged == 0
    with pytest.raises(AssertionError, match="nothing was proved"):
        judgement.raise_if_failed()


def test_flushing_host_does_not_change_a_verdict():
    """A kernel that leaves flush-to-zero on is itself law_broken, and the next kernel's reference
    is not touched.
    """

    def flusher(x, dim=-1):
        torch.set_flush_denormal(True)
        return torch.softmax(x, dim)

    case = Case(op="softmax", family="underflow_edge", shape=(8, 33))
    oracle, host = Oracle(), InProcess()
    bad = evaluate(
        case, Kernel(id="flusher", op="softmax", call=flusher), dtype="float64", oracle=oracle, host=host
    )
    good = evaluate(
        case, Kernel(id="good", op="softmax", call=torch.softmax), dtype="float64", oracle=Oracle(), host=host
    )

    assert "law_broken" in bad.broken
    assert "subnormals_flushed from False to True" in bad.message
    assert good.status == "passed"
    assert np.float64(1e-310) * 1.0 != 0
