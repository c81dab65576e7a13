"""bench: what is measured, that a wrong kernel gets no speed, that nothing ends a sweep; the
command, as a user meets it.
"""

import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from suite import plugin
from suite.bench import points as bench
from suite.bench.kept import drawn_rows, one_group
from suite.bench.lock import device_lock
from suite.bench.plan import PLANS, Point, cases, points
from suite.bench.points import Bench
from suite.bench.traffic import least_bytes
from suite.case import Case
from suite.commands.main import cli
from suite.execution.hosts import Hosts
from suite.execution.timed import Timed
from suite.formats import get_format
from suite.kernels import declarations, kernel, own_kernels
from suite.ops import get_op
from suite.ops.attention import visible_pairs
from suite.records.known_failures import KnownFailure
from suite.records.record import Measurement
from suite.records.store import read_run
from suite.report.bench_terminal import print_bench
from suite.report.scalings import of_length
from suite.selection import cases_folder, chosen_kernels
from suite.session import Request, Session
from suite.timing.statistics import Timing

QUICK = PLANS["quick"]
ROWS = "softmax/normal/96x65/s0"
FIELDS = {
    "status", "ratio", "max_ulp", "digest", "direction", "shape", "bytes", "operations", "clock", "cache",
    "threads", "calls_per_sample", "samples_seconds", "median_seconds", "low_seconds", "high_seconds",
    "peak_bytes", "compile_seconds", "copy_bytes_per_second", "matmul_operations_per_second", "note",
}  # fmt: skip


@pytest.fixture(autouse=True)
def this_machine(monkeypatch, tmp_path):
    """Measured in no time, and a cache folder of the test's own, where the lock is."""
    monkeypatch.setattr(bench.machine, "copy_bytes_per_second", lambda device: 1e10)
    monkeypatch.setattr(bench.machine, "matmul_operations_per_second", lambda device, dtype: 1e11)
    monkeypatch.setenv("SOFTMAX_SUITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # these tests time nothing that counts


@pytest.fixture
def measuring():
    with Session(Request(ops=(), isolate="never")) as session:
        yield Bench(session, budget_seconds=0.0)


def of(function, op="softmax", **declared):
    """The kernel of a function, as @kernel makes it."""
    [made] = declarations(kernel(op, **declared)(function)).values()
    return made


def measured(measuring, chosen, case=ROWS, dtype="float32"):
    found = measuring.measure(Point(chosen, Case.from_id(case), dtype))[1]
    assert found is not None
    return found


def test_kernels_stand_side_by_side_on_the_same_cases():
    chosen = [own_kernels("softmax")[name] for name in ("fused", "shifted")]

    found = points({"softmax": chosen}, QUICK, dtypes=["float32"], lengths=[256, 4096])

    assert [(p.kernel.id, p.case.id) for p in found] == [
        (name, f"softmax/normal/{shape}/s0")
        for shape in ("1024x256", "64x4096")
        for name in ("fused", "shifted")
    ]


def test_cases_of_attention_have_every_head_size_and_causal():
    found = [case.id for case in cases("attention", PLANS["standard"], lengths=[512])]

    assert found == [
        f"attention/normal/1x2x512x{size}{causal}/s0"
        for causal in ("", "/causal=top_left")
        for size in (64, 128)
    ]


def test_a_case_of_the_backward_has_an_upstream():
    [found] = cases("cross_entropy", QUICK, direction="backward", shapes=[(8, 33)])

    assert found.id == "cross_entropy/normal/8x33/reduction=none/upstream=normal/s0"


@pytest.mark.parametrize(
    ("op", "shape"), [("softmax", (1, 2, 3, 4)), ("softmax", (0, 4)), ("attention", (16, 33))]
)
def test_a_shape_that_an_op_cannot_have_is_named(op, shape):
    with pytest.raises(ValueError, match=f"--shape {'x'.join(map(str, shape))} is none of {op}"):
        cases(op, QUICK, shapes=[shape])


@pytest.mark.parametrize("causal", [None, "top_left", "bottom_right"])
@pytest.mark.parametrize(("length", "keys"), [(5, 5), (3, 7), (7, 3), (1, 1)])
def test_visible_pairs_are_those_of_the_definition(causal, length, keys):
    offset = keys - length if causal == "bottom_right" else 0
    one_by_one = sum(causal is None or j <= i + offset for i in range(length) for j in range(keys))

    assert visible_pairs(length, keys, causal) == one_by_one


@pytest.mark.parametrize(
    ("id", "dtype", "traffic", "work"),
    [
        ("softmax/normal/16x33/s0", "float32", 2 * 528 * 4, 5 * 528),
        ("logsumexp/normal/16x33/s0", "bfloat16", (528 + 16) * 2, 4 * 528),
        ("cross_entropy/normal/16x33/reduction=none/s0", "float32", 528 * 4 + 16 * 8 + 16 * 4, 4 * 528),
        ("softmax/normal/16x33/upstream=normal/s0", "float32", 5 * 528 * 4, 9 * 528),
        ("attention/normal/1x2x8x4/s0", "float32", 4 * 64 * 4, 2 * 64 * 16),
        ("attention/normal/1x2x8x4/causal=top_left/s0", "float16", 4 * 64 * 2, 2 * 36 * 16),
        ("attention/normal/1x2x8x4/upstream=normal/s0", "float32", 11 * 64 * 4, 2 * 64 * (16 + 40)),
        ("merge_states/alike/1x2x8x4/s0", "bfloat16", 3 * 64 * 2 + 3 * 16 * 4, 5 * 64),
    ],
)
def test_traffic_and_work_are_those_of_the_definition(id, dtype, traffic, work):
    case = Case.from_id(id)

    assert least_bytes(case, get_format(dtype), case.shapes()) == traffic
    operations = get_op(case.op).operations
    assert operations(case.shapes(), case.resolved_options(), backward=bool(case.upstream)) == work


def test_a_measurement_holds_verdict_and_speed(measuring):
    record, found = measuring.measure(Point(own_kernels("softmax")["shifted"], Case.from_id(ROWS), "float32"))

    data = found.data
    assert set(data) >= FIELDS
    assert (found.kind, found.case, found.op, found.kernel) == ("throughput", ROWS, "softmax", "shifted")
    assert {name: data[name] for name in ("status", "ratio", "max_ulp", "digest")} == {
        "status": "passed", "ratio": record.judgement.ratio, "max_ulp": record.judgement.max_ulp,
        "digest": record.judgement.digest
    }  # fmt: skip
    assert len(data["samples_seconds"]) >= 6
    assert 0 < data["low_seconds"] <= data["median_seconds"] <= data["high_seconds"]
    assert (data["clock"], data["cache"], data["threads"]) == (
        "perf_counter",
        "warm",
        torch.get_num_threads(),
    )
    assert data["peak_bytes"] > 0
    assert data["copy_bytes_per_second"] == 1e10
    assert Measurement.from_dict(json.loads(found.to_json())) == found


def test_a_kernel_that_makes_its_output_only_needs_no_further_memory(measuring):
    assert measured(measuring, own_kernels("softmax")["fused"]).data["peak_bytes"] == 0


def test_cases_of_one_kernel_are_kept_apart_in_a_run(tmp_path):
    ids = [ROWS, "softmax/normal/64x7/s0"]

    with Session(Request(ops=(), out=tmp_path / "run")) as session:
        measuring = Bench(session, budget_seconds=0.0)
        made = [measured(measuring, own_kernels("softmax")["fused"], id) for id in [*ids, ids[0]]]

    assert read_run(tmp_path / "run").measurements == (made[2], made[1])
    assert {r.case for r in read_run(tmp_path / "run").records} == set(ids)


def assert_no_times(found, status, *fragments):
    assert found.data["status"] == status
    assert found.data["samples_seconds"] == []
    assert {found.data[name] for name in ("median_seconds", "low_seconds", "high_seconds", "peak_bytes")} == {
        None
    }
    assert [fragment for fragment in fragments if fragment not in found.data["note"]] == []


def test_a_wrong_kernel_gets_no_speed(measuring):
    def two_percent(x, dim=-1):
        return torch.softmax(x, dim) * 1.02

    assert_no_times(measured(measuring, of(two_percent)), "inaccurate", "× the bound", "how many")


def test_a_result_stored_by_address_is_seen(measuring):
    """Right whenever it computes; it computes once for each place in memory, which is fast."""
    stored = {}

    def remembers(x, dim=-1):
        if x.data_ptr() not in stored:
            stored[x.data_ptr()] = torch.softmax(x, dim)
        return stored[x.data_ptr()].clone()

    def computes(x, dim=-1):
        return torch.softmax(x, dim)

    assert_no_times(measured(measuring, of(remembers)), "inaccurate", "the last timed output")
    assert measured(measuring, of(computes)).data["status"] == "passed"


def test_a_kernel_that_is_right_only_at_first_gets_no_speed(measuring):
    calls = []

    def tires(x, dim=-1):
        calls.append(1)
        return torch.softmax(x, dim) * (1.0 if len(calls) < 5 else 1.02)

    assert_no_times(measured(measuring, of(tires)), "inaccurate", "the last timed output")


def test_the_last_query_of_attention_is_among_those_judged_again(measuring):
    calls = []

    def loses_the_last(q, k, v):
        calls.append(1)
        output = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        if len(calls) > 1:
            output[-1, -1, -1] = 0
        return output

    found = measured(measuring, of(loses_the_last, "attention"), "attention/normal/1x2x100x16/s0")

    assert_no_times(found, "inaccurate", "index [0, 1, 99")


def test_64_rows_are_judged_again_and_all_where_there_are_fewer():
    generator = np.random.default_rng(0)

    assert drawn_rows(1, generator).tolist() == [0]
    assert drawn_rows(64, generator).tolist() == list(range(64))
    found = drawn_rows(1000, generator)
    assert len(set(found.tolist())) == 64
    assert found[[0, -1]].tolist() == [0, 999]
    assert not np.array_equal(found, drawn_rows(1000, generator))


def test_no_kernel_can_foresee_which_rows_are_judged(measuring):
    """Computes the rows that a bench of another seed would judge, from the second call on."""
    foreseen = drawn_rows(96 * 8, np.random.default_rng(0))
    calls = []

    def few_rows(x, dim=-1):
        calls.append(1)
        if len(calls) == 1:
            return torch.softmax(x, dim)
        output = torch.zeros_like(x)
        output[foreseen] = torch.softmax(x[foreseen], dim)
        return output

    assert_no_times(
        measured(measuring, of(few_rows), "softmax/normal/768x65/s0"), "inaccurate", "the last timed output"
    )


def test_the_seed_of_the_judged_rows_is_recorded(measuring):
    assert measured(measuring, own_kernels("softmax")["fused"]).data["judged_rows_seed"] == measuring.seed


def test_inputs_that_do_not_fit_are_recorded_and_the_sweep_goes_on(measuring, monkeypatch):
    original = Case.inputs

    def inputs(case, format):
        if case.shape == (96, 65):
            raise MemoryError("cannot allocate")
        return original(case, format)

    monkeypatch.setattr(Case, "inputs", inputs)
    fused = own_kernels("softmax")["fused"]
    wanted = [Point(fused, Case.from_id(id), "float32") for id in (ROWS, "softmax/normal/9x8/s0")]
    (record, first), (_, second) = bench.sweep(measuring, wanted, lambda line: None)

    assert record is None
    assert_no_times(first, "out_of_memory", "do not fit")
    assert second.data["samples_seconds"]


def test_of_a_large_case_some_rows_are_judged(measuring, monkeypatch):
    monkeypatch.setattr(bench, "WHOLE", 1000)

    record, found = measuring.measure(
        Point(own_kernels("softmax")["fused"], Case.from_id("softmax/normal/200x9/s0"), "float32")
    )

    assert record.judgement.entries == 64 * 9
    assert found.data["note"] == "judged on 64 of 200 rows"
    assert found.data["shape"] == [200, 9]
    assert found.data["samples_seconds"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("tried to allocate 999 GiB"), "out_of_memory"),
        (MemoryError("no memory"), "out_of_memory"),
        (ValueError("rows are too long"), "raised"),
        (SystemExit(0), "raised"),
    ],
)
@pytest.mark.parametrize("calls_before", [0, 1, 4], ids=["judged", "first timed", "timed"])
def test_what_a_kernel_raises_is_recorded_and_the_sweep_goes_on(measuring, error, status, calls_before):
    calls = []

    def raises(x, dim=-1):
        calls.append(1)
        if len(calls) > calls_before:
            raise error
        return torch.softmax(x, dim)

    wanted = [
        Point(one, Case.from_id(ROWS), "float32") for one in (of(raises), own_kernels("softmax")["fused"])
    ]
    first, second = (found for _, found in bench.sweep(measuring, wanted, lambda line: None))

    assert_no_times(first, status, type(error).__name__)
    assert second.data["samples_seconds"]


def test_a_kernel_that_declines_after_it_has_passed_has_raised(measuring):
    calls = []

    def declines(x, dim=-1):
        calls.append(1)
        if len(calls) > 3:
            raise NotImplementedError("no more")
        return torch.softmax(x, dim)

    assert_no_times(measured(measuring, of(declines)), "raised", "no more")


def test_what_the_first_call_took_beyond_the_others_is_compiling(measuring):
    compiled = []

    def compiles(x, dim=-1):
        if not compiled:
            time.sleep(0.05)
            compiled.append(1)
        return torch.softmax(x, dim)

    # Less than it sleeps, by any median below 10 ms.
    assert measured(measuring, of(compiles)).data["compile_seconds"] > 0.04


def test_the_users_interrupt_passes(measuring):
    calls = []

    def interrupted(x, dim=-1):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return torch.softmax(x, dim)

    with pytest.raises(KeyboardInterrupt):
        measured(measuring, of(interrupted))


def test_what_is_unsupported_has_a_record_and_no_measurement(measuring):
    def narrow(x):
        return torch.softmax(x, -1)

    record, found = measuring.measure(Point(of(narrow, dtypes=("float64",)), Case.from_id(ROWS), "float32"))

    assert record.status == "unsupported"
    assert found is None


def test_kernels_of_numpy_are_timed_without_their_conversion(measuring):
    def by_numpy(x):
        assert isinstance(x, np.ndarray)
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    found = measured(measuring, of(by_numpy, adapter="numpy"))

    assert found.data["status"] == "passed"
    assert found.data["samples_seconds"]
    assert found.data["peak_bytes"] is None


@pytest.mark.parametrize(
    "id", ["softmax/normal/16x33/upstream=normal/s0", "attention/normal/1x2x32x8/upstream=normal/s0"]
)
def test_the_backward_is_timed_with_its_forward(measuring, id):
    name = "shifted"
    found = measured(measuring, own_kernels(id.partition("/")[0])[name], id)

    assert found.data["status"] == "passed", found.data["note"]
    assert found.data["direction"] == "backward"
    assert found.data["samples_seconds"]


def test_a_wrong_gradient_gets_no_speed(measuring):
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x

        @staticmethod
        def backward(context, gradient):
            return gradient * 1.02

    def scaled(x, dim=-1):
        return torch.softmax(Scaled.apply(x), dim)

    assert_no_times(measured(measuring, of(scaled), "softmax/normal/16x33/upstream=normal/s0"), "inaccurate")


def test_timing_leaves_the_inputs_requirements_and_the_state_alone(measuring):
    before = torch.is_grad_enabled()

    measured(measuring, own_kernels("softmax")["shifted"], "softmax/normal/16x33/upstream=normal/s0")

    assert torch.is_grad_enabled() == before


def test_a_device_is_measured_by_one_at_a_time(tmp_path):
    with (
        device_lock("cuda:1", folder=tmp_path),
        pytest.raises(ValueError, match=f"device cuda:1 is being measured by process {os.getpid()}"),
        device_lock("cuda:1", folder=tmp_path),
    ):
        pass
    with device_lock("cuda:1", folder=tmp_path), device_lock("cpu", folder=tmp_path):
        pass


def test_workers_of_xdist_measure_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")

    with pytest.raises(ValueError, match="without pytest-xdist"), device_lock("cpu", folder=tmp_path):
        pass


def test_throughput_is_collected_only_where_benchmarks_are_asked_for(tmp_path):
    def collected(path, **options):
        config = SimpleNamespace(getoption=lambda name, default: options.get(name, default))
        return plugin.pytest_ignore_collect(path, config) is None

    ours = cases_folder() / "softmax" / "test_throughput.py"
    assert ours.is_file()
    assert not collected(ours)
    assert not collected(ours, benchmark_enable=False, benchmark_only=False)
    assert collected(ours, benchmark_enable=True)
    assert collected(ours, benchmark_only=True)
    assert collected(ours.with_name("test_accuracy.py"))
    assert collected(tmp_path / "test_throughput.py"), "a file of the user's, of the same name"


def test_times_of_another_device_are_not_compared():
    here, there = ({"softmax_suite": {"device": "cuda", "gpu": name}} for name in ("one", "other"))

    plugin.pytest_benchmark_compare_machine_info(here, {"machine_info": here})
    plugin.pytest_benchmark_compare_machine_info({}, {"machine_info": here})
    with pytest.raises(pytest.UsageError, match="'gpu': 'other'"):
        plugin.pytest_benchmark_compare_machine_info(here, {"machine_info": there})


def test_pytest_benchmark_is_told_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the device {device}")

    for device, expected in (("cpu", {}), ("cuda:1", {"gpu": "the device cuda:1"})):
        machine_info = {}
        plugin.pytest_benchmark_update_machine_info(
            SimpleNamespace(option=SimpleNamespace(device=device, threads=2)), machine_info
        )
        assert machine_info == {"softmax_suite": {"device": device, "threads": 2} | expected}


def made(length, seconds, **changed):
    """A measurement of softmax as bench stores it."""
    data = {
        "status": "passed", "ratio": 0.5, "max_ulp": 1.0, "digest": "d", "direction": "forward",
        "shape": [4, length], "length": length, "bytes": 8e3, "operations": 5e3,
        "samples_seconds": [seconds] * 6, "median_seconds": seconds, "low_seconds": seconds,
        "high_seconds": seconds, "peak_bytes": 12_000_000, "compile_seconds": 0.0,
        "copy_bytes_per_second": 1e10, "matmul_operations_per_second": 1e11, "note": "",
    }  # fmt: skip
    case = f"softmax/normal/4x{length}/s0"
    return Measurement(
        kind="throughput", kernel="k", op="softmax", dtype="float32", case=case, data=data | changed
    )


def test_the_table_shows_speed_beside_accuracy(capsys):
    empty = {
        "samples_seconds": [],
        "median_seconds": None,
        "status": "inaccurate",
        "note": "far off\nand more",
        "ratio": 37.0,
    }

    print_bench([made(64, 8e-6), made(128, 8e-6, **empty)])

    first, second = (line.split() for line in capsys.readouterr().out.splitlines()[1:3])
    assert first == [
        "softmax",
        "k",
        "float32",
        "4x64",
        "8",
        "8",
        "…",
        "8",
        "1",
        "10%",
        "0.000625",
        "1%",
        "12",
        "0.5",
    ]
    assert second == ["softmax", "k", "float32", "4x128", "37", "inaccurate:", "far", "off"]


def test_the_exponent_is_of_the_time_of_a_row():
    rows = [(n, 4096 // n) for n in (16, 64, 256)]  # as many logits at every length: all take the same time

    [(_, found)] = of_length([made(n, 1e-3, shape=[count, n]) for n, count in rows])

    assert found.exponent.value == pytest.approx(1.0)


def invoke(*arguments):
    result = CliRunner().invoke(cli, ["bench", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_measures_and_leaves_a_run(tmp_path):
    mine = tmp_path / "my.py"
    mine.write_text("import torch\n\ndef good(x, dim=-1):\n    return torch.softmax(x, dim)\n\n"
                    "def bad(x, dim=-1):\n    return torch.softmax(x, dim) * 1.02\n")  # fmt: skip

    result = invoke(
        "--op=softmax", f"--kernel={mine}:good", f"--kernel={mine}:bad", "--dtype=float32", "--shape=16x33",
        "--profile=smoke", f"--out={tmp_path}/run",
    )  # fmt: skip

    run = read_run(tmp_path / "run")
    assert result.exit_code == 1, result.output
    assert {m.kernel.rpartition(":")[2]: m.data["status"] for m in run.measurements} == {
        "good": "passed",
        "bad": "inaccurate",
    }
    assert "latency_us" in result.output
    assert run.environment["env_id"] == run.measurements[0].env_id == run.records[0].env_id
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--lengths=16,x"], "--lengths '16,x' must be sizes joined by ',', as 256,4096"),
        (["--lengths=0"], "--lengths '0'"),
        (["--shape=16x"], "--shape '16x' must be sizes joined by 'x', as 32x8192"),
        (["--shape=16x33", "--lengths=33"], "give one"),
        (["--op=attention", "--shape=16x33"], "--shape 16x33 is none of attention"),
        (["--op=softmax", "--kernel=nobody"], "unknown kernel 'nobody' of softmax"),
        (["--device=cuda:77"], "--device 'cuda:77' cannot be used"),
        (["--device=meta"], "has no clock here"),
        (["--profile=full"], "'full'"),
    ],
)
def test_misuse_is_one_message_and_exit_code_2(tmp_path, arguments, fragment):
    result = invoke(*arguments, f"--out={tmp_path}/run")

    assert result.exit_code == 2, result.output
    assert fragment in result.stderr
    assert "Traceback" not in result.output


def test_a_device_in_use_is_misuse(tmp_path):
    with device_lock("cpu"):
        result = invoke("--op=softmax", "--kernel=fused", "--shape=2x3", f"--out={tmp_path}/run")

    assert result.exit_code == 2
    assert f"device cpu is being measured by process {os.getpid()}" in result.stderr


def test_a_function_that_does_not_say_its_op_is_misuse(tmp_path):
    mine = tmp_path / "my.py"
    mine.write_text("import torch\n\ndef f(x, dim=-1):\n    return torch.softmax(x, dim)\n")

    with Hosts(isolate="never") as hosts, pytest.raises(ValueError, match="does not say what it computes"):
        chosen_kernels(Request(ops=("softmax", "log_softmax"), kernels=(f"{mine}:f",)), hosts)


def test_what_is_named_twice_is_measured_once_and_both_directions_where_asked(tmp_path):
    result = invoke(
        "--op=softmax", "--op=softmax", "--kernel=fused", "--kernel=fused", "--dtype=float32",
        "--dtype=float32", "--lengths=64,64", "--profile=smoke", "--direction=both", f"--out={tmp_path}/run",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert [m.data["direction"] for m in read_run(tmp_path / "run").measurements] == ["forward", "backward"]


def test_a_kernel_that_hangs_once_timed_is_ended_and_the_next_one_measured(tmp_path):
    mine = tmp_path / "my.py"
    mine.write_text(
        "import time, torch\ncalls = []\n\ndef hangs(x, dim=-1):\n    calls.append(1)\n    time.sleep(100 *"
        " (len(calls) > 6))\n    return torch.softmax(x, dim)\n"
    )

    result = invoke(
        "--op=softmax", f"--kernel={mine}:hangs", "--kernel=fused", "--dtype=float32", "--shape=16x33",
        "--profile=smoke", "--timeout=0.3", f"--out={tmp_path}/run",
    )  # fmt: skip

    assert result.exit_code == 1, result.output
    found = {m.kernel.rpartition(":")[2]: m.data["status"] for m in read_run(tmp_path / "run").measurements}
    assert found == {"hangs": "timed_out", "fused": "passed"}


def test_a_folder_in_use_is_no_reason_for_advice_that_bench_cannot_follow(tmp_path):
    once = [
        "--op=softmax",
        "--kernel=fused",
        "--dtype=float32",
        "--shape=4x8",
        "--profile=smoke",
        f"--out={tmp_path}/run",
    ]
    assert invoke(*once).exit_code == 0

    again = invoke(*once)

    assert again.exit_code == 2
    assert "holds the records of another run; name a new folder" in again.output
    assert "--resume" not in again.output


@pytest.mark.parametrize(("one", "other"), [("cpu", "cpu:0"), ("cuda:1", "cuda:1")])
def test_a_device_has_one_lock_whatever_it_is_called(one, other, tmp_path):
    with (
        device_lock(one, folder=tmp_path),
        pytest.raises(ValueError, match="is being measured"),
        device_lock(other, folder=tmp_path),
    ):
        pass


def test_a_wrong_gradient_of_a_head_is_judged_with_what_shares_its_keys():
    """The gradients of a group of heads are those of the whole problem, and another group's say nothing."""
    case = Case.from_id("attention/normal/2x4x9x8/key_heads=2/enable_gqa=True/upstream=normal/s0")
    inputs = case.inputs(get_format("float64"))
    tensors = {name: torch.tensor(values, requires_grad=name in "qkv") for name, values in inputs.items()}
    q, k, v = (tensors[name] for name in "qkv")
    output = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    gradients = torch.autograd.grad(output, (q, k, v), tensors["upstream"])
    query = (1 * 4 + 2) * 9 + 5  # batch 1, head 2: of the second group

    some, found = one_group(inputs, tuple(one.numpy() for one in gradients), query)

    assert {name: values.shape for name, values in some.items()} == {
        "q": (1, 2, 9, 8), "k": (1, 1, 9, 8), "v": (1, 1, 9, 8), "upstream": (1, 2, 9, 8)
    }  # fmt: skip
    assert np.array_equal(found[0], gradients[0].numpy()[1:, 2:])
    assert np.array_equal(found[1], gradients[1].numpy()[1:, 1:])
    again = {name: torch.tensor(values, requires_grad=name in "qkv") for name, values in some.items()}
    alone = torch.nn.functional.scaled_dot_product_attention(
        again["q"], again["k"], again["v"], enable_gqa=True
    )
    expected = torch.autograd.grad(alone, (again["q"], again["k"], again["v"]), again["upstream"])
    assert all(
        np.allclose(one, other.numpy(), rtol=1e-12) for one, other in zip(found, expected, strict=True)
    )


def test_a_failure_of_a_timed_output_may_be_known(measuring):
    """It passes on the case's seed and fails on a later one."""
    calls = []

    def rounds_sometimes(x, dim=-1):
        calls.append(1)
        return torch.softmax(x, dim) * (1.0 if len(calls) < 5 else 1.02)

    chosen = of(rounds_sometimes)
    entry = KnownFailure(
        chosen.id, "*", "cpu", "inaccurate", "softmax/*", "known to us", "https://example.org/1", "here:1"
    )
    measuring.session.known = [entry]

    found = measured(measuring, chosen)

    assert_no_times(found, "known_failure", "known to us")


def test_a_clock_that_stands_still_gives_no_times():
    timed = Timed(
        timing=Timing(
            samples_seconds=(0.0,) * 6,
            clock="perf_counter",
            cache="warm",
            calls_per_sample=1,
            first_seconds=0.0,
        )
    )

    assert bench._speed(timed, 1.0) == {
        "note": "not timed: its calls took no time by the clock of its process"
    }
