"""Tuning: the fastest right candidate is kept, luck and wrong outputs are not, and only this device's entry changes."""

import json
import math

import pytest
import torch

pytest.importorskip("triton", reason="it tunes Triton's kernels")

from suite import tune as program
from suite.ops.parts import triton_configuration
from suite.ops.parts.triton_configuration import FILE, configuration, read
from suite.tune import CANDIDATES, ON_CPU, ON_CUDA, candidates, main, tune

STORED = configuration("rows", torch.device("cpu"))
FAST, SLOW = {"entries": 256, "warps": 4}, {"entries": 1024, "warps": 4}


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
    assert said == "rows: its time is over; some candidates are left"


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
    path.write_text(json.dumps({**before, "NVIDIA H200": {"rows": FAST}, "cpu": {"split": before["default"]["split"]}}))
    monkeypatch.setattr(
        program, "seconds", lambda call, device: 0.5 if configuration("rows", torch.device(device)) == FAST else 1.0
    )
    monkeypatch.setitem(CANDIDATES, "rows", {"entries": (256,), "warps": (4,)})

    main(["--device", "cpu", "--kernels", "rows", "--out", str(path)])

    after = read(path)
    assert after == {**before, "NVIDIA H200": {"rows": FAST}, "cpu": {"split": before["default"]["split"], "rows": FAST}}


def test_a_new_file_begins_as_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "seconds", lambda call, device: 1.0)
    monkeypatch.setitem(CANDIDATES, "rows", {"entries": (256,), "warps": (4,)})

    main(["--device", "cpu", "--kernels", "rows", "--out", str(tmp_path / "new.json")])

    assert read(tmp_path / "new.json") == {**read(FILE), "cpu": {"rows": STORED}}


def test_an_invalid_file_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "seconds", lambda call, device: 1.0)
    (tmp_path / "bad.json").write_text('{"default": {"rows": {"entries": 4096}}}')

    with pytest.raises(SystemExit) as ended:
        main(["--device", "cpu", "--kernels", "rows", "--out", str(tmp_path / "bad.json")])

    assert ended.value.code == 2
    assert "rows is {'entries': 4096}; expected an object with entries, warps" in capsys.readouterr().err
