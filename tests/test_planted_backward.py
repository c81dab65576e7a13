"""The judge of gradients is judged: correct ways back pass in every format, and there are faults
enough of every op.

That each fault is caught is in test_planted_faults.py, with those of the forward. python -m
tests.planted_faults --direction backward prints which profile catches each; python -m
tests.honest_kernels --direction backward takes more seeds.
"""

import inspect
import re
from collections import Counter

import pytest

from suite.execution.evaluation import evaluate
from suite.execution.in_process import InProcess
from suite.kernels import Kernel
from suite.ops import NAMES, row_ops
from suite.records.record import PASSING
from tests import honest_backward
from tests.honest_kernels import kernels_of, records
from tests.planted_backward import (
    RIGHT,
    GradientOfAttention,
    GradientOfLoss,
    GradientOfStates,
    of_attention,
    of_loss,
    of_rows,
    of_states,
)
from tests.planted_faults import FAULTS, ORACLE, cases_of, findings

PLANTED = {name: planted for name, planted in FAULTS.items() if planted.direction == "backward"}
NARROW = ("float32", "bfloat16", "float16")
EVERY = {"attention": 6, "merge_states": 2}
"""Of the cases of an op, each kernel meets one in so many here."""


def test_there_are_enough_faults():
    count = Counter(planted.op for planted in PLANTED.values())

    assert count.total() >= 200
    assert sum(count[op] for op in row_ops()) >= 100
    assert count["attention"] >= 70
    assert count["merge_states"] >= 12


def test_sources_are_issues_of_a_repository():
    sources = {one for planted in PLANTED.values() if planted.source for one in planted.source.split("; ")}

    assert len(sources) >= 25
    assert [one for one in sources if not re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", one)] == []


def test_there_are_enough_structures():
    count = Counter(honest.op for honest in honest_backward.HONEST)

    assert set(count) == set(NAMES)
    assert count.total() >= 60
    assert count["attention"] >= 16


def right(op):
    """The kernel of an op whose steps are exchanged by its faults: with all of them right."""
    made = {
        "cross_entropy": lambda: of_loss(GradientOfLoss()),
        "attention": lambda: of_attention(GradientOfAttention()),
        "merge_states": lambda: of_states(GradientOfStates()),
    }
    call = made[op]() if op in made else of_rows(op, RIGHT[op])
    return Kernel(
        id="right", op=op, call=call, outside=True, parameters=frozenset(inspect.signature(call).parameters)
    )


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("op", NAMES)
def test_the_way_back_whose_steps_are_replaced_is_right(op, dtype):
    """On every case of smoke and quick, none of which it declines."""
    kernel, host = right(op), InProcess()
    for _, case in cases_of(op, dtype, "quick", "backward"):
        record = evaluate(case, kernel, dtype=dtype, oracle=ORACLE, host=host)
        assert record.status == "passed", record.message


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("op", NAMES)
def test_honest_backward_passes(op, dtype):
    found = list(records(op, dtype, seeds=1, every=EVERY.get(op, 4), direction="backward"))

    assert {record.kernel for record in found if record.status == "passed"} == {
        kernel.id for kernel in kernels_of(op, "backward")
    }
    assert not [
        f"{record.kernel}: {record.message}"
        for record in found
        if record.status not in (*PASSING, "unsupported")
    ]


def test_a_fault_of_the_backward_meets_cases_of_the_backward_alone():
    planted = PLANTED["softmax: backward sum_missing"]
    directions = {record.direction for _, record in findings(planted, "float32", profile="quick")}

    assert directions == {"backward"}
    assert not {case.direction for _, case in cases_of("softmax", "float32", "quick")} - {"forward"}


def test_the_forward_of_a_fault_is_right():
    """Its statuses come from the gradient: as a kernel of the forward each passes."""
    first = {planted.op: planted for planted in PLANTED.values()}
    for op, planted in first.items():
        case = next(case for _, case in cases_of(op, "float32", "smoke") if "written" not in case.laws)
        record = evaluate(case, planted.kernel(), dtype="float32", oracle=ORACLE, host=InProcess())
        assert record.status == "passed", (op, record.message)
