"""Two runs as one comparison: verdicts that changed, accuracy, bits and speed. Data only.

What is joined has the same op, kernel, case, dtype and direction. Devices are joined too where both
runs have them; where each run has one that the other lacks ("cpu" here, "cuda" there), those two
stand side by side: machines differ by design. docs/compare.md says why the rules are as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from suite.records.record import PASSING, STATUSES, Measurement, Record
from suite.records.store import Run
from suite.report.speed import THRESHOLD, Speed, judge_speed
from suite.report.words import some

T = TypeVar("T", bound=Record | Measurement)

FACTOR = 2.0
"""A change of accuracy is meaningful if the error doubles or halves, which is one bit, ..."""
FLOOR = 2.0**-4
"""... and moves by more than this share of the bound: four times what the reference may be off.
Crossing the bound always is.
"""
CHANGES = ("new failure", "no verdict now", "mended", "other verdict", "new", "gone")
ACCURACY = ("equal", "better", "worse")
BITS = ("same", "other", "not comparable")


class Accuracy(NamedTuple):
    """How an error changed."""

    change: str = ""
    """One of ACCURACY, exactly; "" where one side has no error."""
    meaningful: bool = False
    """The change is one that gates speak of."""


NO_ACCURACY = Accuracy()


class Reason(NamedTuple):
    """Why a new run is refused."""

    gate: str
    """One of GATES, or "baseline"."""
    text: str

    def __str__(self) -> str:
        return f"{self.gate}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One evaluation in both runs, or in one of them."""

    base: Record | None
    new: Record | None
    change: str = ""
    """One of CHANGES, "" for the same status."""
    accuracy: Accuracy = NO_ACCURACY
    bits: str = ""
    """One of BITS, "" where a side has no digest."""

    @property
    def record(self) -> Record:
        found = self.new or self.base
        assert found is not None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The run `new` beside the run `base`."""

    base: Run
    new: Run
    pairs: tuple[Pair, ...]
    speeds: tuple[Speed, ...]
    same_environment: bool
    """Whether bits can be compared."""
    threshold: float = THRESHOLD
    reasons: tuple[Reason, ...] = ()
    """Why gates refuse `new`."""

    def changes(self) -> dict[str, list[Pair | Speed]]:
        """Of each of CHANGES the evaluations that have it, and then the measurements."""
        found: dict[str, list[Pair | Speed]] = {change: [] for change in CHANGES}
        rows: tuple[Pair | Speed, ...] = (*self.pairs, *self.speeds)
        for row in rows:
            if row.change:
                found[row.change].append(row)
        return found

    def both(self) -> list[Pair]:
        """The pairs with an evaluation on both sides."""
        return [pair for pair in self.pairs if pair.base is not None and pair.new is not None]

    def worse(self) -> list[tuple[Record, Record]]:
        """(base, new) of the pairs with a meaningfully larger error, the largest increase first."""
        return sorted(self._moved("worse"), key=lambda pair: -_increase(*pair))

    def better(self) -> list[tuple[Record, Record]]:
        """(base, new) of the pairs with a meaningfully smaller error."""
        return self._moved("better")

    def _moved(self, change: str) -> list[tuple[Record, Record]]:
        moved = [pair for pair in self.pairs if pair.accuracy == (change, True)]
        return [(pair.base, pair.new) for pair in moved if pair.base is not None and pair.new is not None]

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


def compare(base: Run, new: Run, *, threshold: float = THRESHOLD) -> Comparison:
    """Joins two runs. threshold: the share by which a time must differ to be called FASTER or SLOWER.

    Raises ValueError where they have no evaluation and no throughput measurement in common, saying
    what each has.
    """
    times = [throughput_of(run) for run in (base, new)]
    used = [{row.device for row in rows_of(run)} for run in (base, new)]
    devices = _paired_devices(*used)
    alike = same_environment(base.environment, new.environment)
    pairs = tuple(_pair(one, other, alike) for one, other in _joined(base.records, new.records, devices))
    caught = {id(m) for run in (base, new) for m in caught_while_timed(run)}
    speeds = tuple(
        replace(
            judge_speed(one, other, threshold=threshold),
            change=_change_while_timed(one, other, caught=id(one) in caught or id(other) in caught),
        )
        for one, other in _joined(times[0], times[1], devices)
    )
    found = Comparison(
        base=base, new=new, pairs=pairs, speeds=speeds, same_environment=alike, threshold=threshold
    )
    if not found.both() and not any(s.base and s.new for s in speeds):
        raise ValueError("; ".join([f"nothing in common: {_holds(base)}", _holds(new), *_apart(base, new)]))
    return found


def same_environment(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two env.json are of one environment, in which equal calls give equal bits."""
    facts = ("env_id", "threads", "cpu_capability", "gpu", "gpu_capability")
    return bool(one.get("env_id")) and all(one.get(fact) == other.get(fact) for fact in facts)


def throughput_of(run: Run) -> list[Measurement]:
    return [m for m in run.measurements if m.kind == "throughput"]


def rows_of(run: Run) -> list[Record | Measurement]:
    """The evaluations and the measurements of throughput."""
    return [*run.records, *throughput_of(run)]


def caught_while_timed(run: Run) -> list[Measurement]:
    """The measurements of throughput whose kernel failed while it was timed: its evaluation does
    not say so.
    """
    judged = {(*_key(r), r.device): r.status for r in run.records}
    return [
        m
        for m in throughput_of(run)
        if m.data["status"] not in PASSING and judged.get((*_key(m), m.device)) != m.data["status"]
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


def statuses_of(one: Pair | Speed) -> tuple[Record | Measurement, str | None, str | None]:
    """(what was run, the status before, the status now)."""
    return (one.record if isinstance(one, Pair) else one.measurement), _status(one.base), _status(one.new)


def _change_while_timed(base: Measurement | None, new: Measurement | None, *, caught: bool) -> str:
    """The change that no evaluation has; that a measurement is new or gone."""
    if new is None:
        return "gone"
    if base is None:
        return change_of(None, _status(new)) if caught else "new"
    return change_of(_status(base), _status(new)) if caught else ""


def accuracy_of(base: Record, new: Record) -> Accuracy:
    """How the error changed: exactly by ratio and then by max_ulp; NaN counts as infinite. Of a
    known failure, whose error nobody promised, no change is meaningful.
    """
    if base.judgement.ratio is None or new.judgement.ratio is None:
        return NO_ACCURACY
    before, after = _errors(base), _errors(new)
    change = "equal" if before == after else "worse" if after > before else "better"
    declared = "known_failure" in (base.status, new.status)
    return Accuracy(change, not declared and (worsened(before[0], after[0]) or worsened(after[0], before[0])))


def worsened(before: float, after: float) -> bool:
    """Whether an error of `after` times the bound is meaningfully worse than one of `before`."""
    crossed = before <= 1 < after
    return crossed or (after > FACTOR * before and after - before > FLOOR)


def _paired_devices(base: set[str], new: set[str]) -> dict[str, str]:
    """device of new -> that of base beside which it stands."""
    pairs = {device: device for device in base & new}
    if len(base - new) == len(new - base) == 1:
        pairs[next(iter(new - base))] = next(iter(base - new))
    return pairs


def _key(row: Record | Measurement) -> tuple[str, ...]:
    return (row.op, row.kernel, row.case, row.dtype, _direction(row))


def _joined(
    base: Iterable[T], new: Iterable[T], devices: Mapping[str, str]
) -> Iterator[tuple[T | None, T | None]]:
    """(of base, of new) of each key, those of the new run first, in its order."""
    before: dict[tuple[str, ...], T] = {(*_key(one), one.device): one for one in base}
    for other in new:
        yield before.pop((*_key(other), devices.get(other.device, "")), None), other
    for left in before.values():
        yield left, None


def _pair(base: Record | None, new: Record | None, alike: bool) -> Pair:
    change = change_of(_status(base), _status(new))
    if base is None or new is None:
        return Pair(base=base, new=new, change=change)
    bits = ""
    if base.judgement.digest and new.judgement.digest:
        comparable = alike and base.env_id == new.env_id and base.device == new.device
        bits = (
            "not comparable"
            if not comparable
            else "same"
            if base.judgement.digest == new.judgement.digest
            else "other"
        )
    return Pair(base=base, new=new, change=change, accuracy=accuracy_of(base, new), bits=bits)


def _errors(record: Record) -> tuple[float, float]:
    return _known(record.judgement.ratio), _known(record.judgement.max_ulp)


def _known(error: float | None) -> float:
    return math.inf if error is None or math.isnan(error) else error


def _increase(base: Record, new: Record) -> float:
    before, after = _known(base.judgement.ratio), _known(new.judgement.ratio)
    return math.inf if math.isinf(after) else after - before


def _status(row: Record | Measurement | None) -> str | None:
    return row.status if isinstance(row, Record) else None if row is None else str(row.data["status"])


def _direction(row: Record | Measurement) -> str:
    return row.direction if isinstance(row, Record) else str(row.data["direction"])


# Why two runs have nothing in common.


def _apart(base: Run, new: Run) -> list[str]:
    """What keeps the runs apart, where it may surprise: the same kernels on other cases, or one
    file in two folders.
    """
    first: list[dict[tuple[str, ...], Record | Measurement]] = [{}, {}]
    for found, run in zip(first, (base, new), strict=True):
        for row in rows_of(run):
            found.setdefault((row.op, row.kernel, row.dtype), row)
    if both := first[0].keys() & first[1].keys():
        one, other = (found[min(both)] for found in first)
        if one.case != other.case:
            return [f"the cases differ, such as {one.case} and {other.case}"]
        if _direction(one) != _direction(other):
            return [f"the directions differ: {_direction(one)} and {_direction(other)}"]
        return []
    before, after = (
        {name.rpartition("/")[2]: name for _, name, _ in sorted(found) if ".py:" in name} for found in first
    )
    return [
        f"a kernel is named as --kernel named it, so {before[end]} and {after[end]} are two kernels; to"
        " compare versions, run them under one path, or name both in one run and see its report"
        for end in sorted(before.keys() & after.keys())
        if before[end] != after[end]
    ][:1]


def _holds(run: Run) -> str:
    """What a run has, in some words."""
    rows: Sequence[Record | Measurement] = (*run.records, *run.measurements)
    kernels = sorted({f"{row.op} {row.kernel}" for row in rows})
    dtypes = ", ".join(sorted({row.dtype for row in rows})[:8])
    counted = f"{len(run.records):,} evaluations and {len(throughput_of(run)):,} throughput measurements"
    return f"{str(run.folder)!r} has {counted}{f' of {some(kernels)} in {dtypes}' if kernels else ''}"
