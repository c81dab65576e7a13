"""Reading runs that are to be compared: nothing that cannot be read is passed over in silence."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.records import strict_json
from suite.records.configuration import FILE, read_configuration
from suite.records.record import STATUSES, Measurement
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
from suite.report.shapes import COUNT, SECONDS, TEXT, fields, many, one_of, or_null

MOST = 1000
"""Samples that a measurement may have."""

AMOUNT = or_null({"type": "number", "minimum": 0, "maximum": 1e30})
ERROR = or_null(dict(SIZE))
OPTIONAL = {
    **dict.fromkeys(("ratio", "max_ulp"), ERROR),
    **dict.fromkeys(("digest", "note"), TEXT),
    "threads": COUNT | {"minimum": 0, "maximum": 2**31},
    **dict.fromkeys(
        ("bytes", "operations", "peak_bytes", "copy_bytes_per_second", "matmul_operations_per_second"), AMOUNT
    ),
}
THROUGHPUT = fields(
    {
        "status": one_of(*STATUSES, "known_failure"),
        "direction": one_of("forward", "backward"),
        "shape": many(COUNT | {"minimum": 0}),
        "samples_seconds": many(SECONDS),
        "clock": TEXT,
        "cache": TEXT,
        **OPTIONAL,
    },
    *OPTIONAL,
)
"""What is read of the data of a measurement of kind "throughput"; it may hold more."""


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
    planned = read_configuration(folder).planned if (folder / FILE).exists() else 0
    records = latest(read_records(folder, notices))
    measurements = read_measurements(folder, notices, parse=_measurement)
    torn = _torn_lines(folder)
    for notice in notices:
        if not any(notice.startswith(f"{line} skipped:") for line in torn):
            raise ValueError(f"{str(folder)!r}: {notice.replace(' skipped:', ' cannot be read:', 1)}")
    if len(records) < planned:
        notices.append(f"incomplete: {len(records):,} of {planned:,} planned evaluations are recorded")
    return Run(folder, environment, tuple(records), tuple(notices), tuple(measurements.values()))


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
