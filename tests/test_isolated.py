"""Kernels in processes of their own: each fault its status, the process replaced, and the next call
answered as ever.
"""

import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution import isolated
from suite.execution.evaluation import evaluate
from suite.execution.host import Call, DiedError
from suite.execution.isolated import ATTEMPTS, Isolated
from suite.formats import get_format
from suite.kernels import load_kernels, own_kernels
from suite.ops import get_op
from suite.oracle import Oracle
from tests.crashing_kernels import KINDS, fast_math_library
from tests.extras import needs
from tests.test_report import make

ORACLE = Oracle()
KERNELS = Path(__file__).with_name("crashing_kernels.py")
TIMES = ("started", "seconds")
CASE = Case(op="softmax", family="normal", shape=(8, 33), laws=("permutation", "batch"))

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what is promised of processes is promised for Linux"
)


@pytest.fixture
def host():
    with Isolated(memory_bytes=2**28) as host:
        yield host


@pytest.fixture
def write(tmp_path, host):
    """Writes a kernel file and gives its kernel f, of the host."""

    def written(source, op="softmax", host=host):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))  # a file once imported is not read again
        folder.mkdir()
        path = folder / "kernels.py"
        path.write_text(f"import ctypes, os, signal, sys, threading, time\nimport torch\n{source}")
        [kernel] = host.load(f"{path}:f", op)
        return kernel

    return written


def judged(kernel, host, *, case=CASE, **options):
    return evaluate(case, kernel, oracle=ORACLE, host=host, **options)


def plain(record):
    return {name: value for name, value in record.to_dict().items() if name not in TIMES}


RIGHT = "def f(x, dim=-1): return torch.softmax(x, dim)\n"


# Faults


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_fault_has_its_status_and_a_message_that_says_why(name, host):
    if name == "loads_a_fast_math_library":
        try:
            fast_math_library()
        except FileNotFoundError:
            pytest.skip("there is no C compiler")
    [kernel] = host.load(f"{KERNELS}:{name}", "softmax")
    kind, before = KINDS[name], judged(own_kernels("softmax")["shifted"], host)

    record = judged(kernel, host, timeout=0.4 if kind.status == "timed_out" else 60)

    assert record.status == (kind.status or "passed"), record.message
    assert kind.words in record.message
    assert "Traceback" not in record.message
    assert plain(judged(own_kernels("softmax")["shifted"], host)) == plain(before)


@pytest.mark.parametrize(
    "name", ["loops", "loops_in_c", "waits_in_c_with_the_lock", "writes_through_null", "aborts"]
)
def test_the_message_has_the_line_of_the_kernel(name, host):
    [kernel] = host.load(f"{KERNELS}:{name}", "softmax")
    message = judged(kernel, host, timeout=1).message
    line = int(re.search(r"\(at crashing_kernels\.py:(\d+),? in " + name, message)[1])
    start = KERNELS.read_text().split("\n").index(f"def {name}(x, right):") + 1
    assert start < line <= start + 3


def test_a_flood_is_kept_to_its_end_and_counted(host):
    [kernel] = host.load(f"{KERNELS}:floods_its_output", "softmax")
    output = judged(kernel, host, case=Case(op="softmax", family="normal", shape=(2, 3))).outcome.output

    dropped = int(re.match(r"\[(\d+) bytes before this\] ", output)[1])
    assert output.endswith("a line of output from C\n")
    assert 90_000_000 < dropped < 100_000_000
    assert len(output) < 2100


def test_a_kernel_that_closes_its_output_costs_no_time_of_the_parent(write, host):
    kernel = write(
        "def f(x, dim=-1):\n os.close(1); os.close(2); time.sleep(1); return torch.softmax(x, dim)"
    )
    used = time.process_time()
    record = judged(kernel, host, case=Case(op="softmax", family="normal", shape=(2, 3)))

    assert record.status == "passed", record.message
    assert time.process_time() - used < 0.5


def test_a_crash_at_a_laws_call_is_a_crash(write, host):
    kernel = write("def f(x, dim=-1):\n if len(x) == 1: ctypes.string_at(0)\n return torch.softmax(x, dim)")
    record = judged(kernel, host)

    assert (record.status, record.broken) == ("crashed", ("crashed",))
    assert (
        "law       batch: crashed: its process was killed by SIGSEGV, in its call (at kernels.py:4 in f)"
        in record.message
    )


def test_the_time_is_that_of_all_calls_of_a_case(write, host):
    kernel = write("def f(x, dim=-1):\n time.sleep(0.7); return torch.softmax(x, dim)")
    case = Case(op="softmax", family="normal", shape=(8, 33), laws=("repeat", "permutation", "written"))
    record = judged(kernel, host, case=case, timeout=1.6)

    assert record.status == "timed_out"
    assert "law       written" in record.message or "law       permutation" in record.message
    assert judged(kernel, host, case=case, timeout=60).status == "passed"


def test_without_a_limit_a_kernel_may_take_its_time(write, host):
    kernel = write("def f(x, dim=-1):\n time.sleep(0.3); return torch.softmax(x, dim)")
    assert judged(kernel, host, case=Case(op="softmax", family="normal", shape=(2, 3))).status == "passed"


def test_a_thread_that_crashes_between_two_calls_is_noticed_at_the_next(write, host):
    kernel = write(
        "def f(x, dim=-1):\n"
        " if len(x) == 3: threading.Timer(0.05, lambda: ctypes.string_at(0)).start()\n"
        " return torch.softmax(x, dim)"
    )
    first = judged(kernel, host, case=Case(op="softmax", family="normal", shape=(3, 5)))
    time.sleep(0.3)
    second = judged(kernel, host)
    third = judged(kernel, host)

    assert [r.status for r in (first, second, third)] == ["passed", "crashed", "passed"]
    assert "SIGSEGV" in second.message
    assert "after a call had returned" in second.message


def test_a_kernel_that_prints_while_the_suite_is_at_work_is_not_charged_for_the_wait(write, host):
    """A pipe holds some 64 KiB, and nobody but the suite empties it."""
    kernel = write("def f(x, dim=-1):\n os.write(1, b'x' * 2_000_000); return torch.softmax(x, dim)")
    [warm] = host.submit(kernel, [Call({"x": torch.zeros(2, 3)}, {"dim": -1})])
    outcomes = host.submit(kernel, [Call({"x": torch.zeros(2, 3)}, {"dim": -1})], limit_seconds=1)
    time.sleep(1.5)  # as long as a reference may take
    [outcome] = outcomes

    assert (warm.status, outcome.status) == (None, None), outcome.message
    assert outcome.elapsed_seconds < 1


def test_a_timeout_in_a_later_call_says_what_was_asked_and_what_was_left(write, host):
    kernel = write("def f(x, dim=-1):\n time.sleep(0.5 if len(x) == 8 else 60); return torch.softmax(x, dim)")
    record = judged(kernel, host, timeout=2)

    assert record.status == "timed_out"
    [left] = re.findall(
        r"still in its call after ([\d.]+) s, what was left of 2 s for all calls of its case", record.message
    )
    assert float(left) < 1.5
    assert "left of" not in judged(write("def f(x, dim=-1): time.sleep(60)"), host, timeout=0.3).message


@pytest.mark.parametrize("ending", ["ctypes.string_at(0)", "time.sleep(60)"])
def test_last_words_are_the_kernels_not_the_suites(ending, write, host):
    output = judged(
        write(f"def f(x, dim=-1):\n os.write(1, b'mine'); {ending}"), host, timeout=1.5
    ).outcome.output

    assert output.startswith("mine")
    assert re.search(r'File ".*kernels\.py", line 4 in f', output)
    assert not re.search(r"multiprocessing|suite/execution|<string>", output), output


def test_an_exit_code_is_not_taken_for_a_want_of_memory(write, host):
    for code in (1, 86, 137):
        assert judged(write(f"def f(x, dim=-1): os._exit({code})"), host).status == "crashed"


# What a record may hold


MUCH = "'v' * 10**7"


@pytest.mark.parametrize(
    "source",
    [
        (
            "def f(x, dim=-1):\n [warnings.warn(f'{i} ' + 'v' * 190) for i in range(3000)]; return"
            " torch.softmax(x, dim)"
        ),
        (
            f"def f(x, dim=-1):\n warnings.warn('w', type({MUCH}, (Warning,), {{}})); return torch.softmax(x,"
            " dim)"
        ),
        f"def f(x, dim=-1): raise type({MUCH}, (Exception,), {{}})('e')",
        f"def f(x, dim=-1): raise ValueError({MUCH})",
        f"def f(x, dim=-1):\n print({MUCH}); os.write(1, b'\\xff' * 10**7); return torch.softmax(x, dim)",
        (
            "class W(UserWarning):\n def __str__(self): raise ValueError('no text')\n"
            "def f(x, dim=-1): warnings.warn(W()); return torch.softmax(x, dim)"
        ),
    ],
    ids=["warnings", "a long category", "a long type", "a long message", "output", "a warning without text"],
)
@pytest.mark.parametrize("isolated", [True, False])
def test_no_kernel_makes_a_record_longer_than_some_kilobytes(source, isolated, write, host):
    kernel = write("import warnings\n" + source)
    if not isolated:
        [kernel] = load_kernels(kernel.id, "softmax")
        record = evaluate(CASE, kernel, oracle=ORACLE)
    else:
        record = judged(kernel, host)

    assert record.status in ("passed", "raised"), record.message
    assert len(record.to_json()) < 40_000


def test_of_many_warnings_twenty_are_kept_and_the_others_counted(write, host):
    many = "[warnings.warn(str(i % 30)) for i in range(90)]"
    kernel = write(f"import warnings\ndef f(x, dim=-1):\n {many}; return torch.softmax(x, dim)")
    warnings = judged(kernel, host).outcome.warnings

    assert warnings == (*(f"UserWarning: {i}" for i in range(20)), "and 10 more")


# Set aside


def test_a_kernel_that_ends_three_processes_in_a_row_is_set_aside_and_no_other_is(write, host):
    with Isolated() as own:
        [crashing] = own.load(f"{KERNELS}:aborts", "softmax")
        right = write(RIGHT, host=own)
        statuses = [(judged(crashing, own).status, judged(right, own).status) for _ in range(ATTEMPTS + 2)]
        record = judged(crashing, own)

    assert statuses == [("crashed", "passed")] * ATTEMPTS + [("not_run", "passed")] * 2
    assert record.message.startswith(
        "set aside: it ended 3 processes in a row; the last: crashed, its process was killed by SIGABRT"
    )


def test_an_answer_in_between_clears_the_count(write, host):
    kernel = write("def f(x, dim=-1):\n if len(x) == 8: os.abort()\n return torch.softmax(x, dim)")
    harmless = Case(op="softmax", family="normal", shape=(3, 5))
    statuses = [
        judged(kernel, host, case=case).status for case in (CASE, CASE, harmless, CASE, CASE, harmless)
    ]
    assert statuses == ["crashed", "crashed", "passed", "crashed", "crashed", "passed"]


@pytest.mark.parametrize(
    ("statuses", "status", "message"),
    [
        (
            "passed crashed timed_out crashed",
            "not_run",
            "set aside: it ended 3 processes in a row; the last: crashed, case 3",
        ),
        ("crashed crashed crashed not_run", "not_run", "case 3"),
        ("not_run", "not_run", "case 0"),
        ("crashed unsupported crashed crashed", "not_run", "the last: crashed, case 3"),
        ("crashed crashed passed crashed", "passed", ""),
        ("crashed crashed", "passed", ""),
        ("", "passed", ""),
    ],
)
def test_a_resumed_run_recalls_what_was_set_aside(statuses, status, message, write):
    with Isolated() as own:
        kernel = write(RIGHT, host=own)
        for number, earlier in enumerate(statuses.split()):
            own.note(make(kernel=kernel.id, status=earlier, message=f"case {number}"))
        record = judged(kernel, own)
    assert record.status == status
    assert message in record.message


def test_a_death_in_one_op_and_a_declared_domain_leave_the_other_ops_alone(tmp_path):
    """One name may serve two ops: each has a process of its own."""
    path = tmp_path / "both.py"
    path.write_text(
        "import os, torch, numpy\nfrom suite import kernel\nfrom suite.kernels import Domain\ndef"
        " everywhere(facts, format):\n works = numpy.ones(len(facts.x), dtype=bool)\n return"
        " Domain(works=works, fails=~works, why='nothing')\n@kernel('softmax', name='f',"
        " domain=everywhere)\ndef f(x, dim=-1):\n if len(x) == 8: os.abort()\n return torch.softmax(x,"
        " dim)\n@kernel('log_softmax', name='f', domain=everywhere)\ndef g(x, dim=-1):\n return"
        " torch.log_softmax(x, dim)\n"
    )
    with Isolated() as own:
        [[first], [second]] = [own.load(f"{path}:f", op) for op in ("softmax", "log_softmax")]
        cases = [
            Case(op=op, family="normal", shape=shape)
            for shape in ((8, 5), (3, 5))
            for op in ("softmax", "log_softmax")
        ]
        statuses = [judged({"softmax": first}.get(case.op, second), own, case=case).status for case in cases]

    assert statuses == ["crashed", "passed", "passed", "passed"]


def test_a_kernel_may_use_processes_of_its_own(write, host):
    source = (
        "import multiprocessing\n"
        "def g(): pass\n"
        "def f(x, dim=-1):\n"
        " process = multiprocessing.get_context('fork').Process(target=g)\n"
        " process.start(); process.join(); assert process.exitcode == 0\n return torch.softmax(x, dim)"
    )
    assert judged(write(source), host).status == "passed"


def test_a_fork_in_the_import_that_returns_twice_is_told(write, host):
    record = judged(write("os.fork()\n" + RIGHT), host)

    assert record.status == "law_broken"
    assert "its import forked, and returned in both" in record.message


def test_a_server_that_was_killed_is_no_fault_of_the_kernel(write, host):
    kernel = write(RIGHT)
    assert judged(kernel, host).status == "passed"
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    time.sleep(0.2)

    assert judged(kernel, host).status == "passed"


def test_a_kernel_that_dies_in_laws_only_is_set_aside_too(write, host):
    kernel = write("def f(x, dim=-1):\n if len(x) == 1: os.abort()\n return torch.softmax(x, dim)")

    assert [judged(kernel, host).status for _ in range(4)] == ["crashed"] * 3 + ["not_run"]


def test_a_kernel_that_hangs_where_it_is_measured_is_ended_at_the_hosts_own_limit_and_not_asked_for_ever(
    write,
):
    with Isolated(limit_seconds=1) as own:
        kernel = write(
            "def f(x, dim=-1):\n if len(x) == 2: time.sleep(60)\n return torch.softmax(x, dim)", host=own
        )
        outcomes = [own.call(kernel, torch.zeros(2 + n % 2, 3), {"dim": -1}) for n in range(8)]

    assert [o.status for o in outcomes] == [
        *["timed_out", None] * (ATTEMPTS - 1),
        "timed_out",
        *["not_run"] * 3,
    ]
    assert "still in its call after 1 s" in outcomes[0].message
    assert outcomes[-1].message.startswith(
        "set aside: it ended 3 processes where it was measured; the last: timed_out, still"
    )


DOMAINS = {
    "hangs": (
        "while True: pass",
        "timed_out",
        r"still in its domain after 0\.5 s \(at kernels\.py:5 in domain\)",
    ),
    "dies": ("os._exit(5)", "crashed", r"its process exited with code 5, in its domain"),
}


@pytest.mark.parametrize(("body", "status", "words"), DOMAINS.values(), ids=DOMAINS)
def test_a_declared_domain_that_hangs_or_dies_is_told_apart_from_one_that_raises(body, status, words, write):
    source = f"from suite.kernels import kernel\ndef domain(facts, format):\n {body}\n"
    with Isolated(limit_seconds=0.5) as own:
        kernel = write(source + "@kernel('softmax', domain=domain)\n" + RIGHT, host=own)
        [reference] = ORACLE.references(
            get_op("softmax"), {"x": np.zeros((2, 3))}, {"dim": -1}, get_format("float32")
        )
        with pytest.raises(DiedError, match=words) as caught:
            kernel.domain(reference.facts, get_format("float32"))
        answered = judged(kernel, own, strict=True)

    assert caught.value.status == status
    assert answered.status == "passed"


@pytest.mark.parametrize(("body", "status", "words"), DOMAINS.values(), ids=DOMAINS)
def test_a_declared_domain_that_ends_its_process_counts_as_the_kernel_that_does(body, status, words, write):
    source = f"from suite.kernels import kernel\ndef domain(facts, format):\n {body}\n"
    with Isolated(limit_seconds=0.5) as own:
        kernel = write(source + "@kernel('softmax', domain=domain)\n" + RIGHT, host=own)
        records = [judged(kernel, own) for _ in range(ATTEMPTS + 1)]

    assert [record.status for record in records] == [status] * ATTEMPTS + ["not_run"]
    assert re.search(rf"law       domain: {status}: {words}", records[0].message)


def test_answers_that_are_nonsense_are_a_crash(write, host):
    kernel = write(
        "import json\ndef f(x, dim=-1):\n json.dumps = lambda answer: '{}'\n return torch.softmax(x, dim)"
    )

    assert "answers nonsense" in judged(kernel, host).message


# Importing


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "ctypes.string_at(0)\n" + RIGHT,
            "cannot be loaded: its process was killed by SIGSEGV, in its import (at kernels.py:3",
        ),
        (
            "print('bye'); sys.stdout.flush(); os._exit(0)\n" + RIGHT,
            "exited with code 0, in its import; it printed last: bye",
        ),
        ("raise KeyboardInterrupt\n" + RIGHT, "KeyboardInterrupt"),
        ("1/0\n" + RIGHT, "ZeroDivisionError"),
        ("g = 1\n", "has no function 'f'"),
    ],
    ids=["crashes", "exits", "interrupts", "raises", "has no such function"],
)
def test_what_cannot_be_imported_is_a_value_error_that_says_why(source, message, write, host):
    with pytest.raises(ValueError, match=re.escape(message)):
        write(source)
    assert write(RIGHT).id.endswith("kernels.py:f")


def test_an_import_that_hangs_is_ended(write):
    with (
        Isolated(load_seconds=2) as own,
        pytest.raises(ValueError, match=r"still in its import after 2 s \(at kernels.py:3"),
    ):
        write("ctypes.PyDLL(None).pause()\n" + RIGHT, host=own)


def test_what_an_import_prints_is_no_answer(write, host):
    assert judged(write("print('hello'); os.write(1, b'{}')\n" + RIGHT), host).status == "passed"


def test_an_import_that_changes_the_default_dtype_is_a_warning_and_no_more(write, host):
    record = judged(write("torch.set_default_dtype(torch.float64)\n" + RIGHT), host)

    assert record.status == "passed", record.message
    assert record.outcome.warnings == (
        "importing it changed default_dtype from torch.float32 to torch.float64",
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("torch.set_flush_denormal(True)\n", "subnormals_flushed"),
        ("ctypes.CDLL(None).fesetround(0x800 if os.uname().machine == 'x86_64' else 0x400000)\n", "rounding"),
    ],
    ids=["flush to zero", "rounding"],
)
def test_an_import_that_changes_arithmetic_breaks_a_law(source, words, write, host):
    for _ in range(2):
        record = judged(write(source + RIGHT), host)
        assert record.status == "law_broken"
        assert f"the kernel changed {words} from" in record.message


def test_a_file_that_is_gone_when_its_process_must_be_replaced_is_a_crash(write, host):
    kernel = write("def f(x, dim=-1): os.abort()")
    assert judged(kernel, host).status == "crashed"
    Path(kernel.id.rpartition(":")[0]).unlink()
    record = judged(kernel, host)
    assert record.status == "crashed"
    assert "could be loaded before, but not again" in record.message


def test_nothing_of_a_kernel_is_imported_here(write, host):
    modules = set(sys.modules)
    kernel = write("import this\nimport colorsys as imported_elsewhere\n" + RIGHT)
    assert judged(kernel, host).status == "passed"
    assert "this" not in set(sys.modules) - modules
    with pytest.raises(RuntimeError, match="cannot be called here"):
        kernel.call(torch.zeros(2))


# Requests


def test_memory_that_a_kernels_process_may_not_share_is_got_by_the_suite(write, host):
    """A limit on the size of files counts shared memory too; here the kernel has set it, for itself alone."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2**16,) * 2)\n"
    kernel = write(limit + "def f(x, dim=-1): return torch.softmax(x, dim)")
    case = Case(op="softmax", family="normal", shape=(64, 5000), laws=("permutation", "batch"))

    assert judged(kernel, host, case=case).status == "passed"


def test_memory_that_nobody_may_share_ends_the_run_and_is_no_fault_of_the_kernel(tmp_path):
    code = (
        "import resource, sys\nfrom suite.session import Request, Session\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**16,) * 2)\n"
        "request = Request(ops=('softmax',), dtypes=('float32',), isolate='always', kernels=('shifted',),"
        " patterns=('softmax/normal/*',))\n"
        "with Session(request) as session:\n    result = session.run()\n"
        "print(result.exit_code, [r.status for r in result.records if r.status != 'passed'])\n"
        "print(result.stopped)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False
    )

    assert done.stdout.startswith(
        "4 []\nshared memory for a kernel's tensors cannot be had: File too large"
    ), done
    assert "--resume" in done.stdout


def test_calls_that_do_not_fit_into_one_request_go_in_several(write, host, monkeypatch):
    case = Case(
        op="softmax",
        family="normal",
        shape=(8, 33),
        laws=("permutation", "batch", "canaries", "written", "shift"),
    )
    kernel = write(RIGHT)
    expected = judged(kernel, host, case=case)
    monkeypatch.setattr(isolated, "REQUEST_BYTES", 3000)

    assert expected.status == "passed"
    assert plain(judged(kernel, host, case=case)) == plain(expected)


def test_an_output_larger_than_all_inputs_arrives(write, host):
    kernel = write(
        "def f(x, dim=-1): return torch.ones(3000, 1000) if len(x) == 2 else torch.softmax(x, dim)"
    )
    [outcome] = host.submit(kernel, [Call({"x": torch.full((2, 3), 7.0)}, {"dim": -1})])
    assert outcome.status == "wrong_shape"
    case = Case(op="softmax", family="normal", shape=(64, 5000))
    assert judged(kernel, host, case=case).status == "passed"


def test_outcomes_that_nobody_took_are_not_those_of_the_next_call(write, host):
    kernel = write("def f(x, dim=-1): return x + 1")
    calls = [Call({"x": torch.full((2, 3), float(n))}, {"dim": -1}) for n in range(3)]
    assert next(host.submit(kernel, calls)).value[0, 0] == 1.0
    assert host.call(kernel, torch.full((2, 3), 10.0), {"dim": -1}).value[0, 0] == 11.0


# The same records as in process


FILE = """
import numpy as np
from suite.kernels import kernel

@kernel("softmax", adapter="numpy")
def with_numpy(x, dim=-1):
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)

@kernel("softmax", adapter="jax", requires=("jax",))
def with_jax(x, dim=-1):
    import jax
    return jax.nn.softmax(x, axis=dim)
"""


@pytest.mark.parametrize("adapter", ["numpy", "jax"])
def test_kernels_of_other_libraries_get_the_same_records_as_in_process(adapter, tmp_path, host):
    needs(adapter)
    path = tmp_path / "kernels.py"
    path.write_text(FILE)
    specification = f"{path}:with_{adapter}"
    [here], [there] = load_kernels(specification, "softmax"), host.load(specification, "softmax")
    for case in (
        CASE,
        Case(op="softmax", family="normal", shape=(3, 5), laws=("written", "canaries", "replay")),
    ):
        expected = evaluate(case, here, oracle=ORACLE)
        assert expected.status == "passed", expected.message
        assert plain(judged(there, host, case=case)) | {"warnings": []} == plain(expected) | {"warnings": []}


def test_what_a_kernel_imports_in_its_call_may_draw_from_a_generator(write, host, tmp_path):
    (tmp_path / "drawing_module.py").write_text("import numpy as np\nnp.random.rand()\n")
    lazy = (
        f"def f(x, dim=-1):\n sys.path.append({str(tmp_path)!r}); import drawing_module; return"
        " torch.softmax(x, dim)"
    )
    first, again = (judged(kernel, host) for kernel in [write(lazy)] * 2)

    assert (first.status, again.status) == ("passed", "passed"), first.message
    assert first.outcome.warnings == ("what it imported in its call changed numpy_seed",)
    assert again.outcome.warnings == ()


@pytest.mark.parametrize("family", ["normal", "very_negative", "normal_large", "ramps"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_declared_domain_is_asked_for_across_processes(family, strict, host):
    case = Case(op="softmax", family=family, shape=(8, 33))
    naive = own_kernels("softmax")["naive"]
    assert naive.domain is not None
    [there] = host.load("naive", "softmax")
    expected = evaluate(case, naive, dtype="float16", oracle=ORACLE, strict=strict)
    record = judged(there, host, case=case, dtype="float16", strict=strict)
    assert plain(record) | {"outside": False} == plain(expected)


def test_a_domain_that_raises_is_said_to(write, host):
    source = "from suite.kernels import kernel\ndef domain(facts, format): raise ValueError('no domain')\n"
    kernel = write(source + "@kernel('softmax', domain=domain)\n" + RIGHT)
    record = judged(kernel, host)
    assert "no domain" in record.message, record


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided", "padded", "expanded"])
def test_a_layout_reaches_the_kernel(layout, write, host):
    kernel = write("def f(x, dim=-1):\n print(x.stride(), x.data_ptr() % 64); return torch.softmax(x, dim)")
    case = Case(op="softmax", family="normal", shape=(8, 33), layout=layout)
    [here] = load_kernels(kernel.id, "softmax")
    assert (
        judged(kernel, host, case=case).outcome.output == evaluate(case, here, oracle=ORACLE).outcome.output
    )


def test_values_of_every_dtype_arrive(write, host):
    kernel = write(RIGHT)
    [here] = load_kernels(kernel.id, "softmax")
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        record = judged(kernel, host, dtype=dtype)
        assert record.judgement.digest == evaluate(CASE, here, dtype=dtype, oracle=ORACLE).judgement.digest
        assert np.isfinite(record.judgement.max_ulp)
