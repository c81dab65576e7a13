"""The run folder: env.json, run.json and one append-only records-<host>-<pid>.jsonl for each
process that evaluated something, with a measurements-<host>-<pid>.jsonl beside it where one
measured something.

A line is one write() to a file opened for appending, made before append() returns: what was
appended survives the death of every process, and killing everything loses at most the case in
flight. Readers merge the files. Nothing is written that they would not take. They take the same
files packed by gzip too, as published runs have them (suite/report/publish.py).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from suite.records import strict_json
from suite.records.flat import changed
from suite.records.lock import InUseError, locked
from suite.records.record import Measurement, Record
from suite.records.strict_json import DamagedError, lines

T = TypeVar("T")
LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""The errors of a disk that takes nothing more."""

OWN = (
    "env.json", "run.json", LOCK, "records-*.jsonl", "records-*.jsonl.gz", "measurements-*.jsonl",
    "measurements-*.jsonl.gz",
)  # fmt: skip
"""What a run writes into its folder and nothing can make again. All else there is a report, or somebody's."""

CUT_CHARACTERS = 10_000
"""What is kept of a text of a record that is too long for its readers; ordinary records have less in all."""


RESUMING, ANEW = "go on with the same command and --resume", "measure again into a new folder"
"""How to go on: of a run, and of a bench, which measures anew."""


class StoreError(Exception):
    """What ends a run at once, by default a folder that takes no more: what was recorded before is
    whole, and the text says how to go on.
    """

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(
            f"run folder {str(folder)!r} cannot be written: {error.strerror or error}. What was recorded"
            f" before is whole; {'make room' if error.errno in FULL else 'mend that'}, then {RESUMING}"
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder holds: environment, records (the latest of each id), measurements, notices
    of what was skipped.
    """

    folder: Path
    environment: dict[str, Any]
    records: tuple[Record, ...]
    notices: tuple[str, ...]
    measurements: tuple[Measurement, ...] = ()


class Store:
    """Appends records to a run folder from this process. Its methods raise StoreError where the
    folder takes no more.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        host = hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()
        self._suffix = f"{host}-{os.getpid()}.jsonl"
        self._descriptors: dict[str, int] = {}

    def append(self, record: Record) -> None:
        """Writes one record; it is with the operating system when this returns.

        Texts are cut where a reader would refuse the whole. Raises ValueError for a record that no
        reader takes for another reason: better no record, and an error, than one that is lost in
        silence.
        """
        line = record.to_json()
        if len(line) > strict_json.LINE_BYTES:
            line = _cut(record).to_json()
        _check_readable(line, _record)
        self._write("records", line)

    def append_measurement(self, measurement: Measurement) -> None:
        """Writes one measurement, like append(), but cuts nothing."""
        line = measurement.to_json()
        _check_readable(line, Measurement.from_dict)
        self._write("measurements", line)

    def _write(self, kind: str, line: str) -> None:
        with self._explained():
            if kind not in self._descriptors:
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
                self._descriptors[kind] = os.open(self.folder / f"{kind}-{self._suffix}", flags, 0o666)
            descriptor = self._descriptors[kind]
            whole = os.fstat(descriptor).st_size
            # By a killed process with this process's id.
            torn = whole > 0 and os.pread(descriptor, 1, whole - 1) != b"\n"
            rest = (b"\n" if torn else b"") + line.encode() + b"\n"
            try:
                while (
                    rest
                ):  # once, but on a disk that is nearly full, where the second write names the reason
                    rest = rest[os.write(descriptor, rest) :]
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, whole)
                raise

    def write_environment(self, environment: dict[str, Any]) -> None:
        self.write_json("env.json", environment)

    def write_json(self, name: str, data: dict[str, Any]) -> None:
        """Writes a file of the folder, whole or not at all. Raises ValueError where no reader would
        take it.
        """
        part, text = self.folder / f".{name}.part", json.dumps(data, indent=2, sort_keys=True) + "\n"
        _check_readable(text, dict)
        with self._explained():
            part.write_text(text, encoding="utf-8")
            part.replace(self.folder / name)

    def close(self) -> None:
        """Closes the files, after what was appended has been forced to the disk."""
        with self._explained():
            try:
                for descriptor in self._descriptors.values():
                    os.fsync(descriptor)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a device or a pipe, which has nothing to force
                    raise
            finally:
                for descriptor in self._descriptors.values():
                    os.close(descriptor)
                self._descriptors.clear()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(self.folder, error) from None


_HELD: set[Path] = set()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run folder; nested in one process it does nothing more. The
    folder is made.

    Any death of the process frees the folder. Raises ValueError, naming folder and process, where
    another one holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    if place in _HELD:
        yield
        return
    with contextlib.ExitStack() as holding:
        try:
            holding.enter_context(locked(place / LOCK))
        except InUseError as error:
            raise ValueError(
                f"run folder {str(folder)!r} is in use by process {error.holder}; wait for its end, or name"
                " another folder"
            ) from None
        _HELD.add(place)
        holding.callback(_HELD.discard, place)
        yield


def has_records(folder: Path) -> bool:
    """Whether a run has recorded or measured something there."""
    return bool(files(folder, "records") or files(folder, "measurements"))


def files(folder: Path, kind: str) -> list[Path]:
    """The files of a run folder that hold its lines of a kind, records or measurements, sorted;
    plain and packed.
    """
    return sorted([*folder.glob(f"{kind}-*.jsonl"), *folder.glob(f"{kind}-*.jsonl.gz")])


def is_own_file(path: Path, folder: Path) -> bool:
    """Whether writing to the path would write to one of OWN of a run folder, by whatever name or
    link; it may not exist yet.
    """
    real = Path(os.path.realpath(path))
    if real.parent == Path(os.path.realpath(folder)) and any(map(real.match, OWN)):
        return True
    return real.exists() and any(real.samefile(file) for pattern in OWN for file in folder.glob(pattern))


def refuse_records(folder: Path, *, resumable: bool = True) -> None:
    """Raises ValueError where the folder holds the records of another run: no run adds to another's unasked.

    resumable: the command can go on with a run, which the message says.
    """
    if has_records(folder):
        advice = ", or go on with that run by --resume" if resumable else ""
        raise ValueError(f"--out {str(folder)!r} holds the records of another run; name a new folder{advice}")


def refuse_twice(folders: Iterable[Path], *, why: str = "") -> None:
    """Raises ValueError where a folder is named twice, in whatever words. why: what follows in the
    message.
    """
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise ValueError(f"{str(folder)!r} is named twice{why}")
        seen.add(folder.resolve())


def read_run(folder: Path) -> Run:
    """Reads a run folder. A torn or foreign line is skipped with a notice.

    Raises ValueError where there are no records, DamagedError, which is one, where a packed file is
    torn or was changed.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if not files(folder, "records"):
        raise ValueError(f"{folder} holds no records (no records-*.jsonl)")
    notices: list[str] = []
    records = latest(read_records(folder, notices))
    measurements = read_measurements(folder, notices)
    environment = read_environment(folder, notices)
    return Run(folder, environment, tuple(records), tuple(notices), tuple(measurements.values()))


def read_records(folder: Path, notices: list[str]) -> list[Record]:
    """Every record of a run folder, several of one id where it has them; what cannot be read is
    added to the notices.

    Raises DamagedError where a packed file is torn or was changed.
    """
    return [r for path in files(folder, "records") for r in _read_lines(path, _record, notices)]


def latest(records: Iterable[Record]) -> list[Record]:
    """Of several records of one id the one that started last, in the order in which the ids came."""
    kept: dict[str, Record] = {}
    for record in records:
        key = record.id
        before = kept.get(key)
        if before is None or record.started >= before.started:
            kept[key] = record
    return list(kept.values())


def read_measurements(
    folder: Path, notices: list[str], *, parse: Callable[[Any], Measurement] = Measurement.from_dict
) -> dict[tuple[str, ...], Measurement]:
    """The measurements of a run folder, the last of each (kind, op, kernel, dtype, device), and
    case where there is one.

    parse: makes the measurement of a line's JSON, or raises ValueError, which becomes a notice.
    Raises DamagedError where a packed file is torn or was changed.
    """
    return {
        (m.kind, m.op, m.kernel, m.dtype, m.device, *([m.case] if m.case else [])): m
        for path in files(folder, "measurements")
        for m in _read_lines(path, parse, notices)
    }


def _cut(record: Record) -> Record:
    """The record with the texts that kernels and messages make no longer than CUT_CHARACTERS each."""

    def cut(text: str) -> str:
        left_out = len(text) - CUT_CHARACTERS
        return f"{text[:CUT_CHARACTERS]} […{left_out:,} characters left out…]" if left_out > 0 else text

    return changed(
        record,
        message=cut(record.message),
        known=cut(record.known),
        reproduce=cut(record.reproduce),
        output=cut(record.outcome.output),
        warnings=tuple(cut(text) for text in record.outcome.warnings[:100]),
    )


def _check_readable(text: str, parse: Callable[[Any], Any]) -> None:
    try:
        parse(strict_json.parse(text))
    except ValueError as error:
        raise ValueError(f"{text[:200]}… could not be read back: {str(error).splitlines()[0]}") from None


def _record(data: Any) -> Record:
    """Raises ValueError also where the line states the id of another evaluation than the one that
    it is of.
    """
    record = Record.from_dict(data)
    if (stated := data.get("id", record.id)) != record.id:
        raise ValueError(f"id={stated!r:.80} is that of another evaluation; the line was changed")
    return record


def _read_lines(path: Path, parse: Callable[[Any], T], notices: list[str]) -> list[T]:
    """What the lines of a file hold; a line that cannot be read is noticed and left out."""
    found = []
    try:
        for number, line in lines(path):
            try:
                found.append(parse(strict_json.parse(line)))
            except ValueError as error:
                notices.append(f"{path.name}:{number} skipped: {str(error).splitlines()[0]}")
    except DamagedError:  # any line of it may be another than was written
        raise
    except (ValueError, OSError) as error:
        notices.append(f"{path.name} skipped: {str(error).splitlines()[0]}")
    return found


def read_environment(folder: Path, notices: list[str]) -> dict[str, Any]:
    """What env.json holds; nothing, and a notice, where it cannot be read."""
    path = folder / "env.json"
    try:
        environment = strict_json.read(path)
    except (OSError, ValueError) as error:
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
        try:
            found = dict(lines(Path(path)))
        except (ValueError, OSError) as error:
            raise ValueError(f"record file {path!r} cannot be read: {error}") from None
        if int(line) not in found:
            count = max(found, default=0)
            raise ValueError(f"{path} has {count} line{'s' if count != 1 else ''}; there is no line {line}")
        try:
            return _record(strict_json.parse(found[int(line)]))
        except ValueError as error:
            raise ValueError(f"{reference} is not a record: {error}") from None
    try:
        folders = sorted(
            (p for p in runs_folder.glob("*") if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True
        )
    except OSError as error:
        raise ValueError(f"--runs {str(runs_folder)!r} cannot be read: {error.strerror}") from None
    for folder in [runs_folder, *folders]:
        try:
            run = read_run(folder)
        except ValueError:
            continue
        for record in run.records:
            if record.id == reference:
                return record
    raise ValueError(
        f"no record {reference!r} in {runs_folder} or its run folders (--runs names others); give a record id"
        " or FILE:LINE"
    )
