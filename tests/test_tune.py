"""Tuning: the fastest right candidate is kept, luck and wrong outputs are not, and only this
device's entry changes.
"""

import contextlib
import json
import math

import pytest
import torch

from tests.extras import needs

needs("triton")

from suite.commands.main import main  # noqa: E402
from suite.kernels.parts import triton_configuration  # noqa: E402
from suite.kernels.parts.triton_configuration import FILE, configuration, read  # noqa: E402
from suite.studies import gpu_goals  # noqa: E402
from suite.studies import tuning as program  # noqa: E402
from suite.studies.tuning import (  # noqa: E402
    CANDIDATES,
    ON_CPU,
    ON_CUDA,
    DeviceLostError,
    candidates,
    nearest_first,
    tune,
)

STORED = configuration("rows", torch.device("cpu"))
FAST, SLOW = {"entries": 256, "warps": 4}, {"entries": 1024, "warps": 4}


def exit_code(*arguments):
    """What the command ends with."""
    with pytest.raises(SystemExit) as ended:
        main(["tune", *arguments])
    return ended.value.code


@pytest.fixture
def clock(monkeypatch):
    """seconds() that depends on the configuration alone, or on how often it was asked."""

    def use(times):
        def seconds(call, device):
            call()
            return times(dict(configuration("rows", torch.device("cpu"))))

        monkeypatch.setattr(program, "seconds", seconds)

    return use


def tuned(*tried, until=math.inf):
    said = []
    return tune("rows", ON_CPU["rows"], tried, "cpu", say=said.append, until=until), "\n".join(said)


def test_the_fastest_candidate_is_kept(clock):
    clock(lambda one: {256: 0.8, 1024: 0.9}.get(one["entries"], 1.0))

    found, said = tuned(SLOW, FAST)

    assert found == FAST
    assert "rows {'entries': 256, 'warps': 4}: 0.800 of the stored time, taking turns" in said


def test_a_gain_below_noise_changes_nothing(clock):
    clock(lambda one: 0.99 if one == FAST else 1.0)

    assert tuned(FAST)[0] == STORED


def test_luck_changes_nothing(clock):
    asked = []

    def lucky_once(one):
        asked.append(one)
        return 0.5 if one == FAST and asked.count(FAST) == 1 else 1.0

    clock(lucky_once)

    found, said = tuned(FAST)

    assert found == STORED
    assert "1.000 of the stored time, taking turns" in said


def test_a_candidate_with_a_wrong_output_or_none_is_not_taken(clock, monkeypatch):
    clock(lambda one: 1.0 if one == STORED else 0.5)
    original = program.own_kernels

    def own_kernels(op):
        kernel = original(op)[ON_CPU["rows"].name]

        def call(x):
            entries = configuration("rows", torch.device("cpu"))["entries"]
            if entries == 1024:
                raise RuntimeError("out of resource: shared memory")
            return kernel.call(x) * (1.1 if entries == 256 else 1.0)

        return {kernel.id: type("Kernel", (), {"call": staticmethod(call)})}

    monkeypatch.setattr(program, "own_kernels", own_kernels)

    found, said = tuned(FAST, SLOW)

    assert found == STORED
    assert "log_softmax bfloat16 [4, 256]: inaccurate" in said
    assert "RuntimeError: out of resource: shared memory" in said


def test_no_candidate_is_tried_when_the_time_is_over(clock):
    clock(lambda one: 0.5 if one == FAST else 1.0)

    found, said = tuned(FAST, until=0.0)

    assert found == STORED
    assert said == "rows: its time is over; of 1 candidates 1 are left"


def test_only_what_would_be_taken_is_judged(clock, monkeypatch):
    clock(lambda one: {256: 0.5, 1024: 0.9}.get(one["entries"], 1.0))
    judged = []
    monkeypatch.setattr(
        program, "_wrong", lambda *_: judged.append(configuration("rows", torch.device("cpu"))) or ""
    )

    assert tuned(FAST, SLOW)[0] == FAST
    assert judged == [STORED, FAST]


def test_after_a_fault_of_the_device_nothing_is_taken(clock, monkeypatch):
    """An illegal memory access stays: whatever is called afterwards in this process fails."""

    def times(one):
        if one == SLOW:
            monkeypatch.setattr(
                program, "lost", lambda device: "CUDA error: an illegal memory access was encountered"
            )
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return 0.5 if one == FAST else 1.0

    clock(times)

    with pytest.raises(
        DeviceLostError, match=r"rows \{'entries': 1024, 'warps': 4\}: RuntimeError: CUDA error: an illegal"
    ) as raised:
        tuned(FAST, SLOW)
    assert "the device no longer answers" in str(raised.value)


def test_the_command_writes_nothing_after_a_fault_and_names_what_is_left(tmp_path, monkeypatch, capsys):
    def faulty(kernels, *_, **__):
        if kernels == "split":
            raise DeviceLostError("split: no answer")
        return FAST

    monkeypatch.setattr(program, "tune", faulty)
    path = tmp_path / "new.json"

    wanted = [f"--kernels={name}" for name in ("rows", "split", "fused")]
    code = exit_code("--device=cpu", *wanted, f"--out={path}")

    assert code == 1
    assert read(path) == {**read(FILE), "cpu": {"rows": FAST}}
    assert capsys.readouterr().out.endswith("split: no answer\nleft: --kernels split --kernels fused\n")


def test_what_is_near_to_the_stored_configuration_is_tried_first():
    found = nearest_first(
        [{"a": 2, "b": 64}, {"a": 8, "b": 64}, {"a": 4, "b": 64}, {"a": 4, "b": 32}], {"a": 4, "b": 64}
    )

    assert found == [{"a": 2, "b": 64}, {"a": 8, "b": 64}, {"a": 4, "b": 32}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget-seconds", "nan"), "'--budget-seconds': 'nan' is not a number above 0"),
        (("--budget-seconds", "-5"), "'--budget-seconds': -5.0 is not in the range 0<x<="),
        (("--budget-seconds", "inf"), "'--budget-seconds': inf is not in the range 0<x<="),
        (("--kernels", "row"), "--kernels 'row' is not one of fused, online"),
        (("--device", "cuda"), "--device cuda: torch finds no CUDA device here"),
        (("--device", "tpu"), "--device tpu is not one of cuda, cuda:N, cpu"),
        (("--out", "none/new.json"), "--out 'none/new.json' cannot be written: there is no folder 'none'"),
        (("--out", "."), "--out '.' cannot be written: it is a folder"),
    ],
)
def test_misuse_is_told_before_anything_is_tuned(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(program, "tune", lambda *_, **__: pytest.fail("tuned"))

    assert exit_code("--device", "cpu", "--out", "new.json", *arguments) == 2
    assert message in capsys.readouterr().err


def test_work_is_on_the_device_that_was_named(tmp_path, monkeypatch):
    """Events and streams are those of the current device."""
    current = []
    monkeypatch.setattr(gpu_goals, "unusable", lambda _: "")
    monkeypatch.setattr(
        program, "on_device", lambda device: current.append(device) or contextlib.nullcontext()
    )
    monkeypatch.setattr(program, "configuration", lambda *_: STORED)
    monkeypatch.setattr(program, "tune", lambda *_, **__: current == ["cuda:1"] and FAST)
    monkeypatch.setattr(program, "names_of", lambda device: (str(device),))

    assert exit_code("--device", "cuda:1", "--kernels", "rows", "--out", str(tmp_path / "new.json")) == 0

    assert read(tmp_path / "new.json")["cuda:1"] == {"rows": FAST}


@pytest.mark.parametrize("kernels", ON_CPU)
def test_every_kernel_is_timed_and_judged_on_the_cpu(kernels, clock):
    clock(lambda one: 1.0)
    candidate = next(candidates(CANDIDATES[kernels]))
    said = []

    tune(kernels, ON_CPU[kernels], [candidate], "cpu", say=said.append)

    assert said[0] == f"{kernels} {candidate}: 1.000 of the stored time"


@pytest.mark.parametrize("kernels", ["attention", "attention_backward", "attention_16_bit"])
def test_wrong_attention_is_seen(kernels, clock, monkeypatch):
    clock(lambda one: 1.0)
    kernel = program.own_kernels("attention")[ON_CPU[kernels].name]
    wrong = type("Kernel", (), {"call": staticmethod(lambda q, k, v, causal: kernel.call(q, k, v))})
    monkeypatch.setattr(program, "own_kernels", lambda _: {kernel.id: wrong})

    with pytest.raises(RuntimeError, match=r"the stored configuration .*: attention"):
        tune(kernels, ON_CPU[kernels], [], "cpu", say=lambda _: None)


@pytest.mark.parametrize("kernels", CANDIDATES)
def test_every_candidate_is_a_configuration(kernels):
    found = list(candidates(CANDIDATES[kernels]))

    assert len(found) == len({json.dumps(one) for one in found}) > 4
    for one in found:
        triton_configuration.check_configuration(kernels, one, "here")
    assert set(ON_CUDA) == set(ON_CPU) == set(CANDIDATES) == set(triton_configuration.PARAMETERS)


def test_the_command_rewrites_the_entry_of_this_device_alone(tmp_path, monkeypatch, clock):
    path = tmp_path / "configurations.json"
    before = read(FILE)
    path.write_text(
        json.dumps({**before, "NVIDIA H200": {"rows": FAST}, "cpu": {"split": before["default"]["split"]}})
    )
    monkeypatch.setattr(
        program,
        "seconds",
        lambda call, device: 0.5 if configuration("rows", torch.device(device)) == FAST else 1.0,
    )
    monkeypatch.setitem(CANDIDATES, "rows", {"entries": (256,), "warps": (4,)})

    assert exit_code("--device", "cpu", "--kernels", "rows", "--out", str(path)) == 0

    after = read(path)
    assert after == {
        **before,
        "NVIDIA H200": {"rows": FAST},
        "cpu": {"split": before["default"]["split"], "rows": FAST},
    }


def test_a_new_file_begins_as_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "seconds", lambda call, device: 1.0)
    monkeypatch.setitem(CANDIDATES, "rows", {"entries": (256,), "warps": (4,)})

    assert exit_code("--device", "cpu", "--kernels", "rows", "--out", str(tmp_path / "new.json")) == 0

    assert read(tmp_path / "new.json") == {**read(FILE), "cpu": {"rows": STORED}}


def test_an_invalid_file_is_told_before_anything_is_tuned(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "tune", lambda *_, **__: pytest.fail("tuned"))
    (tmp_path / "bad.json").write_text('{"default": {"rows": {"entries": 4096}}}')

    assert exit_code("--device", "cpu", "--kernels", "rows", "--out", str(tmp_path / "bad.json")) == 2
    assert "rows is {'entries': 4096}; expected an object with entries, warps" in capsys.readouterr().err
