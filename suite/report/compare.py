"""Two runs as one comparison: verdicts that changed, accuracy, bits and speed, joined evaluation by
evaluation. Data only.

What is joined has the same op, kernel, case, dtype and direction. Devices are joined too where both
runs have them; where each run has one that the other has not ("cpu" here, "cuda" there), those two
stand side by side: machines differ by design. docs/compare.md says why the rules are as they are.
"""

from __future__ import annotations

import functools
import gc
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from suite.formats import Array
from suite.records import strict_json
from suite.records.configuration import FILE, read_configuration
from suite.records.record import PASSING, STATUSES, Measurement, Record
from suite.records.schema import SIZE, check
from suite.records.store import (
    Run,
    has_records,
    latest,
    read_environment,
    read_measurements,
    read_records,
    refuse_twice,
)
from suite.timing.statistics import FEWEST, LEVEL

T = TypeVar("T", bound=Record | Measurement)

FACTOR, FLOOR = 2.0, 2.0**-4
"""A change of accuracy is meaningful if the error doubles or halves, which is one bit, and by more
than this share of the bound: four times what the reference may be off. Crossing the bound always
is.
"""

THRESHOLD = 0.05
"""The share by which a median must differ for FASTER or SLOWER."""

MOST = 1000
"""Samples that a measurement may have."""

CHANGES = ("new failure", "no verdict now", "mended", "other verdict", "new", "gone")
ACCURACY = ("equal", "better", "worse")
BITS = ("same", "other", "not comparable")
SPEEDS = ("SLOWER", "AMBIGUOUS", "FASTER", "SAME", "not comparable")
GATES = ("status", "accuracy", "speed")

TEXT, NULL = {"type": "string"}, {"type": "null"}
SECONDS = {"type": "number", "minimum": 1e-12, "maximum": 1e9}
ERROR = {"anyOf": [*SIZE["anyOf"], NULL]}
AMOUNT = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1e30}, NULL]}
THROUGHPUT = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": [*STATUSES, "known_failure"]},
        "direction": {"type": "string", "enum": ["forward", "backward"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**53}},
        "samples_seconds": {"type": "array", "items": SECONDS},
        **dict.fromkeys(("ratio", "max_ulp"), ERROR),
        **dict.fromkeys(("digest", "clock", "cache", "note"), TEXT),
        "threads": {"type": "integer", "minimum": 0, "maximum": 2**31},
        **dict.fromkeys(
            ("bytes", "operations", "peak_bytes", "copy_bytes_per_second", "matmul_operations_per_second"),
            AMOUNT,
        ),
    },
    "required": ["status", "direction", "shape", "samples_seconds", "clock", "cache"],
}
"""What is read of the data of a measurement of kind "throughput"; it may hold more."""


class Accuracy(NamedTuple):
    """change: one of ACCURACY, exactly; "" where one side has no error. meaningful: the change is
    one that gates speak of.
    """

    change: str = ""
    meaningful: bool = False


class Reason(NamedTuple):
    """Why a new run is refused. gate: one of GATES, or "baseline"."""

    gate: str
    text: str

    def __str__(self) -> str:
        return f"{self.gate}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One evaluation in both runs, or in one of them. change: one of CHANGES, "" for the same
    status. bits: one of BITS, "" where a side has no digest.
    """

    base: Record | None
    new: Record | None
    change: str = ""
    accuracy: Accuracy = field(default_factory=Accuracy)
    bits: str = ""

    @property
    def record(self) -> Record:
        found = self.new or self.base
        assert found is not None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """A throughput measurement in both runs, or in one of them.

    ratio: median time of new over that of base, low and high its 95 % interval; None without
    samples on both sides.
    verdict: one of SPEEDS; "" where a side is missing or neither has times. note: why it is not
    what one would expect.
    change: one of CHANGES, of what happened while it was timed; "" where that is what its
    evaluation says too.
    """

    base: Measurement | None
    new: Measurement | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    note: str = ""
    change: str = ""

    @property
    def measurement(self) -> Measurement:
        found = self.new or self.base
        assert found is not None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The run `new` beside the run `base`. same_environment: whether bits can be compared. reasons:
    why gates refuse `new`.
    """

    base: Run
    new: Run
    pairs: tuple[Pair, ...]
    speeds: tuple[Speed, ...]
    same_environment: bool
    threshold: float = THRESHOLD
    reasons: tuple[Reason, ...] = ()

    def changes(self) -> dict[str, list[Pair | Speed]]:
        """Of each of CHANGES the evaluations that have it, and then the measurements."""
        found: dict[str, list[Pair | Speed]] = {change: [] for change in CHANGES}
        rows: tuple[Pair | Speed, ...] = (*self.pairs, *self.speeds)
        for row in rows:
            if row.change:
                found[row.change].append(row)
        return found

    def worse(self) -> list[Pair]:
        """The pairs with a meaningfully larger error, the largest increase first."""
        found = [pair for pair in self.pairs if pair.accuracy == Accuracy("worse", True)]
        return sorted(found, key=lambda pair: -_increase(pair))

    def count(self) -> dict[str, Counter[str]]:
        """How many pairs have each change, accuracy and bits, and how many measurements each
        verdict of speed and change.
        """
        return {
            "change": Counter(pair.change for pair in self.pairs if pair.change),
            "accuracy": Counter(pair.accuracy.change for pair in self.pairs if pair.accuracy.change),
            "bits": Counter(pair.bits for pair in self.pairs if pair.bits),
            "speed": Counter(speed.verdict for speed in self.speeds if speed.verdict),
            "timed": Counter(speed.change for speed in self.speeds if speed.change),
        }


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs to be compared, the base first.

    Raises ValueError, naming the folder, for one that is no run or has no env.json, is named twice,
    or holds what cannot be read: lines of another schema or changed ones, throughput of no known
    shape. Only a torn last line is skipped, with a notice.
    """
    refuse_twice(folders, why="; a run has nothing to be compared with but another")
    with _no_collection():
        return [read(folder) for folder in folders]


def read(folder: Path) -> Run:
    """A run to be compared; raises ValueError as read_runs() says."""
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder; expected a run folder")
    if not has_records(folder):
        raise ValueError(
            f"{str(folder)!r} is no run folder: it has neither records-*.jsonl nor measurements-*.jsonl"
        )
    notices = list[str]()
    environment = read_environment(folder, notices)
    if notices:
        raise ValueError(
            f"{str(folder)!r}: {notices[0]}; without it nothing says what machine its numbers are of"
        )
    if (folder / FILE).exists():
        planned = read_configuration(folder).planned
    else:
        planned = 0
    records = latest(read_records(folder, notices))
    measurements = read_measurements(folder, notices, parse=_measurement)
    torn = _torn_lines(folder)
    for notice in notices:
        if not any(notice.startswith(f"{line} skipped:") for line in torn):
            raise ValueError(f"{str(folder)!r}: {notice.replace(' skipped:', ' cannot be read:', 1)}")
    if len(records) < planned:
        notices.append(f"incomplete: {len(records):,} of {planned:,} planned evaluations are recorded")
    return Run(folder, environment, tuple(records), tuple(notices), tuple(measurements.values()))


def compare(base: Run, new: Run, *, threshold: float = THRESHOLD) -> Comparison:
    """Joins two runs. threshold: the share by which a time must differ to be called FASTER or SLOWER.

    Raises ValueError where they have no evaluation and no throughput measurement in common, saying
    what each has.
    """
    times = [throughput_of(run) for run in (base, new)]
    used = [
        {r.device for r in run.records} | {m.device for m in some}
        for run, some in zip((base, new), times, strict=True)
    ]
    devices = _paired_devices(*used)
    alike = same_environment(base.environment, new.environment)
    pairs = tuple(
        _pair(one, other, alike) for one, other in _joined(base.records, new.records, devices, _record_key)
    )
    caught = {id(m) for run in (base, new) for m in caught_while_timed(run)}
    speeds = tuple(
        replace(
            judge_speed(one, other, threshold=threshold),
            change=_change_while_timed(one, other, caught=id(one) in caught or id(other) in caught),
        )
        for one, other in _joined(times[0], times[1], devices, _time_key)
    )
    if not any(p.base and p.new for p in pairs) and not any(s.base and s.new for s in speeds):
        raise ValueError("; ".join([f"nothing in common: {_holds(base)}", _holds(new), *_apart(base, new)]))
    return Comparison(
        base=base, new=new, pairs=pairs, speeds=speeds, same_environment=alike, threshold=threshold
    )


def same_environment(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two env.json are of one environment, in which equal calls give equal bits."""
    facts = ("env_id", "threads", "cpu_capability", "gpu", "gpu_capability")
    return bool(one.get("env_id")) and all(one.get(fact) == other.get(fact) for fact in facts)


def throughput_of(run: Run) -> list[Measurement]:
    return [m for m in run.measurements if m.kind == "throughput"]


def caught_while_timed(run: Run) -> list[Measurement]:
    """The measurements of throughput whose kernel failed while it was timed: its evaluation does
    not say so.
    """
    judged = {(*_record_key(r), r.device): r.status for r in run.records}
    return [
        m
        for m in throughput_of(run)
        if m.data["status"] not in PASSING and judged.get((*_time_key(m), m.device)) != m.data["status"]
    ]


def change_of(base: str | None, new: str | None) -> str:
    """One of CHANGES, "" for the same status, of two statuses. A failure is new where the base
    passed, was declared, unsupported or absent (None), and where the base failed in a way that
    comes later in the precedence of statuses.
    """
    if new is None:
        return "gone"
    if base == new:
        return ""
    if new not in PASSING:
        before = None if base is None or base in PASSING else STATUSES.index(base)
        return "new failure" if before is None or STATUSES.index(new) < before else "other verdict"
    if base is None:
        return "new"
    if new == "unsupported":
        return "no verdict now"
    return "mended" if new == "passed" and base not in PASSING else "other verdict"


def told(one: Pair | Speed) -> tuple[Record | Measurement, str | None, str | None]:
    """(what was run, the status before, the status now), of a change."""
    return (one.record if isinstance(one, Pair) else one.measurement), _status(one.base), _status(one.new)


def _change_while_timed(base: Measurement | None, new: Measurement | None, *, caught: bool) -> str:
    """What of a change of status no evaluation says; of a measurement that is gone, or new, that it is."""
    if base is None or new is None:
        return "gone" if new is None else change_of(None, _status(new)) if caught else "new"
    return change_of(_status(base), _status(new)) if caught else ""


def accuracy_of(base: Record, new: Record) -> Accuracy:
    """How the error changed: exactly by ratio and then by max_ulp; NaN counts as infinite. Of a
    known failure, whose error nobody promised, no change is meaningful.
    """
    if base.ratio is None or new.ratio is None:
        return Accuracy()
    before, after = _errors(base), _errors(new)
    change = "equal" if before == after else "worse" if after > before else "better"
    declared = "known_failure" in (base.status, new.status)
    return Accuracy(change, not declared and (worsened(before[0], after[0]) or worsened(after[0], before[0])))


def worsened(before: float, after: float) -> bool:
    """Whether an error of `after` times of the bound is meaningfully worse than one of `before`."""
    crossed = before <= 1 < after
    return crossed or (after > FACTOR * before and after - before > FLOOR)


def judge_speed(base: Measurement | None, new: Measurement | None, *, threshold: float = THRESHOLD) -> Speed:
    """The ratio of two median times with its interval, and the verdict.

    FASTER where the interval lies below 1 / (1 + threshold), SLOWER where it lies above 1 +
    threshold, SAME where it lies between; else AMBIGUOUS. The two limits are each other's inverse,
    so that swapping the runs swaps FASTER and SLOWER.
    """
    if base is None or new is None:
        return Speed(base=base, new=new)
    unlike = [
        f"{name} {base.data[name]} against {new.data[name]}"
        for name in (("cache", "clock") if base.device == new.device else ("cache",))
        if base.data[name] != new.data[name]
    ]
    counts = [len(times_of(m)) for m in (base, new)]
    if counts == [0, 0]:
        return Speed(base=base, new=new)
    if 0 in counts:
        side, m = ("base", base) if counts[0] == 0 else ("new", new)
        return Speed(
            base=base, new=new, verdict="not comparable", note=f"{side} has no times: {m.data['status']}"
        )
    if unlike:
        return Speed(base=base, new=new, verdict="not comparable", note="; ".join(unlike))
    ratio = median(times_of(new)) / median(times_of(base))
    if min(counts) < FEWEST:
        note = f"{min(counts)} samples; an interval needs {FEWEST}"
        return Speed(base=base, new=new, ratio=ratio, verdict="AMBIGUOUS", note=note)
    low, high = ratio_interval(times_of(base), times_of(new))
    return Speed(
        base=base,
        new=new,
        ratio=ratio,
        low=math.exp(low),
        high=math.exp(high),
        verdict=verdict_of(low, high, threshold),
    )


def verdict_of(low: float, high: float, threshold: float) -> str:
    """The verdict of an interval of the logarithm of the ratio."""
    limit = math.log1p(threshold)
    if high < -limit:
        return "FASTER"
    if low > limit:
        return "SLOWER"
    return "SAME" if -limit <= low and high <= limit else "AMBIGUOUS"


def ratio_interval(base: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile interval of log(median of new / median of base) over all bootstrap
    resamples of both.

    A resample's median is one of the n samples, and how likely each is has a closed form
    (resampled_median()). So the bootstrap distribution is known exactly, and none is drawn: no
    seed, no noise, and [-high, -low] where the runs are swapped. Efron, "Bootstrap methods: another
    look at the jackknife", Ann. Statist. 7 (1979), has the same for one median.
    """
    (before, before_chance), (after, after_chance) = _likely_medians(base), _likely_medians(new)
    difference = np.subtract.outer(after, before).ravel()
    chance = np.multiply.outer(after_chance, before_chance).ravel()
    order = np.argsort(difference)
    difference, chance = difference[order], chance[order]
    tail = (1 - LEVEL) / 2
    return float(difference[_quantile(chance, tail)]), float(difference[::-1][_quantile(chance[::-1], tail)])


@functools.cache
def resampled_median(n: int) -> Array:
    """How likely each of n ordered samples is the median of a resample of n of them; of an even n,
    either middle one with one half, which are each other's mirror images. The m-th smallest of n
    draws is at most the k-th sample with probability P(B >= m), B binomial(n, k / n).
    """
    k = np.arange(n + 1)
    p = np.clip(k / n, 1e-300, 1 - 2.0**-53)
    factorial = np.cumsum(np.concatenate([[0.0], np.log(np.arange(1, n + 1))]))
    log_choose = factorial[n] - factorial - factorial[::-1]
    drawn = np.exp(log_choose + k * np.log(p)[:, None] + (n - k) * np.log1p(-p)[:, None])
    chance: Array = np.diff(drawn[:, (n + 1) // 2 :].sum(axis=1))
    return (chance + chance[::-1]) / 2


def median(samples: Sequence[float]) -> float:
    return float(np.median(samples))


def times_of(m: Measurement) -> list[float]:
    """The samples of a throughput measurement, in seconds per call; [] where its kernel did not pass."""
    found: list[float] = m.data["samples_seconds"] if m.data["status"] in PASSING else []
    return found


def gate(comparison: Comparison, wanted: Mapping[str, float | None]) -> list[Reason]:
    """Why the gates refuse the new run; [] where they let it pass.

    wanted: gate -> limit, of GATES; that of speed is the share of time by which a kernel may be
    slower, None for the comparison's threshold.
    """
    reasons = []
    if "status" in wanted:
        for one in comparison.changes()["new failure"]:
            row, before, now = told(one)
            timed = ", while it was timed" if isinstance(one, Speed) else ""
            reasons.append(Reason("status", f"{_named(row)}: {before or 'absent'} before, {now} now{timed}"))
    if "accuracy" in wanted:
        for pair in comparison.worse():
            assert pair.base is not None
            assert pair.new is not None
            errors = f"{pair.base.ratio:.3g} times of bound before, {pair.new.ratio:.3g} now"
            reasons.append(Reason("accuracy", f"{_named(pair.new)}: {errors}"))
    if "speed" in wanted:
        limit = comparison.threshold if wanted["speed"] is None else wanted["speed"]
        for speed in comparison.speeds:
            if speed.low is not None and speed.low > 1 + limit:
                times = f"{speed.ratio:.3g} times the time, 95 % interval {speed.low:.3g} to {speed.high:.3g}"
                reasons.append(Reason("speed", f"{_named(speed.measurement)}: {times}"))
    return reasons


def parse_gates(text: str) -> dict[str, float | None]:
    """The gates of --fail-on: "status,accuracy,speed:10%", or "none". Raises ValueError naming what
    is none or stands twice.
    """
    found: dict[str, float | None] = {}
    if text.strip() == "none":
        return found
    for part in text.split(","):
        name, colon, amount = part.strip().partition(":")
        if name not in GATES or (colon and name != "speed"):
            raise ValueError(
                f"{part.strip()!r:.80} is no gate; expected none, or some of status, accuracy, speed,"
                " speed:10%, with commas"
            )
        if name in found:
            raise ValueError(
                f"{text!r:.80} names {name} twice; expected none, or some of status, accuracy, speed,"
                " speed:10%, with commas"
            )
        found[name] = parse_share(amount) if colon else None
    return found


def parse_share(text: str) -> float:
    """The share that a percentage such as "10%" names. Raises ValueError for anything else."""
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = math.nan
    if not (text.strip().endswith("%") and 0 < share <= 100):
        raise ValueError(f"{text!r:.80} names no percentage; expected such as 10%")
    return share


@contextmanager
def _no_collection() -> Iterator[None]:
    """Reading makes many objects and no cycle; looking for cycles meanwhile takes a quarter of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _torn_lines(folder: Path) -> set[str]:
    """FILE:NUMBER of each last line that does not end and is no JSON document, as a killed process
    leaves it.
    """
    found = set()
    for path in (*folder.glob("records-*.jsonl"), *folder.glob("measurements-*.jsonl")):
        content = path.read_bytes() if path.is_file() else b""
        if content and not content.endswith(b"\n") and not _is_json(content.rpartition(b"\n")[2]):
            found.add(f"{path.name}:{content.count(10) + 1}")
    return found


def _is_json(text: bytes) -> bool:
    try:
        strict_json.parse(text)
    except ValueError:
        return False
    return True


def _measurement(data: Any) -> Measurement:
    """The measurement of a JSON object. Raises ValueError also for one of throughput that is not as
    THROUGHPUT says.
    """
    m = Measurement.from_dict(data)
    if m.kind == "throughput":
        what = f"throughput of {m.op} {m.kernel} {m.dtype} on {m.case}: data"
        check(m.data, THROUGHPUT, what)
        if (count := len(m.data["samples_seconds"])) > MOST:
            raise ValueError(f"{what}.samples_seconds has {count:,} samples; expected at most {MOST:,}")
    return m


def _paired_devices(base: set[str], new: set[str]) -> dict[str, str]:
    """device of new -> that of base beside which it stands."""
    pairs = {device: device for device in base & new}
    if len(base - new) == len(new - base) == 1:
        pairs[next(iter(new - base))] = next(iter(base - new))
    return pairs


def _record_key(r: Record) -> tuple[str, ...]:
    return (r.op, r.kernel, r.case, r.dtype, r.direction)


def _time_key(m: Measurement) -> tuple[str, ...]:
    return (m.op, m.kernel, m.case, m.dtype, m.data["direction"])


def _joined(
    base: Iterable[T], new: Iterable[T], devices: Mapping[str, str], key: Callable[[T], tuple[str, ...]]
) -> Iterator[tuple[T | None, T | None]]:
    """(of base, of new) of each key, those of the new run first, in its order."""
    before: dict[tuple[str, ...], T] = {}
    for one in base:
        before[*key(one), one.device] = one
    for other in new:
        yield before.pop((*key(other), devices.get(other.device, "")), None), other
    for left in before.values():
        yield left, None


def _pair(base: Record | None, new: Record | None, alike: bool) -> Pair:
    if base is None or new is None:
        return Pair(base=base, new=new, change=change_of(_status(base), _status(new)))
    bits = ""
    if base.digest and new.digest:
        comparable = alike and base.env_id == new.env_id and base.device == new.device
        bits = "not comparable" if not comparable else "same" if base.digest == new.digest else "other"
    return Pair(
        base=base,
        new=new,
        change=change_of(base.status, new.status),
        accuracy=accuracy_of(base, new),
        bits=bits,
    )


def _errors(record: Record) -> tuple[float, float]:
    return _known(record.ratio), _known(record.max_ulp)


def _known(error: float | None) -> float:
    return math.inf if error is None or math.isnan(error) else error


def _increase(pair: Pair) -> float:
    assert pair.base is not None
    assert pair.new is not None
    before, after = _errors(pair.base)[0], _errors(pair.new)[0]
    return math.inf if math.isinf(after) else after - before


def _likely_medians(samples: Sequence[float]) -> tuple[Array, Array]:
    """(logarithms of the samples that a resample's median may be, how likely each is); those never
    seen are left out.
    """
    chance = resampled_median(len(samples))
    seen = chance > 1e-9
    return np.log(np.sort(np.asarray(samples, dtype=np.float64)))[seen], chance[seen]


def _quantile(chance: Array, tail: float) -> int:
    """The first position up to which the chances add up to the tail."""
    return min(int(np.searchsorted(np.cumsum(chance), tail)), len(chance) - 1)


def _status(row: Record | Measurement | None) -> str | None:
    return row.status if isinstance(row, Record) else None if row is None else str(row.data["status"])


def _named(row: Record | Measurement) -> str:
    return f"{row.kernel} {row.dtype} {row.device} {row.case}"


def _apart(base: Run, new: Run) -> list[str]:
    """What keeps the runs apart, where it may surprise: the same kernels on other cases, or one
    file in two folders.
    """
    kernels = [{_kernel_key(row) for row in _rows(run)} for run in (base, new)]
    if both := kernels[0] & kernels[1]:
        kernel = min(both)
        one, other = (next(row for row in _rows(run) if _kernel_key(row) == kernel) for run in (base, new))
        if one.case != other.case:
            return [f"the cases differ, such as {one.case} and {other.case}"]
        if _direction(one) != _direction(other):
            return [f"the directions differ: {_direction(one)} and {_direction(other)}"]
        return []
    before, after = (
        {name.rpartition("/")[2]: name for _, name, _ in sorted(side) if ".py:" in name} for side in kernels
    )
    return [
        f"a kernel is named as --kernel named it, so {before[end]} and {after[end]} are two kernels; to"
        " compare versions, run them under one path, or name both in one run and see its report"
        for end in sorted(before.keys() & after.keys())
        if before[end] != after[end]
    ][:1]


def _rows(run: Run) -> list[Record | Measurement]:
    return [*run.records, *throughput_of(run)]


def _kernel_key(row: Record | Measurement) -> tuple[str, str, str]:
    return (row.op, row.kernel, row.dtype)


def _direction(row: Record | Measurement) -> str:
    return row.direction if isinstance(row, Record) else str(row.data["direction"])


def _holds(run: Run) -> str:
    """What a run has, in some words."""
    kernels = sorted(
        {f"{r.op} {r.kernel}" for r in run.records} | {f"{m.op} {m.kernel}" for m in run.measurements}
    )
    some = ", ".join(kernels[:4]) + (f" and {len(kernels) - 4:,} more" if len(kernels) > 4 else "")
    dtypes = ", ".join(sorted({r.dtype for r in run.records} | {m.dtype for m in run.measurements})[:8])
    counted = f"{len(run.records):,} evaluations and {len(throughput_of(run)):,} throughput measurements"
    return f"{str(run.folder)!r} has {counted}{f' of {some} in {dtypes}' if kernels else ''}"
