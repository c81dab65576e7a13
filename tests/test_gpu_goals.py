"""What a GPU run measures beside the commands: a wrong kernel gets no time, a fault leaves the
rest, ratios have goals.
"""

import contextlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from suite.studies import gpu_goals
from suite.studies.gpu_goals import (
    ON_CPU,
    Row,
    at_least,
    attempted,
    goals,
    hidden_work,
    of_attention,
    of_rows,
    timers,
    unusable,
    write_rows,
)


@pytest.fixture
def kernels(monkeypatch):
    """own_kernels() with functions of this test: softmax and attention by name."""

    def use(**functions):
        found = {
            f"{name}_interpreter": SimpleNamespace(call=function) for name, function in functions.items()
        }
        monkeypatch.setattr(gpu_goals, "own_kernels", lambda _: found)

    return use


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(gpu_goals, "ON_CPU", replace(ON_CPU, budget_seconds=0.01))


def softmax(x):
    return torch.softmax(x, -1)


def rows(*names):
    return list(of_rows((64, 128), names, device="cpu", copy=1e9, goal=0.9, beside_torch=1.0))


def test_a_right_kernel_is_timed_beside_a_copy_and_torch(kernels):
    kernels(ours=softmax)

    of_copy, alike, beside_torch = rows("ours")

    assert of_copy.what == "softmax 64 x 128 bfloat16: of copy"
    assert of_copy.goal == 0.9
    assert (alike.what, alike.goal) == ("softmax 64 x 128 bfloat16: of a copy of this size", None)
    times = [float(note.split()[-2]) for note in of_copy.note.split("; ")]
    assert alike.measured == pytest.approx(times[1] / times[0], rel=0.05)
    assert of_copy.measured > 0
    # The same function twice, on a machine with other work.
    assert beside_torch.measured == pytest.approx(1, rel=0.9)
    assert "ours" in of_copy.note


def test_of_several_kernels_the_fastest_has_the_goal(kernels):
    kernels(slow=lambda x: [softmax(x) for _ in range(20)][-1], fast=softmax)

    of_copy, *_ = rows("slow", "fast")

    times = {part.split()[0]: float(part.split()[1]) for part in of_copy.note.split("; ")[:2]}
    assert times["fast"] < times["slow"]
    assert of_copy.measured == pytest.approx(2 * 64 * 128 * 2 / times["fast"] / 1e3, rel=0.05)


@pytest.mark.parametrize(
    ("wrong", "note"),
    [
        (lambda x: softmax(x) * 1.02, "ours: softmax bfloat16 [16, 128]: inaccurate"),
        (lambda x: torch.full_like(x, torch.nan), "ours: softmax bfloat16 [16, 128]: nonfinite"),
        (lambda x: softmax(x).index_fill(0, torch.tensor(20), 0.0), "ours: equal rows have unlike bits"),
    ],
    ids=["two percent", "nan", "a row that is not judged"],
)
def test_a_wrong_kernel_gets_no_time(wrong, note, kernels):
    kernels(ours=wrong)

    [row] = rows("ours")

    assert (row.measured, row.met) == (None, False)
    assert row.note.startswith(note)


def test_a_wrong_kernel_beside_a_right_one_is_named(kernels):
    kernels(ours=softmax, wrong=lambda x: x)

    of_copy, *_ = rows("wrong", "ours")

    assert of_copy.measured > 0
    assert "wrong: softmax bfloat16" in of_copy.note


def test_rows_that_fused_spills_are_those_of_online_too(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu_goals, "of_rows", lambda shape, names, **_: asked.append((shape[1], names)) or ())
    monkeypatch.setattr(gpu_goals, "of_attention", lambda *_: ())
    monkeypatch.setattr(gpu_goals, "sizes_of", lambda _: replace(ON_CPU, lengths=(32768, 65536)))
    monkeypatch.setattr(gpu_goals.machine, "copy_bytes_per_second", lambda _: 1.0)

    list(goals("cpu"))

    assert asked[:2] == [(32768, ("triton_fused",)), (65536, ("triton_fused", "triton_online"))]


def attend(q, k, v, causal=None):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal is not None)


@pytest.mark.parametrize("causal", [None, "top_left"])
def test_attention_is_timed_beside_the_fastest_backend(causal, kernels):
    kernels(triton_flash=attend)

    [row] = of_attention(causal, "cpu")

    assert row.measured > 0
    assert row.goal == 0.6
    assert "best: FLASH_ATTENTION" in row.note


def test_a_backend_that_fails_leaves_the_others(kernels, monkeypatch):
    kernels(triton_flash=attend)
    asked = []

    def seconds(call, device):
        asked.append(call)
        if len(asked) == 1:
            raise RuntimeError("cuDNN Frontend error: no plan\nfor this")
        return 1e-3

    monkeypatch.setattr(gpu_goals, "seconds", seconds)

    [row] = of_attention(None, "cpu")

    assert row.measured == 1.0
    assert "best: EFFICIENT_ATTENTION" in row.note
    assert "FLASH_ATTENTION: RuntimeError: cuDNN Frontend error: no plan" in row.note


@pytest.mark.parametrize("causal", [None, "top_left"])
def test_attention_that_ignores_its_mask_gets_no_time(causal, kernels):
    """The last query sees all keys: the ones before it do not."""
    kernels(triton_flash=lambda q, k, v, causal=None: attend(q, k, v, None if causal else "top_left"))

    [row] = of_attention(causal, "cpu")

    assert (row.measured, row.met) == (None, False)
    assert row.note.startswith("attention bfloat16")


def test_a_kernel_that_raises_leaves_the_rest(kernels, monkeypatch):
    def broken(x):
        raise RuntimeError("no kernel image is available\nfor this device")

    kernels(triton_fused=broken, triton_online=softmax, triton_split=softmax, triton_flash=attend)

    found = list(goals("cpu"))

    bad = [row for row in found if row.measured is None]
    assert [row.note for row in bad] == ["no kernel image is available"] * len(ON_CPU.lengths)
    assert all(row.met is False for row in bad)
    assert len(found) == len(bad) + 3 + 2


def test_attempted_keeps_the_rows_before_the_fault():
    def measure(device):
        yield at_least("a", 1.0, 0.5)
        raise MemoryError

    first, second = attempted(measure, "cpu")

    assert first.met
    assert (second.what, second.measured, second.met) == ("cpu: MemoryError", None, False)


@pytest.mark.parametrize(("ratio", "met"), [(1.029, True), (0.971, True), (1.031, False), (0.969, False)])
def test_timers_agree_within_their_goal(ratio, met, monkeypatch):
    def of_torch(_):
        return 1.0

    monkeypatch.setattr(gpu_goals, "seconds", lambda *_: ratio)
    monkeypatch.setattr(gpu_goals, "of_torch", of_torch)

    found = list(timers("cpu"))

    assert [row.met for row in found] == [met] * 3
    assert [row.measured for row in found] == [ratio] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="streams are CUDA's")
def test_work_on_another_stream_cannot_look_fast():
    matrix = torch.ones(4096, 4096, device="cuda")

    assert hidden_work(lambda: matrix @ matrix, "cuda").met


def test_what_was_measured_before_the_end_is_kept(tmp_path, monkeypatch):
    def measure(_):
        yield Row(what="first", measured=1.0, unit="GB/s")
        raise KeyboardInterrupt

    monkeypatch.setitem(gpu_goals.STAGES, "facts", measure)

    with pytest.raises(KeyboardInterrupt):
        write_rows("facts", "cpu", tmp_path / "facts.json", say=print)

    written = json.loads((tmp_path / "facts.json").read_text())
    assert [row["what"] for row in written["rows"]] == ["first"]
    assert written["environment"]["device"] == "cpu"


def test_the_device_that_was_named_is_the_current_one(tmp_path, monkeypatch):
    """Events and streams are those of the current device."""
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "device", lambda device: current.append(device) or contextlib.nullcontext()
    )
    monkeypatch.setitem(
        gpu_goals.STAGES, "facts", lambda device: [Row(what=str(current), measured=1.0, unit="")]
    )

    write_rows("facts", "cuda:1", tmp_path / "facts.json", say=print)

    assert json.loads((tmp_path / "facts.json").read_text())["rows"][0]["what"] == "['cuda:1']"


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("cpu", ""),
        ("cuda", ""),
        ("cuda:1", ""),
        ("cuda:2", ": torch finds 2 CUDA devices here, from cuda:0"),
        ("cuda:", " is not one of cuda, cuda:N, cpu"),
        ("cpu:0", " is not one of cuda, cuda:N, cpu"),
    ],
)
def test_a_device_that_cannot_be_used_is_told(device, reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert unusable(device) == reason
