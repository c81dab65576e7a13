"""Which kernels run where, and that it makes no difference to a right one's records."""

import sys

import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.execution.hosts import Hosts
from suite.execution.in_process import InProcess
from suite.execution.isolated import Isolated
from suite.oracle import Oracle
from suite.session import Request, Session

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what is promised of processes is promised for Linux"
)

CASE = Case(op="softmax", family="normal", shape=(3, 5))
SOURCE = (
    "import sys, torch\nsys.imported_here = True\n\ndef f(x, dim=-1):\n    return torch.softmax(x, dim)\n"
)


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE)
    yield f"{path}:f"
    if hasattr(sys, "imported_here"):
        del sys.imported_here


@pytest.mark.parametrize(
    ("isolate", "own", "from_outside"),
    [("outside", InProcess, Isolated), ("always", Isolated, Isolated), ("never", InProcess, InProcess)],
)
def test_the_choice_says_where_a_kernel_is_loaded_and_runs(isolate, own, from_outside, outside):
    with Hosts(isolate=isolate) as hosts:
        [mine], [theirs] = hosts.load("shifted", "softmax"), hosts.load(outside, "softmax")
        assert [type(hosts.of(kernel)) for kernel in (mine, theirs)] == [own, from_outside]
        assert hasattr(sys, "imported_here") == (isolate == "never")
        assert [evaluate(CASE, k, host=hosts.of(k)).status for k in (mine, theirs)] == ["passed", "passed"]


def test_the_time_of_a_case_is_that_of_a_call_that_is_measured(tmp_path):
    path = tmp_path / "kernels.py"
    path.write_text("import time\n\ndef f(x, dim=-1):\n    time.sleep(60)\n")
    with Hosts(timeout=0.5) as hosts:
        [kernel] = hosts.load(f"{path}:f", "softmax")
        outcome = hosts.of(kernel).call(kernel, torch.zeros(2, 3), {"dim": -1})

    assert (outcome.status, outcome.message[:30]) == ("timed_out", "still in its call after 0.5 s ")


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ("nowhere.py:f", "does not exist"),
        ("no_such_kernel", "unknown kernel 'no_such_kernel' of softmax"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
    ],
)
@pytest.mark.parametrize("isolate", ["always", "never"])
def test_what_is_not_there_is_answered_alike(specification, words, isolate):
    with Hosts(isolate=isolate) as hosts, pytest.raises(ValueError, match=words):
        hosts.load(specification, "softmax")


def test_own_kernels_in_processes_of_their_own_have_the_same_records(tmp_path):
    def records(isolate):
        request = Request(
            ops=("softmax",),
            kernels=("shifted", "naive"),
            dtypes=("float32", "bfloat16"),
            isolate=isolate,
            out=tmp_path / isolate,
        )
        with Session(request) as session:
            return session.run().records

    here, there = records("never"), records("always")

    assert len(here) > 100
    times = {"started": "", "seconds": 0.0}
    assert [record.to_dict() | times for record in here] == [record.to_dict() | times for record in there]


def test_the_memory_of_a_process_is_what_was_asked_for(tmp_path):
    path = tmp_path / "kernels.py"
    path.write_text(
        "import torch\n\ndef f(x, dim=-1):\n    torch.ones(2**26)\n    return torch.softmax(x, dim)\n"
    )
    for gibibytes, status in ((0.125, "out_of_memory"), (1.0, "passed")):
        with Hosts(memory_gibibytes=gibibytes) as hosts:
            [kernel] = hosts.load(f"{path}:f", "softmax")
            assert evaluate(CASE, kernel, host=hosts.of(kernel), oracle=Oracle()).status == status
