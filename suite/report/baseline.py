"""The ratchet of accuracy: a file with the smallest error, over its bound, that each evaluation ever had.

A JSON document with one entry a line, made to be committed: {"op", "kernel", "case", "dtype",
"ratio"}. `case` is an id, or a pattern with * or ? that covers several cases: a person sets such a
ceiling, and only a person changes it, since a run may have seen few of its cases.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from suite.records import strict_json
from suite.records.record import PASSING, Measurement, Record
from suite.records.schema import check
from suite.records.store import FULL, Run
from suite.report import FullDiskError
from suite.report.compare import Reason, caught_while_timed, worsened
from suite.report.shapes import TEXT, fields, many

SCHEMA = 1
Key = tuple[str, str, str, str]
Baseline = dict[Key, float]
"""(op, kernel, case, dtype) -> ratio."""

FIELDS = ("op", "kernel", "case", "dtype")
ENTRY = fields(dict.fromkeys(FIELDS, TEXT), ratio={"type": "number", "minimum": 0, "maximum": 1e300})


def read_baseline(path: Path) -> Baseline:
    """The baseline in a file. Raises ValueError, naming it, where it is missing, unreadable, or has
    an entry twice.
    """
    if not os.path.exists(path):  # noqa: PTH110, which raises where a folder above cannot be entered
        raise ValueError(f"baseline {str(path)!r} does not exist; --update-baseline makes it of the new runs")
    try:
        data = strict_json.read(path)
        if not isinstance(data, dict):
            raise ValueError("it must be a JSON object")
        if data.get("schema") != SCHEMA:
            raise ValueError(
                f"schema={data.get('schema')!r:.80} is not one that this version reads ({SCHEMA})"
            )
        check(data.get("entries"), many(ENTRY), "entries")
        found: Baseline = {}
        for entry in data["entries"]:
            key = (entry["op"], entry["kernel"], entry["case"], entry["dtype"])
            if key in found:
                raise ValueError(f"{' '.join(key)!r:.200} has two entries")
            found[key] = float(entry["ratio"])
    except (ValueError, OSError) as error:
        raise ValueError(f"baseline {str(path)!r} cannot be read: {str(error).splitlines()[0]}") from None
    return found


def broken_by(baseline: Mapping[Key, float], run: Run) -> list[Reason]:
    """Each evaluation that has an entry and fails, also while it was timed, or is meaningfully
    worse; an id's entry counts before patterns.
    """
    patterns, found = _patterns(baseline), list[Reason]()
    for record in run.records:
        entry = _entry(baseline, patterns, record)
        if entry is None or record.status in ("unsupported", "known_failure"):
            continue
        best = baseline[entry]
        ratio = (
            math.inf
            if record.judgement.ratio is None or math.isnan(record.judgement.ratio)
            else record.judgement.ratio
        )
        if worsened(best, ratio):
            now = record.status if record.judgement.ratio is None else f"{ratio:.3g}"
            found.append(_reason(record, f"at most {best:.3g} × bound, {now} now"))
        elif record.status not in PASSING:
            found.append(_reason(record, f"{record.status} now"))
    timed = [m for m in caught_while_timed(run) if _entry(baseline, patterns, m) is not None]
    return found + [_reason(m, f"{m.data['status']} now, while it was timed") for m in timed]


def covers(baseline: Mapping[Key, float], records: Iterable[Record]) -> bool:
    """Whether the baseline has an entry for any of the records."""
    patterns = _patterns(baseline)
    return any(_entry(baseline, patterns, record) is not None for record in records)


def tightened(baseline: Mapping[Key, float], records: Iterable[Record]) -> Baseline:
    """The baseline with the smaller ratios of those records that passed, and with those that
    nothing in it covers.

    No entry's ratio grows, and none is dropped. Of several records of one entry, as of two devices,
    the worst counts.
    """
    patterns, worst = _patterns(baseline), dict[Key, float]()
    for record in records:
        entry = _entry(baseline, patterns, record) or (record.op, record.kernel, record.case, record.dtype)
        if (
            record.status == "passed"
            and record.judgement.ratio is not None
            and math.isfinite(record.judgement.ratio)
            and entry not in patterns
        ):
            worst[entry] = max(worst.get(entry, 0.0), record.judgement.ratio)
    return {
        **baseline,
        **{entry: min(ratio, baseline.get(entry, math.inf)) for entry, ratio in worst.items()},
    }


def write_baseline(path: Path, baseline: Mapping[Key, float]) -> None:
    """Writes the file at once or not at all; of a symbolic link the file that it names.

    Raises FullDiskError where a disk is full, any other ValueError where it cannot be written.
    """
    entries = [
        json.dumps(dict(zip((*FIELDS, "ratio"), (*key, ratio), strict=True)))
        for key, ratio in sorted(baseline.items())
    ]
    text = f'{{"schema": {SCHEMA}, "entries": [\n' + ",\n".join(entries) + "\n]}\n"
    real = Path(os.path.realpath(path))
    try:
        descriptor, temporary = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(real)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        kind = FullDiskError if error.errno in FULL else ValueError
        raise kind(f"baseline {str(path)!r} cannot be written: {error.strerror}") from None


def _reason(row: Record | Measurement, text: str) -> Reason:
    return Reason("baseline", f"{row.kernel} {row.dtype} {row.case}: {text}")


def _patterns(baseline: Mapping[Key, float]) -> list[Key]:
    """The entries that are patterns, the tightest first."""
    return sorted((key for key in baseline if "*" in key[2] or "?" in key[2]), key=lambda key: baseline[key])


def _entry(baseline: Mapping[Key, Any], patterns: Iterable[Key], row: Record | Measurement) -> Key | None:
    key = (row.op, row.kernel, row.case, row.dtype)
    if key in baseline:
        return key
    for op, kernel, case, dtype in patterns:
        if (op, kernel, dtype) == (row.op, row.kernel, row.dtype) and fnmatchcase(row.case, case):
            return op, kernel, case, dtype
    return None
