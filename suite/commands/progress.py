"""Shows how a run goes on: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, TextIO

from suite.records.record import Record, summary_class
from suite.session import Progress

LINE_SECONDS = 5.0


class ShownProgress(Progress):
    """Shows progress on a stream, which is a terminal or not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._counts: Counter[str] = Counter()
        self._total = 0
        self._shown = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def begin(self, total: int) -> None:
        self._total = total
        if total and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("judging"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self._stream),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total)

    def judged(self, record: Record) -> None:
        self._counts[summary_class(record.status)] += 1
        done = sum(self._counts.values())
        text = ", ".join(f"{count} {name}" for name, count in sorted(self._counts.items()))
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text)
        else:
            self._say(f"judging {done} of {self._total}: {text}")

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def measuring(self, number: int, total: int, what: str) -> None:
        self._say(f"measuring {number} of {total}: {what}")

    def _say(self, line: str) -> None:
        if time.monotonic() - self._shown > LINE_SECONDS:
            self._shown = time.monotonic()
            print(line, file=self._stream, flush=True)
