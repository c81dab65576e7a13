"""Known failures: a text file of kernel, dtype, device, status and case id patterns, each with a
reason and a link.

    # kernel  dtype     device  status      case            reason | link
    fused     bfloat16  cpu     inaccurate  log_softmax/*   the log of the sum is rounded to bfloat16 | https://github.com/...

A pattern may use * and ?; only one with /upstream= in it means cases of the backward. An entry
covers records in which no other status than its own is broken, so a new defect does not hide under
it. An entry whose kernel and cases ran and never failed is an error, and so is one that matches no
existing case: the list cannot rot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from suite.records.record import PASSING, STATUSES, Record
from suite.records.regular_files import open_regular


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """One entry, and the file and line it stands on."""

    kernel: str
    dtype: str
    device: str
    status: str
    case: str
    reason: str
    link: str
    where: str

    def covers(self, record: Record) -> bool:
        """Whether this entry explains the record's failure."""
        return self.matches(record) and set(record.broken) <= set(self.status.split(","))

    def matches(self, record: Record) -> bool:
        """Whether the record is of this entry's kernel and cases."""
        return (
            self.kernel == record.kernel
            and fnmatchcase(record.dtype, self.dtype)
            and fnmatchcase(record.device.split(":")[0], self.device)
            and self.names(record.case)
        )

    def names(self, case: str) -> bool:
        """Whether the case is one of this entry's: of the backward only where its pattern has an upstream."""
        return fnmatchcase(case, self.case) and ("/upstream=" in case) == ("/upstream=" in self.case)


def read(path: Path) -> list[KnownFailure]:
    """The entries of a file. Raises ValueError naming file and line for a missing file or a
    malformed line.
    """
    try:
        with open_regular(path) as file:
            lines = file.read().decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"known-failures file {str(path)!r} cannot be read: {error}") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split(maxsplit=5)
        reason, separator, link = words[5].partition("|") if len(words) == 6 else ("", "", "")
        if not separator or not reason.strip() or not link.strip():
            raise ValueError(
                f"{path}:{number}: expected 'kernel dtype device status case reason | link', got {line!r}"
            )
        kernel, dtype, device, status, case = words[:5]
        for one in status.split(","):
            if one not in STATUSES:
                raise ValueError(f"{path}:{number}: status {one!r} is not one of {', '.join(STATUSES)}")
        where = f"{path.name}:{number}"
        entries.append(KnownFailure(kernel, dtype, device, status, case, reason.strip(), link.strip(), where))
    return entries


def apply(record: Record, entries: Iterable[KnownFailure]) -> Record:
    """The record, as known_failure where it failed and an entry matches."""
    if record.status in PASSING:
        return record
    for entry in entries:
        if entry.covers(record):
            return replace(
                record, status="known_failure", known=f"{entry.reason} ({entry.link}; {entry.where})"
            )
    return record


def stale(
    entries: Iterable[KnownFailure],
    records: Iterable[Record],
    existing_cases: Iterable[str],
    *,
    narrowed: bool,
) -> list[str]:
    """What is wrong with the entries after a run: those that match no existing case, and those that
    never failed.

    narrowed: the run selected cases by pattern, so that an entry with a wildcard may have met only
    cases that pass.
    """
    ran = list(records)
    cases = set(existing_cases)
    problems = []
    for entry in entries:
        if not any(entry.names(case) for case in cases):
            problems.append(f"{entry.where}: {entry.case!r} matches no existing case")
            continue
        matching = [r for r in ran if entry.matches(r) and r.status != "unsupported"]
        wildcard = any(character in entry.case for character in "*?[")
        if (
            matching
            and not any(r.status == "known_failure" for r in matching)
            and not (wildcard and narrowed)
        ):
            problems.append(
                f"{entry.where}: {entry.kernel} passes {entry.case} in {entry.dtype}: remove the entry"
            )
    return problems
