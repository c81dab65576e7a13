"""Which kernel to use: at each input the fastest of those that nothing on the page speaks against.

A kernel that passes where it was timed may fail elsewhere, and may say so itself: naive overflows
by its own declaration. What speaks against a kernel is in its records, and only there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from suite.ops import NAMES, get_op
from suite.records.record import SILENT, Measurement, Record
from suite.report.compare import median, ratio_interval, times_of
from suite.timing.statistics import FEWEST, Interval, median_interval


class Group(NamedTuple):
    """One input: what is measured on it is compared."""

    op: str
    direction: str
    dtype: str
    device: str
    case: str


class Subject(NamedTuple):
    """Of what a kernel can be recommended. device: its kind, such as "cuda"."""

    op: str
    kernel: str
    dtype: str
    direction: str
    device: str

    @classmethod
    def of(cls, m: Measurement) -> Subject:
        return cls(m.op, m.kernel, m.dtype, m.data["direction"], m.device.partition(":")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a page's records say of a subject. evaluations: of what it supports; passed: of them,
    without known failures. families: of their inputs. declares: what differs from best practice; ""
    for nothing. versions: of the kernel's source that were judged, in any format and direction.
    """

    evaluations: int = 0
    passed: int = 0
    families: frozenset[str] = frozenset()
    declares: str = ""
    versions: int = 1

    @property
    def against(self) -> str:
        """What speaks against it, "" for nothing: an evaluation that it did not pass, its own word
        that it fails on inputs that the page may not have, or verdicts that may be of another
        version than the times. A wider bound that it declares does not, and is shown beside it.
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
    found: dict[tuple[str, str], set[str]] = {}
    for r in records:
        if r.kernel_version:
            found.setdefault((r.op, r.kernel), set()).add(r.kernel_version)
    return {key: frozenset(versions) for key, versions in found.items()}


def standings(records: Iterable[Record], measurements: Iterable[Measurement] = ()) -> dict[Subject, Standing]:
    """The standing of each subject. A pass through the backward begins with the forward, so it
    answers for both.

    measurements: of throughput; what failed while it was timed has not passed, whatever its record says.
    """
    records = list(records)
    versions = versions_of(records)
    failed: dict[Subject, set[str]] = {}
    for m in measurements:
        if m.data["status"] not in SILENT:
            failed.setdefault(Subject.of(m), set()).add(m.case)
    groups: dict[Subject, list[Record]] = {}
    for r in records:
        if r.status != "unsupported":
            for direction in ("forward", "backward") if r.direction == "forward" else ("backward",):
                groups.setdefault(
                    Subject(r.op, r.kernel, r.dtype, direction, r.device.partition(":")[0]), []
                ).append(r)
    return {
        subject: _standing(group, failed.get(subject, set()), max(len(versions.get(subject[:2], ())), 1))
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
    """The answer for one input. use: the fastest that nothing speaks against, None where there is
    none. as_fast: those beside it whose intervals overlap with its own. unsafe: those that are
    faster than it, fastest first, each with what speaks against it; all, where there is none to
    use. torch: the fastest of torch's own.
    """

    use: Measurement | None
    as_fast: tuple[Measurement, ...]
    unsafe: tuple[tuple[Measurement, str], ...]
    torch: Measurement | None


def advise(ranked: Sequence[Measurement], standing: Mapping[Subject, Standing]) -> Advice:
    """ranked: the measurements of one input that have times, fastest first: ranked()."""
    against = [standing.get(Subject.of(m), UNKNOWN).against for m in ranked]
    first = next((i for i, reason in enumerate(against) if not reason), len(ranked))
    use = ranked[first] if first < len(ranked) else None
    return Advice(
        use=use,
        as_fast=tuple(
            m
            for m, reason in zip(ranked[first + 1 :], against[first + 1 :], strict=True)
            if use is not None and not reason and _interval(m).low <= _interval(use).high
        ),
        unsafe=tuple(zip(ranked[:first], against[:first], strict=True)),
        torch=next((m for m in ranked if m.kernel in torch_kernels(m.op)), None),
    )


def torch_kernels(op: str) -> tuple[str, ...]:
    """torch's own kernels of an op; the fastest of them is what others are measured by."""
    own = get_op(op).torch if op in NAMES else None
    return own.names if own is not None else ()


def grouped(measurements: Iterable[Measurement]) -> dict[Group, list[Measurement]]:
    """The measurements of throughput by input, in order."""
    groups: dict[Group, list[Measurement]] = {}
    for m in measurements:
        groups.setdefault(Group(m.op, m.data["direction"], m.dtype, m.device, m.case), []).append(m)
    return groups


def ranked(group: Iterable[Measurement]) -> list[Measurement]:
    """Those that have times, fastest first."""
    timed = (m for m in group if m.data["status"] == "passed" and times_of(m))
    return sorted(timed, key=lambda m: (median(times_of(m)), m.kernel))


def _interval(m: Measurement) -> Interval:
    samples = times_of(m)
    return (
        median_interval(samples)
        if len(samples) >= FEWEST
        else Interval(median(samples), min(samples), max(samples))
    )


def times_as_fast(one: Measurement, other: Measurement) -> tuple[float, float, float]:
    """How many times as fast `one` is as `other`, with the ends of the 95 % bootstrap interval."""
    low, high = ratio_interval(times_of(one), times_of(other))
    return median(times_of(other)) / median(times_of(one)), math.exp(low), math.exp(high)
