"""Timing a kernel where it runs: fresh inputs, what is kept for the judge, kernels that only look
fast, and what goes wrong.
"""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from suite.execution.in_process import InProcess
from suite.execution.isolated import Isolated
from suite.execution.timed import Running, Task, rolled
from suite.kernels import declarations, kernel, own_kernels
from suite.timing import cpu
from tests.extras import needs

FUSED = own_kernels("softmax")["fused"]


def of(function, op="softmax", **declared):
    """The kernel of a function, as @kernel makes it."""
    [made] = declarations(kernel(op, **declared)(function)).values()
    return made


def task(rows=400, length=300, *, dtype=torch.float32, kept_rows=None):
    generator = torch.Generator().manual_seed(0)
    inputs = tuple({"x": torch.randn(rows, length, generator=generator, dtype=dtype)} for _ in range(2))
    return Task(sets=inputs, device="cpu", options={"dim": -1}, rows=kept_rows, budget_seconds=0.0)


def timed(function, asked=None, **declared):
    return InProcess().time(of(function, **declared), asked or task())


def wrong_outputs(outcome, asked):
    """How many of the kept outputs are not torch's."""
    assert outcome.status is None, outcome.message
    return sum(
        not torch.allclose(
            one.outputs[0], torch.softmax(rolled(asked.sets[one.set]["x"], one.shift, torch.roll), -1)
        )
        for one in outcome.timed.kept
    )


def test_a_kernel_has_its_times_its_memory_and_outputs_for_the_judge():
    asked = task()

    outcome = InProcess().time(FUSED, asked)

    assert len(outcome.timed.timing.samples_seconds) >= 6
    assert outcome.timed.peak_bytes == 0
    assert [one.shift for one in outcome.timed.kept][:3] == [0, 1, 2]
    assert outcome.timed.kept[0].outputs[0].shape == (400, 300)
    assert wrong_outputs(outcome, asked) == 0


def test_only_the_rows_that_are_asked_for_are_kept():
    whole = InProcess().time(FUSED, task()).timed.kept
    some = InProcess().time(FUSED, task(kept_rows=(0, 7, 399))).timed.kept

    for one, other in zip(whole, some, strict=False):
        assert torch.equal(other.outputs[0], one.outputs[0][[0, 7, 399]])


@pytest.mark.parametrize("shape", [(4,), (1, 5), (5, 3), (1, 2, 4, 3)])
def test_rolled_inputs_are_others_with_the_same_entries(shape):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)

    for shift in (1, 2):
        found = rolled(values, shift, np.roll)

        assert not np.array_equal(found, values)
        assert sorted(found.ravel()) == sorted(values.ravel())
        assert np.array_equal(rolled(torch.tensor(values), shift, torch.roll).numpy(), found)
    assert rolled(values, 0, np.roll) is values


def test_fresh_inputs_lie_where_the_others_lay():
    asked = task()
    running = Running(FUSED, asked)
    place = running._tensors["x"].data_ptr()

    running.load(1, shift=2)

    assert running._tensors["x"].data_ptr() == place
    assert torch.equal(running._tensors["x"], torch.roll(asked.sets[1]["x"], (2, 2), (0, 1)))


def test_the_harness_around_a_kernel_takes_less_than_two_percent_of_100_microseconds():
    """The smallest of five tries of a hundred calls of a kernel that does nothing, which take some
    0.2 microseconds each.
    """
    running = Running(of(lambda x: x, name="idle"), task())

    assert min(cpu._seconds(running, 100, time.perf_counter_ns) for _ in range(5)) < 0.02 * 100e-6


def by_version():
    """Computes once for each version of a tensor: any two calls of a sample after the first cost nothing."""
    stored = {}

    def remembers(x, dim=-1):
        key = x.data_ptr(), x._version
        if stored.get("key") != key:
            stored.update(key=key, value=torch.softmax(x, dim))
        return stored["value"]

    return remembers


def by_content():
    """Computes once for each first entry."""
    stored = {}

    def remembers(x, dim=-1):
        key = float(x[0, 0])
        if key not in stored:
            stored[key] = torch.softmax(x, dim)
        return stored[key]

    return remembers


@pytest.mark.parametrize("shape", [(400, 300), (1, 1), (1, 2), (2, 2)])
def test_a_kernel_that_answers_from_memory_is_found_also_where_rolled_inputs_are_no_others(shape):
    """Slow where it computes, so that the smallest shapes show it."""
    stored = {}

    def remembers(x, dim=-1):
        key = x.numpy().tobytes()
        if key not in stored:
            time.sleep(2e-4)
            stored[key] = torch.softmax(x, dim)
        return stored[key]

    asked = task(*shape)
    further = tuple(
        {"x": torch.randn(*shape, generator=torch.Generator().manual_seed(seed))} for seed in range(1, 25)
    )

    outcome = timed(remembers, replace(asked, further=further))

    assert outcome.timed.timing is None
    assert outcome.timed.untimed.startswith("it answers from memory: ")


def test_fresh_inputs_are_further_sets_and_then_the_first_one_rolled():
    further = ({"x": torch.zeros(2, 2)}, {"x": torch.ones(2, 2)})
    asked = replace(task(2, 2), further=further)

    kept = InProcess().time(FUSED, asked).timed.kept

    assert [(one.set, one.shift, one.timed) for one in kept[:5]] == [
        (1, 0, True), (2, 0, False), (3, 0, False), (0, 1, False), (0, 2, False)
    ]  # fmt: skip
    assert torch.equal(kept[2].outputs[0], torch.full((2, 2), 0.5))


@pytest.mark.parametrize("made", [by_version, by_content])
def test_a_kernel_that_answers_from_memory_gets_no_times(made):
    """Both are right on every input."""
    asked = task()

    outcome = timed(made(), asked)

    assert wrong_outputs(outcome, asked) == 0
    assert outcome.timed.timing is None
    assert outcome.timed.untimed.startswith("it answers from memory: ")


@pytest.mark.parametrize("name", ["shifted", "two_pass", "naive", "fused"])
@pytest.mark.parametrize("shape", [(2, 3), (400, 300)])
def test_a_kernel_that_computes_every_time_is_none_that_answers_from_memory(name, shape):
    assert InProcess().time(own_kernels("softmax")[name], task(*shape)).timed.timing is not None


@pytest.mark.parametrize("period", [2, 3, 4, 5])
def test_a_kernel_that_skips_calls_has_a_wrong_output_among_those_kept(period):
    asked, calls, output = task(), [], torch.empty(400, 300)

    def skips(x, dim=-1):
        calls.append(1)
        if len(calls) % period == 0:
            torch.softmax(x, dim, out=output)
        return output

    assert wrong_outputs(timed(skips, asked), asked) > 0


def test_an_output_that_is_filled_after_the_call_has_returned_is_judged_as_it_was_returned():
    threads = []

    def in_background(x, dim=-1):
        output = torch.zeros_like(x)

        def fill():
            time.sleep(0.01)
            torch.softmax(x, dim, out=output)

        threads.append(threading.Thread(target=fill))
        threads[-1].start()
        return output

    asked = task()
    outcome = timed(in_background, asked)
    for thread in threads:
        thread.join()

    assert wrong_outputs(outcome, asked) > 0


class Lazy(torch.Tensor):
    """Computes when somebody looks at it."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        plain = [
            torch.softmax(a.as_subclass(torch.Tensor), -1) if isinstance(a, Lazy) else a for a in arguments
        ]
        return function(*plain, **(named or {}))


def test_an_output_that_computes_when_it_is_looked_at_gets_no_times():
    outcome = timed(lambda x: x.as_subclass(Lazy), name="lazy")

    assert outcome.status is None
    assert outcome.timed.timing is None
    assert "Lazy" in outcome.timed.untimed


def after(calls_before, act):
    """torch's softmax, and act(input, output) in place of its output after so many calls."""
    calls = []

    def later(x, dim=-1):
        calls.append(1)
        output = torch.softmax(x, dim)
        return act(x, output) if len(calls) > calls_before else output

    return later


def raising(error):
    def act(x, output):
        raise error

    return act


class BaseOnly(BaseException):
    pass


@pytest.mark.parametrize(
    ("act", "status", "fragment"),
    [
        (lambda x, output: None, "wrong_type", "NoneType"),
        (lambda x, output: "text", "wrong_type", "text"),
        (lambda x, output: output.numpy(), "wrong_type", "numpy"),
        (lambda x, output: [output], "wrong_type", "list"),
        (lambda x, output: output.to_sparse(), "wrong_type", "layout"),
        (lambda x, output: output.to("meta"), "wrong_type", "meta"),
        (lambda x, output: output[1:], "wrong_shape", "[399, 300]"),
        (lambda x, output: output.double(), "wrong_dtype", "float64"),
        (lambda x, output: x.zero_() + output, "law_broken", "changed its input x"),
        (lambda x, output: x.resize_(1, 1) and output, "law_broken", "changed its input x"),
        (lambda x, output: (torch.set_num_threads(5), output)[1], "law_broken", "threads from 1 to 5"),
        (raising(ValueError("rows are too long")), "raised", "ValueError: rows are too long"),
        (raising(BaseOnly("base")), "raised", "BaseOnly: base"),
        (raising(MemoryError("none left")), "out_of_memory", "none left"),
        (raising(RuntimeError("DefaultCPUAllocator: can't allocate memory")), "out_of_memory", "allocate"),
    ],
)
@pytest.mark.parametrize("calls_before", [0, 5])
def test_what_goes_wrong_in_a_timed_call_is_a_status(act, status, fragment, calls_before, monkeypatch):
    torch.set_num_threads(1)

    outcome = timed(after(calls_before, act))

    assert (outcome.status, fragment in outcome.message) == (status, True), outcome.message
    assert torch.get_num_threads() == 1


def test_the_users_interrupt_passes():
    with pytest.raises(KeyboardInterrupt):
        timed(after(2, raising(KeyboardInterrupt())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kernels_of_jax_are_timed_until_their_result_is_there(dtype):
    needs("jax")
    import jax

    asked = task(dtype=dtype)

    outcome = InProcess().time(of(jax.jit(lambda x: x + x), name="by_jax", adapter="jax"), asked)

    assert outcome.status is None, outcome.message
    assert outcome.timed.timing is not None
    assert torch.equal(outcome.timed.kept[0].outputs[0], 2 * asked.sets[1]["x"])


OUTSIDE = """
import os, time
import torch

calls = []


def right(x, dim=-1):
    print("noise")
    return torch.softmax(x, dim)


def exits(x, dim=-1):
    calls.append(1)
    if len(calls) > 4:
        os._exit(3)
    return torch.softmax(x, dim)


def hangs(x, dim=-1):
    calls.append(1)
    if len(calls) > 4:
        time.sleep(60)
    return torch.softmax(x, dim)


def wrong(x, dim=-1):
    return torch.softmax(x, dim)[1:]
"""


@pytest.fixture
def outside(tmp_path):
    (tmp_path / "kernels.py").write_text(OUTSIDE)
    with Isolated(load_seconds=60.0) as host:
        yield lambda name: (host, host.load(f"{tmp_path / 'kernels.py'}:{name}", "softmax")[0])


def test_a_kernel_from_outside_is_timed_in_its_own_process(outside, capfd):
    host, chosen = outside("right")
    asked = task(kept_rows=(0, 5))

    outcome = host.time(chosen, asked)

    assert outcome.status is None, outcome.message
    assert outcome.timed.timing.median.value > 0
    assert isinstance(outcome.timed.timing.samples_seconds, tuple)
    assert torch.equal(outcome.timed.kept[0].outputs[0], torch.softmax(asked.sets[1]["x"], -1)[[0, 5]])
    assert "noise" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "status", "fragment"),
    [
        ("exits", "crashed", "exited with code 3, being timed"),
        ("hangs", "timed_out", "still being timed after 1 s"),
        ("wrong", "wrong_shape", "[399, 300]"),
    ],
)
def test_a_process_that_ends_or_hangs_while_it_is_timed_is_a_status(outside, name, status, fragment):
    host, chosen = outside(name)

    outcome = host.time(chosen, task(), limit_seconds=1.0 if name == "hangs" else 60.0)

    assert (outcome.status, fragment in outcome.message) == (status, True), outcome.message


def test_a_kernel_that_ends_its_process_whenever_it_is_timed_is_set_aside(outside):
    host, chosen = outside("exits")

    found = [host.time(chosen, task()) for _ in range(4)]

    assert [one.status for one in found] == ["crashed"] * 3 + ["not_run"]
    assert found[3].message.startswith("set aside: it ended 3 processes where it was timed")
