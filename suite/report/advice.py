"""Which kernel to use: at each input the fastest that nothing on the page speaks against.

A kernel that passes where it was timed may fail elsewhere, and may declare that it does: naive
overflows. What speaks against a kernel is in its records, and only there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from suite.ops import NAMES, get_op
from suite.records.record import SILENT, Measurement, Record
from suite.report.speed import median, ratio_interval, times_of
from suite.report.tables import by
from suite.timing.statistics import FEWEST, Interval, median_interval


class Group(NamedTuple):
    """One input: what is measured on it is compared."""

    op: str
    direction: str
    dtype: str
    device: str
    case: str


class Subject(NamedTuple):
    """Of what a kernel can be recommended."""

    op: str
    kernel: str
    dtype: str
    direction: str
    device: str
    """Its kind, such as "cuda"."""

    @classmethod
    def of(cls, m: Measurement) -> Subject:
        return cls(m.op, m.kernel, m.dtype, m.data["direction"], m.device.partition(":")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a page's records say of a subject."""

    evaluations: int = 0
    """Of what it supports."""
    passed: int = 0
    """Of them, without known failures."""
    families: frozenset[str] = frozenset()
    """Of their inputs."""
    declares: str = ""
    """What differs from best practice; "" for nothing."""
    versions: int = 1
    """Of the kernel's source that were judged, in any format and direction."""

    @property
    def against(self) -> str:
        """What speaks against it, "" for nothing: an evaluation that it did not pass, its own
        declaration that it fails on inputs that the page may lack, or verdicts that may be of another
        version than the times. A wider declared bound does not: it is shown beside the kernel.
        """
        if not self.evaluations:
            return "no verdict on this page"
        unsafe = "shift=none" in self.declares or "domain" in self.declares
        reasons = [f"declares {self.declares}"] if unsafe else []
        if self.passed < self.evaluations:
            reasons.append(f"passes {self.passed:,} of {self.evaluations:,}")
        if self.versions > 1:
            reasons.append(f"judged in {self.versions:,} versions")
        return "; ".join(reasons)


UNKNOWN = Standing()


def versions_of(records: Iterable[Record]) -> dict[tuple[str, str], frozenset[str]]:
    """(op, kernel) -> the versions of its source that the records name."""
    kernels = by((r for r in records if r.kernel_version), lambda r: (r.op, r.kernel))
    return {key: frozenset(r.kernel_version for r in group) for key, group in kernels.items()}


def standings(records: Iterable[Record], measurements: Iterable[Measurement] = ()) -> dict[Subject, Standing]:
    """The standing of each subject. A backward pass begins with the forward, so a forward record
    answers for both.

    measurements: of throughput; what failed while it was timed has not passed, whatever its record says.
    """
    records = list(records)
    versions = versions_of(records)
    failed = by((m for m in measurements if m.data["status"] not in SILENT), Subject.of)
    groups: dict[Subject, list[Record]] = {}
    for r in records:
        if r.status != "unsupported":
            device = r.device.partition(":")[0]
            for direction in ("forward", "backward") if r.direction == "forward" else ("backward",):
                groups.setdefault(Subject(r.op, r.kernel, r.dtype, direction, device), []).append(r)
    return {
        subject: _standing(
            group, {m.case for m in failed.get(subject, ())}, max(len(versions.get(subject[:2], ())), 1)
        )
        for subject, group in groups.items()
    }


def _standing(group: Sequence[Record], failed: Set[str], versions: int) -> Standing:
    """failed: the cases in which it failed while it was timed."""
    declared = next((r.numerics for r in group if r.numerics != "best practice"), "")
    return Standing(
        evaluations=len(group),
        passed=sum(r.status == "passed" and r.case not in failed for r in group),
        families=frozenset(r.family for r in group),
        declares=declared.removeprefix("best practice, ").replace("domain", "a domain"),
        versions=versions,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The answer for one input."""

    use: Measurement | None
    """The fastest that nothing speaks against; None where there is none."""
    as_fast: tuple[Measurement, ...]
    """Safe ones whose intervals overlap with that of `use`."""
    unsafe: tuple[tuple[Measurement, str], ...]
    """Those faster than `use` (all, without one), fastest first, each with what speaks against it."""
    torch: Measurement | None
    """The fastest of torch's own."""


def advise(ranked: Sequence[Measurement], standing: Mapping[Subject, Standing]) -> Advice:
    """ranked: the measurements of one input that have times, fastest first: ranked()."""
    judged = [(m, standing.get(Subject.of(m), UNKNOWN).against) for m in ranked]
    first = next((i for i, (_, reason) in enumerate(judged) if not reason), len(judged))
    use = judged[first][0] if first < len(judged) else None
    return Advice(
        use=use,
        as_fast=tuple(
            m
            for m, reason in judged[first + 1 :]
            if use is not None and not reason and _interval(m).low <= _interval(use).high
        ),
        unsafe=tuple(judged[:first]),
        torch=next((m for m in ranked if m.kernel in torch_kernels(m.op)), None),
    )


def torch_kernels(op: str) -> tuple[str, ...]:
    """torch's own kernels of an op; the fastest of them is what others are measured by."""
    own = get_op(op).torch if op in NAMES else None
    return own.names if own is not None else ()


def grouped(measurements: Iterable[Measurement]) -> dict[Group, list[Measurement]]:
    """The measurements of throughput by input, in order."""
    return by(measurements, lambda m: Group(m.op, m.data["direction"], m.dtype, m.device, m.case))


def ranked(group: Iterable[Measurement]) -> list[Measurement]:
    """Those that have times, fastest first."""
    timed = (m for m in group if m.data["status"] == "passed" and times_of(m))
    return sorted(timed, key=lambda m: (median(times_of(m)), m.kernel))


def _interval(m: Measurement) -> Interval:
    samples = times_of(m)
    if len(samples) >= FEWEST:
        return median_interval(samples)
    return Interval(median(samples), min(samples), max(samples))


def times_as_fast(one: Measurement, other: Measurement) -> tuple[float, float, float]:
    """How many times as fast `one` is as `other`, with the ends of the 95 % bootstrap interval."""
    low, high = ratio_interval(times_of(one), times_of(other))
    return median(times_of(other)) / median(times_of(one)), math.exp(low), math.exp(high)
