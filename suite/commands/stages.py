"""Stages of a long run inside a budget of time: each is one process or several side by side.

A stage that fails is recorded; one whose time is over is interrupted and keeps what it has; none
begins after the budget but those for which some of it is kept.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

LEAST_SECONDS = 5.0
"""No stage begins with less left."""

GRACE_SECONDS = 10.0
"""From an interruption to the end by force."""

LEAST_RESERVED_SECONDS = 10.0
"""What a reserved stage gets even where another one did not end when it was told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Commands that run side by side."""

    name: str

    commands: tuple[tuple[str, ...], ...]

    share: float = 1.0
    """Of the budget, at most."""

    good: tuple[int, ...] = (0,)
    """Exit codes with which none of the commands has failed."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside this process's own."""

    runs: tuple[Path, ...] = ()
    """Run folders, of which those with records end its one command; it is skipped where none has."""

    reserved: bool = False
    """It begins whatever is left of the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a stage ended."""

    stage: str

    status: str
    """"done", "failed", "interrupted" (its time was over) or "skipped" (there was none)."""

    seconds: float

    note: str = ""
    """Why."""


def run_stages(
    planned: Sequence[Stage],
    out: Path,
    *,
    budget_seconds: float,
    reserved_seconds: float = 0.0,
    say: Callable[[str], None],
    keep: Callable[[Sequence[Outcome]], None] = lambda _: None,
) -> list[Outcome]:
    """Runs the stages one after the other, each with a log under `out`; keep() gets all outcomes so
    far after each.

    reserved_seconds: beside the budget, for the stages that are reserved.
    """
    begin, outcomes = time.monotonic(), list[Outcome]()
    for stage in planned:
        left = budget_seconds - (time.monotonic() - begin)
        if stage.reserved:
            left = max(left + reserved_seconds, LEAST_RESERVED_SECONDS)
        runs = [str(folder) for folder in stage.runs if any(folder.glob("records-*.jsonl"))]
        if stage.runs and not runs:
            outcomes.append(_skipped(stage, "there is no run to take"))
        elif left < LEAST_SECONDS:
            outcomes.append(_skipped(stage, "the budget is spent"))
        else:
            say(f"{stage.name} ...")
            ready = replace(stage, commands=tuple((*command, *runs) for command in stage.commands))
            outcomes.append(
                run_stage(ready, out, seconds=min(left, stage.share * (budget_seconds + reserved_seconds)))
            )
            ended = outcomes[-1]
            say(f"{stage.name}: {ended.status} after {ended.seconds:.0f} s {ended.note}".rstrip())
        keep(outcomes)
    return outcomes


def _skipped(stage: Stage, why: str) -> Outcome:
    return Outcome(stage=stage.name, status="skipped", seconds=0.0, note=why)


def run_stage(stage: Stage, out: Path, *, seconds: float) -> Outcome:
    """Runs one stage, interrupted after so many seconds and killed GRACE_SECONDS later."""
    begin = time.monotonic()
    logs = [out / f"{stage.name}-{number}.log" for number in range(1, len(stage.commands) + 1)]
    with contextlib.ExitStack() as files:
        with _interruptible():
            processes = [
                subprocess.Popen(
                    command,
                    stdout=files.enter_context(log.open("wb")),
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **stage.environment},
                    start_new_session=True,
                )
                for command, log in zip(stage.commands, logs, strict=True)
            ]
        try:
            in_time = _ended(processes, begin + seconds)
            if not in_time:
                _signal(processes, signal.SIGINT)
                _ended(processes, time.monotonic() + GRACE_SECONDS)
        finally:  # with the children of what has ended
            _signal(processes, signal.SIGKILL)
            _ended(processes, time.monotonic() + GRACE_SECONDS)
    spent = time.monotonic() - begin
    if not in_time:
        return Outcome(
            stage=stage.name, status="interrupted", seconds=spent, note=f"its {seconds:.0f} s were over"
        )
    for process, log in zip(processes, logs, strict=True):
        if process.returncode not in stage.good:
            note = f"exit code {process.returncode}: {last_line(log)}"
            return Outcome(stage=stage.name, status="failed", seconds=spent, note=note)
    return Outcome(stage=stage.name, status="done", seconds=spent)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores interruptions, and so would all that is started by it."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ended(processes: Sequence[subprocess.Popen[bytes]], deadline: float) -> bool:
    """Waits for all of them until a time of the monotonic clock, and returns whether all have ended."""
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0.0))
    return all(process.poll() is not None for process in processes)


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    """Sends a signal to the groups of the processes, where anybody is left in them."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it said nothing"
