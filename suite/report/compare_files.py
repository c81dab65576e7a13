"""The comparison as files: one row for each evaluation and each measurement of time, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from suite.records.record import Measurement, Record, plain
from suite.records.store import is_own_file
from suite.report.compare import Comparison, Pair
from suite.report.compare_words import reasons_of, run_names
from suite.report.csv import FORMULA
from suite.report.privacy import private
from suite.report.speed import Speed, median, times_of
from suite.report.visible import visible

SCHEMA = 1
COLUMNS = (
    "new_run", "what", "op", "kernel", "case", "dtype", "direction", "base_device", "new_device",
    "base_status", "new_status", "change", "base_ratio", "new_ratio", "base_max_ulp", "new_max_ulp",
    "accuracy", "meaningful",
    "bits", "base_median_seconds", "new_median_seconds", "time_ratio", "time_ratio_low", "time_ratio_high",
    "speed", "note",
)  # fmt: skip


def check_targets(targets: Mapping[str, Path], folders: Sequence[Path]) -> None:
    """targets: the files that options name, to be written. Raises ValueError where one belongs to a
    run in the folders, or two are one file.
    """
    for option, path in targets.items():
        if any(is_own_file(path, folder) for folder in folders):
            raise ValueError(
                f"{option} {str(path)!r} belongs to a run that is compared: writing there would spoil it"
            )
    for (other, there), (option, path) in combinations(targets.items(), 2):
        linked = path.exists() and there.exists() and path.samefile(there)
        if linked or os.path.realpath(path) == os.path.realpath(there):
            raise ValueError(f"{other} {str(there)!r} and {option} {str(path)!r} are one file; name two")


def rows(comparisons: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    """The rows: what was run, in which new run, and what of COLUMNS is known of both sides. Numbers
    stay numbers.
    """
    names = run_names([comparisons[0].base, *(one.new for one in comparisons)])
    for name, comparison in zip(names[1:], comparisons, strict=True):
        for pair in comparison.pairs:
            yield dict.fromkeys(COLUMNS) | {"new_run": name, "what": "evaluation"} | _of_pair(pair)
        for speed in comparison.speeds:
            yield dict.fromkeys(COLUMNS) | {"new_run": name, "what": "throughput"} | _of_speed(speed)


def to_csv(comparisons: Sequence[Comparison], *, show_paths: bool = False) -> str:
    """The rows as RFC 4180 says; text private, visible, and none that a spreadsheet would run
    (suite/report/csv.py).
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    known: dict[str, str] = {}

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in known:
            text = visible(value if show_paths else private(value), limit=len(value) + 1, lines=False)
            known[value] = f"'{text}" if text.startswith(FORMULA) else text
        return known[value]

    for row in rows(comparisons):
        writer.writerow([cell(row[name]) for name in COLUMNS])
    return stream.getvalue()


def to_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """JSON-ready: {"schema", "base", "reasons", "comparisons": [{"new", "threshold",
    "same_environment", "reasons", "counts"}], "rows"}. Texts are as the records have them.
    """
    return {
        "schema": SCHEMA,
        "base": str(comparisons[0].base.folder),
        "reasons": reasons_of(comparisons),
        "comparisons": [
            {
                "new": str(one.new.folder),
                "threshold": one.threshold,
                "same_environment": one.same_environment,
                "reasons": list(map(str, one.reasons)),
                "counts": {name: dict(count) for name, count in one.count().items()},
            }
            for one in comparisons
        ],
        "rows": [plain(row) for row in rows(comparisons)],
    }


def _of_pair(pair: Pair) -> dict[str, Any]:
    found = _what(pair.record, pair.record.direction) | {
        "change": pair.change,
        "accuracy": pair.accuracy.change,
        "meaningful": pair.accuracy.meaningful if pair.accuracy.change else None,
        "bits": pair.bits,
    }
    for side, r in (("base", pair.base), ("new", pair.new)):
        if r is not None:
            found |= _side(side, r.device, r.status, r.judgement.ratio, r.judgement.max_ulp)
    return found


def _of_speed(speed: Speed) -> dict[str, Any]:
    m = speed.measurement
    found = _what(m, m.data["direction"]) | {
        "change": speed.change,
        "time_ratio": speed.ratio,
        "time_ratio_low": speed.low,
        "time_ratio_high": speed.high,
        "speed": speed.verdict,
        "note": speed.note,
    }
    for side, one in (("base", speed.base), ("new", speed.new)):
        if one is not None:
            samples, data = times_of(one), one.data
            found |= _side(side, one.device, data["status"], data.get("ratio"), data.get("max_ulp"))
            found[f"{side}_median_seconds"] = median(samples) if samples else None
    return found


def _what(row: Record | Measurement, direction: str) -> dict[str, Any]:
    values = (row.op, row.kernel, row.case, row.dtype, direction)
    return dict(zip(("op", "kernel", "case", "dtype", "direction"), values, strict=True))


def _side(side: str, device: str, status: str, ratio: Any, max_ulp: Any) -> dict[str, Any]:
    values = {"device": device, "status": status, "ratio": ratio, "max_ulp": max_ulp}
    return {f"{side}_{name}": value for name, value in values.items()}
