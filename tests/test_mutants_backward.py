"""The judge of gradients is judged: correct ways back pass in every format, and there are
enough mutants of every op.

That each mutant is caught is in test_mutants.py, with those of the forward. python -m
tests.mutants --direction backward prints which profile catches each; python -m
tests.honest --direction backward takes more seeds.
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
from tests.honest import backward
from tests.honest.judged import kernels_of, records
from tests.mutants import MUTANTS
from tests.mutants.backward import (
    RIGHT,
    GradientOfAttention,
    GradientOfLoss,
    GradientOfStates,
    of_attention,
    of_loss,
    of_rows,
    of_states,
)
from tests.mutants.search import ORACLE, cases_of, findings

BACKWARD = {name: mutant for name, mutant in MUTANTS.items() if mutant.direction == "backward"}
NARROW = ("float32", "bfloat16", "float16")
EVERY = {"attention": 6, "merge_states": 2}
"""Of the cases of an op, each kernel meets one in so many here."""


def test_there_are_enough_mutants():
    count = Counter(mutant.op for mutant in BACKWARD.values())

    assert count.total() >= 200
    assert sum(count[op] for op in row_ops()) >= 100
    assert count["attention"] >= 70
    assert count["merge_states"] >= 12


def test_sources_are_issues_of_a_repository():
    sources = {one for mutant in BACKWARD.values() if mutant.source for one in mutant.source.split("; ")}

    assert len(sources) >= 25
    assert [one for one in sources if not re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", one)] == []


def test_there_are_enough_structures():
    count = Counter(honest.op for honest in backward.HONEST)

    assert set(count) == set(NAMES)
    assert count.total() >= 60
    assert count["attention"] >= 16


def right(op):
    """The kernel of an op whose steps are exchanged by its mutants: with all of them right."""
    made = {
        "cross_entropy": lambda: of_loss(GradientOfLoss()),
        "attention": lambda: of_attention(GradientOfAttention()),
        "merge_states": lambda: of_states(GradientOfStates()),
    }
    call = made[op]() if op in made else of_rows(op, RIGHT[op])
    return Kernel(
        id="right", op=op, call=call, outside=True, parameters=frozenset(inspect.signature(call).parameters)
    )


@pytest.mark.share(of=3, by=lambda op, dtype: op)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("op", NAMES)
def test_the_way_back_whose_steps_are_replaced_is_right(op, dtype):
    """On every case of smoke and quick, none of which it declines."""
    kernel, host = right(op), InProcess()
    for _, case in cases_of(op, dtype, "quick", "backward"):
        record = evaluate(case, kernel, dtype=dtype, oracle=ORACLE, host=host)
        assert record.status == "passed", record.message


@pytest.mark.share(of=3, by=lambda op, dtype: op)
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


def test_a_mutant_of_the_backward_meets_cases_of_the_backward_alone():
    mutant = BACKWARD["softmax: backward sum_missing"]
    directions = {record.direction for _, record in findings(mutant, "float32", profile="quick")}

    assert directions == {"backward"}
    assert not {case.direction for _, case in cases_of("softmax", "float32", "quick")} - {"forward"}


def test_the_forward_of_a_mutant_is_right():
    """Its statuses come from the gradient: as a kernel of the forward each passes."""
    first = {mutant.op: mutant for mutant in BACKWARD.values()}
    for op, mutant in first.items():
        case = next(case for _, case in cases_of(op, "float32", "smoke") if "written" not in case.laws)
        record = evaluate(case, mutant.kernel(), dtype="float32", oracle=ORACLE, host=InProcess())
        assert record.status == "passed", (op, record.message)
