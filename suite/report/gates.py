"""The gates of --fail-on: why a new run is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

from suite.records.record import Measurement, Record
from suite.report.compare import Comparison, Reason, statuses_of
from suite.report.speed import Speed

GATES = ("status", "accuracy", "speed")
EXPECTED = "expected none, or some of status, accuracy, speed, speed:10%, with commas"


def gate(comparison: Comparison, wanted: Mapping[str, float | None]) -> list[Reason]:
    """Why the gates refuse the new run; [] where they let it pass.

    wanted: gate -> limit, of GATES; that of speed is the share of time by which a kernel may be
    slower, None for the comparison's threshold.
    """
    reasons = []
    if "status" in wanted:
        for one in comparison.changes()["new failure"]:
            row, before, now = statuses_of(one)
            timed = ", while it was timed" if isinstance(one, Speed) else ""
            reasons.append(Reason("status", f"{_named(row)}: {before or 'absent'} before, {now} now{timed}"))
    if "accuracy" in wanted:
        for base, new in comparison.worse():
            errors = f"{base.judgement.ratio:.3g} × bound before, {new.judgement.ratio:.3g} × bound now"
            reasons.append(Reason("accuracy", f"{_named(new)}: {errors}"))
    if "speed" in wanted:
        limit = comparison.threshold if wanted["speed"] is None else wanted["speed"]
        for speed in comparison.speeds:
            if speed.low is not None and speed.low > 1 + limit:
                times = f"{speed.ratio:.3g} times the time, 95 % interval {speed.low:.3g} to {speed.high:.3g}"
                reasons.append(Reason("speed", f"{_named(speed.measurement)}: {times}"))
    return reasons


def parse_gates(text: str) -> dict[str, float | None]:
    """The gates of --fail-on: "status,accuracy,speed:10%", or "none". Raises ValueError for an unknown
    gate and for one that stands twice.
    """
    found: dict[str, float | None] = {}
    if text.strip() == "none":
        return found
    for part in text.split(","):
        name, colon, amount = part.strip().partition(":")
        if name not in GATES or (colon and name != "speed"):
            raise ValueError(f"{part.strip()!r:.80} is no gate; {EXPECTED}")
        if name in found:
            raise ValueError(f"{text!r:.80} names {name} twice; {EXPECTED}")
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


def _named(row: Record | Measurement) -> str:
    return f"{row.kernel} {row.dtype} {row.device} {row.case}"
