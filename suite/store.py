"""The run folder: env.json and one append-only records-<host>-<pid>.jsonl for each process that evaluated something,
with a measurements-<host>-<pid>.jsonl beside it where one measured something.

A line is flushed before append() returns, so killing everything loses at most the case in flight. Readers merge the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from suite.records import Measurement, Record

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder holds: environment, records (the latest of each id), measurements, notices of what was skipped."""

    folder: Path
    environment: dict[str, Any]
    records: tuple[Record, ...]
    notices: tuple[str, ...]
    measurements: tuple[Measurement, ...] = ()


class Store:
    """Appends records to a run folder from this process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        host = hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()
        self._suffix = f"{host}-{os.getpid()}.jsonl"
        self._streams: dict[str, TextIO] = {}

    def append(self, record: Record) -> None:
        """Writes one record; it is with the operating system when this returns."""
        self._write("records", record.to_json())

    def append_measurement(self, measurement: Measurement) -> None:
        """Writes one measurement, like append()."""
        self._write("measurements", measurement.to_json())

    def _write(self, kind: str, line: str) -> None:
        if kind not in self._streams:
            path = self.folder / f"{kind}-{self._suffix}"
            torn = path.is_file() and not path.read_bytes().endswith(b"\n")
            self._streams[kind] = path.open("a", encoding="utf-8")
            if torn:
                self._streams[kind].write("\n")
        self._streams[kind].write(line + "\n")
        self._streams[kind].flush()

    def write_environment(self, environment: dict[str, Any]) -> None:
        (self.folder / "env.json").write_text(json.dumps(environment, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()


def read_run(folder: Path) -> Run:
    """Reads a run folder. A torn or foreign line is skipped with a notice. Raises ValueError where there are no records."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    files = sorted(folder.glob("records-*.jsonl"))
    if not files:
        raise ValueError(f"{folder} holds no records (no records-*.jsonl)")
    records: dict[str, Record] = {}
    notices: list[str] = []
    for path in files:
        for record in _read_lines(path, _record, notices):
            kept = records.get(record.id)
            if kept is None or record.started >= kept.started:
                records[record.id] = record
    measurements = {
        (m.kind, m.op, m.kernel, m.dtype, m.device): m
        for path in sorted(folder.glob("measurements-*.jsonl"))
        for m in _read_lines(path, Measurement.from_dict, notices)
    }
    environment = _read_environment(folder, notices)
    return Run(folder, environment, tuple(records.values()), tuple(notices), tuple(measurements.values()))


def _record(data: Any) -> Record:
    record = Record.from_dict(data)
    record.id.encode()
    return record


def _read_lines(path: Path, parse: Callable[[Any], T], notices: list[str]) -> list[T]:
    """What the lines of a file hold; a line that cannot be read is noticed and left out."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, RecursionError) as error:
            notices.append(f"{path.name}:{number} skipped: {str(error).splitlines()[0]}")
    return found


def _read_environment(folder: Path, notices: list[str]) -> dict[str, Any]:
    path = folder / "env.json"
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        notices.append(f"env.json cannot be read: {str(error).splitlines()[0]}")
        return {}
    if not isinstance(environment, dict):
        notices.append("env.json is not a JSON object")
        return {}
    return environment


def find_record(reference: str, runs_folder: Path) -> Record:
    """The record that FILE:LINE names, or the one with this id in the newest run folder that has it.

    Raises ValueError naming what was looked for and where.
    """
    path, _, line = reference.rpartition(":")
    if path and line.isdigit():
        file = Path(path)
        if not file.is_file():
            raise ValueError(f"record file {path!r} does not exist")
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if not 1 <= int(line) <= len(lines):
            raise ValueError(f"{path} has {len(lines)} lines; there is no line {line}")
        try:
            return Record.from_dict(json.loads(lines[int(line) - 1]))
        except ValueError as error:
            raise ValueError(f"{reference} is not a record: {error}") from None
    folders = sorted((p for p in runs_folder.glob("*") if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True)
    for folder in [runs_folder, *folders]:
        try:
            run = read_run(folder)
        except ValueError:
            continue
        for record in run.records:
            if record.id == reference:
                return record
    raise ValueError(
        f"no record {reference!r} in {runs_folder} or its run folders (--runs names others); give a record id or FILE:LINE"
    )
