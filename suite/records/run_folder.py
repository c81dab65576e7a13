"""The folder of a run while the run is in it: locked, resumed, and planned before its first record."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from suite.records.configuration import (
    FILE,
    Configuration,
    differences,
    read_configuration,
    unlike_facts,
)
from suite.records.record import Record
from suite.records.store import Store, held, read_environment, read_records, refuse_records


class RunFolder:
    """A run folder that this process writes to.

    The constructor takes the folder. Raises ValueError where another process is in it, or where it
    holds records and is not resumed, OSError where it cannot be made.
    """

    def __init__(
        self, folder: Path, closing: contextlib.ExitStack, *, resume: bool, worker: bool, resumable: bool
    ) -> None:
        """closing: gives the folder back. worker: another process has taken the folder for this one.
        resumable: whether such a run can be resumed at all, which the message says.
        """
        self._resume, self._worker = resume, worker
        self._then: Configuration | None = None
        if not worker:
            if folder.is_dir() or not resume:
                closing.enter_context(held(folder))
            if resume:
                self._then = read_configuration(folder)
            else:
                refuse_records(folder, resumable=resumable)
        self.store = Store(folder)

    def begin(self, now: Configuration, environment: dict[str, Any], *, strict: bool) -> list[Record]:
        """Writes env.json and returns the records of the run that is resumed, in the order of their
        starts.

        Raises ValueError, with every difference, where the run in the folder is another one.
        """
        if self._then is not None:
            self._refuse_another(self._then, now, environment)
        if not self._worker:
            self.store.write_environment(environment)
        if not self._resume:
            return []
        found = [
            record
            for record in read_records(self.store.folder, [])
            if (record.env_id, record.strict) == (now.env_id, strict)
        ]
        return sorted(found, key=lambda record: record.started)

    def _refuse_another(self, then: Configuration, now: Configuration, environment: dict[str, Any]) -> None:
        folder = self.store.folder
        found = differences(then, now)
        if then.shard != now.shard:
            found.append(f"--shard: {then.shard} then, {now.shard} now")
        if then.env_id != now.env_id:
            facts = unlike_facts(read_environment(folder, []), environment)
            found += facts or [f"environment: {then.env_id} then, {now.env_id} now"]
        if found:
            raise ValueError(_refusal(folder, found))

    def plan(self, now: Configuration, planned: int) -> None:
        """Writes run.json before the first record: what this run will be when it is whole.

        Raises ValueError where the run that is resumed had planned another number of records.
        """
        if self._worker:
            return
        if self._then is None:
            self._then = replace(now, planned=planned)
            self.store.write_json(FILE, self._then.to_dict())
        elif self._then.planned != planned:
            line = f"evaluations selected: {self._then.planned} then, {planned} now"
            raise ValueError(_refusal(self.store.folder, [line]))


def _refusal(folder: Path, found: Sequence[str]) -> str:
    return "\n  ".join([f"--resume: the run in {str(folder)!r} is another one than this:", *found])
