"""The timers, by clocks that tests move: what they take for a sample, when they stop, what their
intervals promise.
"""

import gc
import math
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from suite.inputs.draws import Draw
from suite.timing import cpu, cuda, memory
from suite.timing.replay import ReplayClock
from suite.timing.statistics import (
    FEWEST,
    MOST,
    Interval,
    Timing,
    median_interval,
    order_statistic,
    sample_until_narrow,
    scaling,
)

MICROSECOND = 1_000


class Hands:
    """A clock in nanoseconds that moves by `step` at each reading and by what calls() says."""

    def __init__(self, step=0, tick=1):
        self.now, self.step, self.tick = 0, step, tick

    def __call__(self):
        self.now += self.step
        return self.now // self.tick * self.tick

    def calls(self, *nanoseconds):
        """A function whose calls take these times in turn, the last one for good."""
        rest = list(nanoseconds)

        def call():
            self.now += rest.pop(0) if len(rest) > 1 else rest[0]

        return call


def timing(*samples, **changed):
    return Timing(
        **{
            "samples_seconds": samples,
            "clock": "cuda_event",
            "cache": "flushed",
            "calls_per_sample": 1,
            "first_seconds": 1.0,
        }
        | changed
    )


@pytest.mark.parametrize(
    ("n", "k"), [(1, 0), (5, 0), (6, 1), (10, 2), (15, 4), (20, 6), (50, 18), (100, 40), (200, 86)]
)
def test_order_statistics_are_those_of_the_tables(n, k):
    """Conover, Practical Nonparametric Statistics, section 3.2: the largest k with 2 P(B(n, 1/2) <
    k) <= 0.05.
    """
    assert order_statistic(n) == k


@pytest.mark.parametrize("n", [6, 7, 15, 40, 199])
def test_one_order_statistic_further_in_promises_less(n):
    def enclosed(k):
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n

    assert enclosed(order_statistic(n)) >= 0.95 > enclosed(order_statistic(n) + 1)


@pytest.mark.parametrize("n", [6, 15, 40])
def test_the_interval_covers_the_median_of_a_skewed_distribution(n):
    """Of 4,000 intervals at least 94 % hold the median: three standard errors, 0.0103, below 95 %."""
    squares = Draw(f"coverage|{n}").uniform(4000, n) ** 2  # its median is 1/4, its mean 1/3

    found = [median_interval(row) for row in squares.tolist()]

    assert np.mean([one.low <= 0.25 <= one.high for one in found]) >= 0.95 - 0.0103
    assert np.mean([one.low <= 1 / 3 <= one.high for one in found]) < 0.94 or n == 6


def test_stopping_at_a_narrow_interval_leaves_it_its_promise():
    """Of 300 runs that stop by themselves at least 91.2 % hold the true median: three standard
    errors, 0.038, below 95 %.
    """
    covered = 0
    for trial in range(300):
        samples = np.exp(0.02 * Draw(f"stopping|{trial}").normal(MOST)).tolist()
        taken = sample_until_narrow(
            samples.__getitem__, now=lambda: 0.0, target=0.01, budget_seconds=1.0, together=2
        )
        found = median_interval(taken)
        covered += found.low <= 1.0 <= found.high

    assert covered >= 0.912 * 300


def test_the_interval_is_made_of_samples_and_does_not_depend_on_their_order():
    samples = [5.0, 1.0, 4.0, 2.0, 9.0, 3.0]

    assert median_interval(samples) == median_interval(sorted(samples)) == Interval(3.5, 1.0, 9.0)


def test_too_few_samples_have_no_interval():
    with pytest.raises(ValueError, match="5 samples; an interval of the median needs at least 6"):
        median_interval([1.0] * 5)


def test_sampling_stops_as_soon_as_the_interval_is_narrow():
    assert len(sample_until_narrow(lambda _: 1.0, now=lambda: 0.0, target=0.01, budget_seconds=9.0)) == FEWEST


def test_sampling_goes_on_while_the_interval_is_wide_and_stops_at_the_most():
    wide = sample_until_narrow(lambda i: 1.0 + i % 2, now=lambda: 0.0, target=0.01, budget_seconds=9.0)

    assert len(wide) == MOST


def test_sampling_stops_when_the_noise_has_averaged_out():
    noise = Draw("noise").normal(MOST).tolist()

    loose, tight = (
        len(
            sample_until_narrow(
                lambda i: 1 + 0.02 * noise[i], now=lambda: 0.0, target=target, budget_seconds=9.0
            )
        )
        for target in (0.04, 0.015)
    )

    assert FEWEST < loose < tight < MOST


@pytest.mark.parametrize(("budget", "count"), [(0.0, FEWEST), (9.5, 10), (20.0, 20)])
def test_sampling_stops_at_the_budget_but_never_before_there_is_an_interval(budget, count):
    hands = Hands()
    slow = hands.calls(1_000_000_000, 2_000_000_000, 1_000_000_000)

    def take(index):
        before = hands.now
        slow()
        return (hands.now - before) * 1e-9 * (1 + index % 2)

    samples = sample_until_narrow(take, now=lambda: hands() * 1e-9, target=0.0, budget_seconds=budget)

    assert len(samples) in (count - 1, count)
    assert len(samples) >= FEWEST


def test_samples_end_with_the_last_set_of_inputs():
    taken = []

    sample_until_narrow(
        lambda i: taken.append(i) or float(i), now=lambda: 0.0, target=0.0, budget_seconds=9.0, together=3
    )

    assert taken == list(range(MOST // 3 * 3))


def test_a_call_is_timed_by_samples_of_a_millisecond():
    hands = Hands()

    found = cpu.measure(hands.calls(10 * MICROSECOND), clock=ticking(hands))

    assert found.calls_per_sample == 100
    # A step of 1 ns in each of two readings.
    assert found.samples_seconds == pytest.approx([10e-6] * FEWEST, rel=1e-3)
    assert (found.clock, found.cache) == ("perf_counter", "warm")


def ticking(hands):
    """A clock must move to have a resolution."""
    hands.step = 1
    return hands


def test_a_coarse_clock_gets_longer_samples():
    hands = Hands(step=100 * MICROSECOND, tick=1_000_000)  # steps of a millisecond

    assert cpu.resolution_seconds(hands) == 1e-3
    assert cpu.calls_per_sample(0.01, 1e-3) == 100  # 1,000 times the resolution is a second
    assert cpu.calls_per_sample(2.0, 1e-3) == 1
    assert cpu.calls_per_sample(0.0, 1e-9) == cpu.MOST_CALLS


def test_what_the_harness_takes_is_subtracted():
    """Each reading of the clock takes a microsecond, which is 1 % of a sample of one call of 100
    microseconds.
    """
    hands = Hands(step=MICROSECOND)

    found = cpu.measure(hands.calls(100 * MICROSECOND), cache="flushed", flush=lambda: None, clock=hands)

    assert found.overhead_seconds == pytest.approx(1e-6)
    assert found.samples_seconds == pytest.approx([100e-6] * FEWEST)


def test_the_harness_takes_less_than_two_percent_of_100_microseconds():
    """The smallest of five tries of ten empty calls, which is 50 ns or so: even a machine at a
    tenth of its speed passes.
    """
    assert cpu.overhead_seconds(10, time.perf_counter_ns) < 0.02 * 100e-6


def test_a_flushed_cache_costs_nothing_and_happens_before_every_sample():
    hands, flushed = Hands(), []

    def flush():
        flushed.append(hands.now)
        hands.now += 10**9

    found = cpu.measure(
        hands.calls(50 * MICROSECOND), cache="flushed", flush=flush, clock=ticking(hands), budget_seconds=1e9
    )

    assert found.calls_per_sample == 1
    assert len(flushed) == len(found.samples_seconds)
    assert found.samples_seconds == pytest.approx([50e-6] * FEWEST, rel=1e-3)


def test_inputs_take_turns_before_every_sample_and_outside_of_it():
    hands, sets = Hands(), []

    def prepare(index):
        sets.append(index)
        hands.now += 10**9

    found = cpu.measure(
        hands.calls(MICROSECOND), prepare=prepare, sets=2, clock=ticking(hands), budget_seconds=1e9
    )

    assert sets == [0] + [0, 1] * (len(found.samples_seconds) // 2)
    assert found.median.value == pytest.approx(1e-6, rel=1e-2)


def test_the_first_call_stands_apart():
    hands = Hands()

    found = cpu.measure(hands.calls(5 * 10**9, 10 * MICROSECOND), clock=ticking(hands))

    assert found.first_seconds == pytest.approx(5.0)
    assert found.median.value == pytest.approx(10e-6, rel=1e-3)


def test_no_garbage_is_collected_while_samples_are_taken():
    hands, seen = Hands(), []
    call = hands.calls(10**7)

    cpu.measure(lambda: (seen.append(gc.isenabled()), call()), clock=ticking(hands))

    assert not any(seen[-FEWEST:])
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_call_that_raises():
    calls = []

    def call():
        calls.append(1)
        if len(calls) > 10:
            raise RuntimeError("the tenth call")

    with pytest.raises(RuntimeError, match="the tenth call"):
        cpu.measure(call)
    assert gc.isenabled()


def test_a_state_of_the_cache_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="cache='cold' is not one of warm, flushed"):
        cpu.measure(lambda: None, cache="cold")


def test_the_last_level_cache_is_the_largest_that_the_system_names(tmp_path):
    for index, text in enumerate(("32K\n", "1024K\n", "32M\n", "nonsense")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(text)

    assert cpu.last_level_cache_bytes(tmp_path) == 32 * 2**20
    assert cpu.last_level_cache_bytes(tmp_path / "none") == cpu.UNKNOWN_CACHE_BYTES


def test_flushing_writes_a_buffer_of_twice_the_cache():
    flush = cpu.Flush(1000)

    flush()
    flush()

    assert flush._buffer.tolist() == [2] * 2000


def test_a_peak_is_the_most_that_is_live_at_once():
    assert memory.peak_of([]) == 0
    assert memory.peak_of([10, -10, 7, 7, -14]) == 14


def test_memory_of_a_call_is_counted_beside_its_output():
    x = torch.zeros(1000)

    def scratch():
        torch.empty(3_000_000, dtype=torch.uint8)
        return torch.exp(x)

    def both_at_once():
        first = torch.empty(3_000_000, dtype=torch.uint8)
        second = torch.empty(2_000_000, dtype=torch.uint8)
        del first, second
        return torch.exp(x), torch.exp(x)

    assert memory.peak_bytes(x.exp_) == 0
    assert memory.peak_bytes(lambda: torch.exp(x)) == 0
    # It is given back before the output of 4,000 bytes is made.
    assert memory.peak_bytes(scratch) == 3_000_000 - 4000
    assert memory.peak_bytes(both_at_once) == 5_000_000 - 8000


def test_memory_inside_of_an_operator_is_counted():
    """logsumexp keeps the exponentials of all entries; only its output is visible from outside."""
    x = torch.zeros(16, 4096)

    assert memory.peak_bytes(lambda: torch.logsumexp(x, -1)) >= 16 * 4096 * 4


def test_a_power_law_has_its_exponent():
    found = scaling({n: [n**2 * 1e-9] * 6 for n in (256, 512, 2048)}, Draw("exact").integers)

    assert found.exponent == Interval(*[pytest.approx(2.0)] * 3)
    assert found.last == pytest.approx(2.0)
    assert found.lengths == (256, 512, 2048)


def test_noise_of_the_times_is_the_width_of_the_exponents_interval():
    def width(noise):
        draw = Draw("samples")
        samples = {n: (n * (1 + noise * draw.uniform(40))).tolist() for n in (256, 1024, 4096)}
        found = scaling(samples, Draw("bootstrap").integers)
        assert found.exponent.low <= found.exponent.value <= found.exponent.high
        return found.exponent.high - found.exponent.low

    assert 5 * width(0.01) < width(0.2) < 0.2


def test_the_bootstrap_covers_the_true_exponent():
    """Of 200 intervals at least 90 %: 95 % less three standard errors of that count, 0.046."""
    covered = 0
    for trial in range(200):
        draw = Draw(f"trial {trial}")
        samples = {n: (n**1.5 * np.exp(0.1 * draw.normal(20))).tolist() for n in (256, 1024, 4096, 16384)}
        found = scaling(samples, Draw(f"bootstrap {trial}").integers, resamples=200)
        covered += found.exponent.low <= 1.5 <= found.exponent.high

    assert covered >= 0.9 * 200


def test_an_exponential_cost_shows_between_the_last_lengths():
    found = scaling({n: [2.0 ** (n / 100)] * 6 for n in (100, 200, 400, 800)}, Draw("exponential").integers)

    assert found.last > 1.5 * found.exponent.value


def test_two_lengths_have_no_exponent():
    assert scaling({1: [1.0], 2: [2.0], 3: []}, Draw("two").integers) is None


class Device:
    """A CUDA device in the head: streams that work on while the host goes on, events, graphs. Times
    in seconds.
    """

    LAUNCH, WAIT = 5e-6, 8e-6

    def __init__(self):
        self.now, self.ends, self.stream, self.capturing = 0.0, {}, "current", None
        self.captures = True

    def launch(self, seconds, stream=None, does=lambda: None):
        """Work of so many seconds on a stream: the host is on its way again after a launch. A
        capture is of its own stream.
        """
        if self.capturing is not None and stream is None:
            if not self.captures:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.capturing.append((seconds, does))
            return
        does()
        self.now += self.LAUNCH
        stream = stream or self.stream
        self.ends[stream] = max(self.ends.get(stream, 0.0), self.now) + seconds

    def synchronize(self, device=None):
        self.now = max([self.now, *self.ends.values()]) + self.WAIT

    def context(self, *_):
        return self

    __enter__ = context
    __exit__ = context

    def wait_stream(self, other):
        pass


@pytest.fixture
def device(monkeypatch):
    """torch.cuda and the host's clock are those of a Device."""
    simulated = Device()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            simulated.now += 1e-7
            self.at = max(simulated.ends.get("current", 0.0), simulated.now)

        def synchronize(self):
            simulated.now = max(simulated.now, self.at)

        def elapsed_time(self, end):
            return (end.at - self.at) * 1e3

    class Graph:
        def __init__(self):
            self.work = []

        def replay(self):
            for _, does in self.work:
                does()
            simulated.launch(sum(seconds for seconds, _ in self.work))

    class Capture:
        def __init__(self, graph):
            self.graph = graph

        def __enter__(self):
            simulated.capturing = self.graph.work

        def __exit__(self, kind, *_):
            simulated.capturing = None
            if not self.graph.work and kind is None:
                warnings.warn("The CUDA Graph is empty. This usually means ...", UserWarning, stacklevel=1)

    class Flush:
        def __init__(self, device):
            pass

        def __call__(self):
            simulated.launch(50e-6)

    fakes = {
        "device": simulated.context, "synchronize": simulated.synchronize, "Event": Event, "CUDAGraph": Graph,
        "Stream": simulated.context, "stream": simulated.context, "current_stream": simulated.context,
        "graph": Capture,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(cuda, "Flush", Flush)
    monkeypatch.setattr(cuda, "device_state", lambda device: None)
    monkeypatch.setattr(cuda, "time", SimpleNamespace(perf_counter=lambda: simulated.now))
    return simulated


def test_events_time_a_call_and_not_what_was_queued_before_it(device):
    found = cuda.measure(lambda: device.launch(2e-3), device="cuda")

    assert found.median.value == pytest.approx(2e-3, rel=1e-2)
    assert (found.clock, found.cache, found.note) == ("cuda_event", "flushed", "")
    assert found.details["launch_bound"] is False


def test_a_kernel_on_another_stream_cannot_look_fast(device):
    """It returns at once, and events on the current stream see nothing of its two milliseconds."""
    assert cuda.event_seconds(lambda: device.launch(2e-3, stream="its own"), "cuda") < 1e-4

    found = cuda.measure(lambda: device.launch(2e-3, stream="its own"), device="cuda")

    assert found.clock == "perf_counter"
    assert found.median.value >= 2e-3
    assert "other streams" in found.note


def test_a_small_kernel_is_replayed_from_a_graph_and_marked_launch_bound(device):
    """Three launches of 1 microsecond, each of which takes Python 20."""

    def call():
        for _ in range(3):
            device.now += 20e-6 if device.capturing is None else 0
            device.launch(1e-6)

    found = cuda.measure(call, device="cuda")

    assert found.clock == "cuda_graph"
    assert found.median.value < 20e-6 < 50e-6 < found.details["eager_seconds"]
    assert found.details["launch_bound"] is True
    assert "launch-bound" in found.note


def test_what_cannot_be_captured_is_timed_by_events(device):
    device.captures = False
    calls = []

    found = cuda.measure(
        lambda: (calls.append(device.capturing is None), device.launch(20e-6)), device="cuda"
    )

    assert found.clock == "cuda_event"
    assert calls[-1], "the last call is one that ran, not one of a capture"


def test_the_output_after_a_graph_is_of_a_replay(device):
    """Half of it is written on another stream, which the graph does not have: the last eager output
    would hide that.
    """
    output = torch.zeros(2)

    def call():
        device.launch(10e-6, does=lambda: output[:1].fill_(1.0))
        device.launch(10e-9, stream="its own", does=lambda: output[1:].fill_(1.0))
        return output

    found = cuda.measure(call, device="cuda")

    assert found.clock == "cuda_graph"
    assert output.isnan().tolist() == [False, True]


def test_a_graph_of_nothing_is_no_graph(device):
    calls = []

    def call():
        calls.append(device.capturing is None)
        if calls[-1]:  # once it has seen its inputs it answers from memory
            device.launch(20e-6)

    found = cuda.measure(call, device="cuda")

    assert found.clock == "cuda_event"
    assert calls[-1]


def test_inputs_take_turns_on_the_device_too(device):
    sets = []

    found = cuda.measure(lambda: device.launch(1e-3), device="cuda", prepare=sets.append, sets=2)

    assert sets == [0] + [0, 1] * (len(found.samples_seconds) // 2)


def test_a_graph_that_saves_nothing_is_no_launch_bound_case():
    found = cuda.by_graph(timing(*[10.5e-6] * 6, details={"launch_bound": False}), (9e-6,) * 6, 10e-6)

    assert found.clock == "cuda_graph"
    assert found.details == {"launch_bound": False, "eager_seconds": 10e-6}
    assert found.note == ""


@pytest.mark.parametrize(
    ("late", "idle", "seen", "expected"),
    [
        (12e-6, 10e-6, 1e-3, False),
        (2e-3, 10e-6, 1e-5, True),
        (90e-6, 10e-6, 1e-3, False),
        (300e-6, 10e-6, 1e-3, True),
    ],
)
def test_unseen_work_is_what_outlasts_the_events(late, idle, seen, expected):
    assert cuda.unseen(late, idle, seen) is expected


def test_reasons_of_throttling_are_words():
    assert cuda.throttling(0x01) == []
    assert cuda.throttling(0x24) == ["software power cap", "software thermal slowdown"]


def test_the_state_of_a_device_needs_nvidia_ml_py(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)

    assert cuda.device_state("cuda") is None


def test_the_replay_gives_the_samples_to_the_bit():
    clock, samples = ReplayClock(), Draw("samples").uniform(20).tolist()
    replay = clock.replaying(samples)

    seen = []
    for _ in samples:
        start = clock()
        replay()
        seen.append(clock() - start)

    assert seen == samples
    with pytest.raises(StopIteration):
        replay()
