"""Joins the run folders of shards, and says what overlaps, what is missing and what does not belong together.

Nothing is dropped: the merged folder has every line of every folder, and of several records of one
id its readers take the latest, as in any run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suite.records.configuration import (
    ALL,
    FILE,
    Configuration,
    differences,
    in_shard,
    read_configuration,
    shards,
    unlike_facts,
)
from suite.records.record import Measurement, Record
from suite.records.store import Store, latest, read_environment, read_measurements, read_records, refuse_twice


@dataclass(frozen=True, slots=True)
class Part:
    """A run folder to be merged. records: every one, in the order of its files. notices: of what
    could not be read.
    """

    folder: Path
    configuration: Configuration
    environment: dict[str, Any]
    records: tuple[Record, ...]
    measurements: tuple[Measurement, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What came of a merge.

    records: the latest of each id. whole: every shard is there and has all its records.
    contradictions: ids whose records have other verdicts in other folders. findings: all of that
    and each notice in words, one line each.
    """

    parts: tuple[Part, ...]
    configuration: Configuration
    environment: dict[str, Any]
    records: tuple[Record, ...]
    whole: bool
    contradictions: tuple[str, ...]
    findings: tuple[str, ...]

    def write(self, store: Store) -> None:
        """Makes the store's folder a run folder of every line. Raises StoreError where it takes no more."""
        store.write_environment(self.environment)
        store.write_json(FILE, self.configuration.to_dict())
        for part in self.parts:
            for record in part.records:
                store.append(record)
            for measurement in part.measurements:
                store.append_measurement(measurement)


def join(folders: Sequence[Path], *, unlike_environments: bool = False) -> Merged:
    """Reads run folders and finds what their merge is.

    Raises ValueError where a folder is no run, is named twice, is of another configuration or,
    without unlike_environments, of another environment; the text lists every difference.
    """
    refuse_twice(folders)
    parts = tuple(_read(folder) for folder in folders)
    _refuse_unlike(parts, unlike_environments=unlike_environments)
    gaps, numbers = _gaps(parts)
    noted, contradictions = _overlaps(parts)
    records = tuple(latest(record for part in parts for record in part.records))
    n = shards(parts[0].configuration.shard)[1]
    complete = len(numbers) == n
    shard = ALL if complete else _name(numbers, n)
    planned = len(records) if not gaps else _planned(parts, records)
    return Merged(
        parts=parts,
        configuration=replace(parts[0].configuration, shard=shard, planned=planned),
        environment=_environment(parts),
        records=records,
        whole=not gaps,
        contradictions=tuple(contradictions),
        findings=(*(notice for part in parts for notice in part.notices), *noted, *contradictions, *gaps),
    )


def _read(folder: Path) -> Part:
    configuration, notices = read_configuration(folder), list[str]()
    records, measurements = read_records(folder, notices), read_measurements(folder, notices)
    environment = read_environment(folder, notices)
    named = tuple(f"{folder}: {notice}" for notice in notices)
    return Part(folder, configuration, environment, tuple(records), tuple(measurements.values()), named)


def _refuse_unlike(parts: Sequence[Part], *, unlike_environments: bool) -> None:
    first, found, facts = parts[0], list[str](), list[str]()
    for part in parts[1:]:
        names = (f"in {first.folder}", f"in {part.folder}")
        found += differences(first.configuration, part.configuration, names=names)
        n, other = shards(first.configuration.shard)[1], shards(part.configuration.shard)[1]
        if n != other:
            found.append(f"--shard: of {n} {names[0]}, of {other} {names[1]}")
        if first.configuration.env_id != part.configuration.env_id:
            ids = (
                f"environment: {first.configuration.env_id} {names[0]}, {part.configuration.env_id}"
                f" {names[1]}"
            )
            facts += unlike_facts(first.environment, part.environment, names=names) or [ids]
    if found:
        raise ValueError("\n  ".join(["these are not parts of one run:", *found, *facts]))
    if facts and not unlike_environments:
        raise ValueError(
            "\n  ".join(
                ["these ran in unlike environments (--unlike-environments joins them all the same):", *facts]
            )
        )


def _gaps(parts: Sequence[Part]) -> tuple[list[str], frozenset[int]]:
    """(what is missing in words, the numbers of the shards that are there). Of a shard that several
    parts have, all count.
    """
    found: list[str] = []
    records = latest(record for part in parts for record in part.records)
    for shard, planned in _planned_of_each(parts).items():
        have = _of_shard(records, shard)
        if have < planned:
            where = ", ".join(
                str(part.folder) for part in parts if _name(*shards(part.configuration.shard)) == shard
            )
            found.append(
                f"gap: shard {shard} has {have} of {planned} records ({where}); go on with it by --resume"
            )
    numbers = frozenset[int]().union(*(shards(part.configuration.shard)[0] for part in parts))
    n = shards(parts[0].configuration.shard)[1]
    missing = [number for number in range(1, n + 1) if number not in numbers]
    if missing:
        some = ", ".join(f"{number}/{n}" for number in missing[:20]) + (
            " and others" if len(missing) > 20 else ""
        )
        found.append(f"gap: of {n} shards, {some} missing")
    return found, numbers


def _planned(parts: Sequence[Part], records: Sequence[Record]) -> int:
    """How many records the shards of these parts will have. What two parts share counts once: as
    many as were planned of it, where a part is of just that, else as many as there are.
    """
    each, total, counted = _planned_of_each(parts), 0, frozenset[int]()
    for shard, planned in sorted(each.items(), key=lambda item: -len(shards(item[0])[0])):
        numbers, n = shards(shard)
        shared = _name(numbers & counted, n)
        total += planned - (each.get(shared, _of_shard(records, shared)) if shared else 0)
        counted |= numbers
    return total


def _planned_of_each(parts: Sequence[Part]) -> dict[str, int]:
    """shard -> how many records it will have."""
    found: dict[str, int] = {}
    for part in parts:
        shard = _name(*shards(part.configuration.shard))
        found[shard] = max(part.configuration.planned, found.get(shard, 0))
    return found


def _of_shard(records: Sequence[Record], shard: str) -> int:
    return sum(in_shard(record.case, shard) for record in records)


def _name(numbers: Iterable[int], n: int) -> str:
    """A shard as run.json names it; nothing for none."""
    named = ",".join(map(str, sorted(numbers)))
    return f"{named}/{n}" if named else ""


def _overlaps(parts: Sequence[Part]) -> tuple[list[str], list[str]]:
    """(notes of records that several folders have alike, those whose verdicts differ), in words."""
    first: dict[str, tuple[Part, Record]] = {}
    alike: dict[tuple[Path, Path], int] = {}
    contradictions = []
    for part in parts:
        for record in latest(part.records):
            before, other = first.setdefault(record.id, (part, record))
            if before is part:
                continue
            if (other.status, other.broken) == (record.status, record.broken):
                alike[before.folder, part.folder] = alike.get((before.folder, part.folder), 0) + 1
            else:
                contradictions.append(
                    f"contradiction: {record.case} {record.dtype} {record.kernel} is {other.status} in"
                    f" {before.folder} and {record.status} in {part.folder}"
                )
    notes = [
        f"overlap: {count} records are in {a} and in {b}, with the same verdicts"
        for (a, b), count in alike.items()
    ]
    return notes, contradictions


def _environment(parts: Sequence[Part]) -> dict[str, Any]:
    """The first folder's; where the folders differ, with the others' beside it."""
    first = parts[0]
    others = {
        str(part.folder.name): part.environment
        for part in parts[1:]
        if part.configuration.env_id != first.configuration.env_id
    }
    return {**first.environment, "merged": others} if others else first.environment
