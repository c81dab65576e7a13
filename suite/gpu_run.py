"""A whole run on a GPU by one command, inside a budget of time: python -m suite.gpu_run --out DIR.

    references -> facts -> correctness -> merge -> timers -> goals -> tuning -> bench -> report

Each stage is one process or several side by side, so a fault of the device ends a stage and not the
run. A stage that fails is named in the table at the end; one whose time is over is interrupted and
keeps what it has; none begins after the budget but merge and report, for which some of it is kept.
docs/gpu.md says how to prepare a machine without network.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from suite.execution.isolation import MOST_THREADS
from suite.ops import NAMES
from suite.records.configuration import ALL, read_configuration
from suite.records.record import summary_class
from suite.records.store import latest, read_records

PROFILES = ("smoke", "quick")
LEAST_SECONDS = 5.0
"""No stage begins with less left."""

GRACE_SECONDS = 10.0
"""From an interruption to the end by force."""

RESERVED_SECONDS = 20.0
"""Of the budget, for merge and report; each gets LEAST_RESERVED_SECONDS even where a stage did not
end when it was told to.
"""

LEAST_RESERVED_SECONDS = 10.0

TUNING = 0.25
"""Of the budget, for candidates; the last one of a kernel, and its rounds, may take longer."""

SUITE = (sys.executable, "-m", "suite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Commands that run side by side. share: of the budget, at most. good: exit codes with which
    none has failed.

    runs: run folders, of which those with records end its one command; it is skipped where none
    has. reserved: it begins whatever is left of the budget.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    share: float = 1.0
    good: tuple[int, ...] = (0,)
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[Path, ...] = ()
    reserved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a stage ended: "done", "failed", "interrupted" (its time was over) or "skipped" (there
    was none); note: why.
    """

    stage: str
    status: str
    seconds: float
    note: str = ""


def stages(
    out: Path,
    *,
    budget_seconds: float,
    device: str,
    profile: str,
    jobs: int,
    references: Path | None = None,
    ops: Sequence[str] = (),
    tune: bool = False,
) -> list[Stage]:
    """The stages in their order. jobs: processes that judge side by side. ops: all, where none is named."""
    selection = (f"--device={device}", f"--profile={profile}", *(f"--op={op}" for op in ops))
    shards = tuple(out / f"shard-{number}" for number in range(1, jobs + 1))
    judging = tuple(
        (
            *SUITE,
            "run",
            *selection,
            "--direction=both",
            "--no-measure",
            f"--shard={number}/{jobs}",
            "--out",
            str(shard),
        )
        for number, shard in enumerate(shards, start=1)
    )

    def measuring(module: str, *words: str, into: str) -> tuple[tuple[str, ...], ...]:
        return (
            (sys.executable, "-m", f"suite.{module}", *words, f"--device={device}", "--out", str(out / into)),
        )

    loading = [Stage(name="references", commands=((*SUITE, "references", "--load", str(references)),))]
    seconds = f"--budget-seconds={TUNING * budget_seconds}"
    tuning = [
        Stage(
            name="tuning", commands=measuring("tune", seconds, into="configurations.json"), share=TUNING + 0.1
        )
    ]
    merging = ((*SUITE, "merge", "--out", str(out / "correctness")),)
    reporting = ((*SUITE, "report", "--out", str(out / "report.html")),)
    return [
        *(loading if references else []),
        Stage(name="facts", commands=measuring("gpu_goals", "facts", into="facts.json"), share=0.1),
        Stage(name="correctness", commands=judging, share=0.45, good=(0, 1, 3), environment=sharing(jobs)),
        Stage(name="merge", commands=merging, good=(0, 1, 3), runs=shards, reserved=True),
        Stage(name="timers", commands=measuring("gpu_goals", "timers", into="timers.json"), share=0.15),
        Stage(name="goals", commands=measuring("gpu_goals", "goals", into="goals.json"), share=0.3),
        *(tuning if tune else []),
        Stage(
            name="bench", commands=((*SUITE, "bench", *selection, "--out", str(out / "bench")),), good=(0, 1)
        ),
        Stage(name="report", commands=reporting, runs=(out / "correctness", out / "bench"), reserved=True),
    ]


def sharing(jobs: int) -> dict[str, str]:
    """What processes side by side need: a share of the cores each, and a JAX that does not take all
    of the device's memory.
    """
    threads = str(max((os.cpu_count() or 1) // jobs, 1))
    return {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


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


def judged(folder: Path) -> list[dict[str, Any]]:
    """The rows of what was judged: one for all evaluations, and one for each kernel that failed. Of
    a part, none is met.
    """
    records = latest(read_records(folder, [])) if folder.is_dir() else []
    if not records:
        return [_row("evaluations that failed", None, met=False, note="nothing was judged")]
    counts = Counter(summary_class(record.status) for record in records)
    text = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    missing = _missing(folder, len(records))
    met = not missing and not counts["failed"]
    rows = [
        _row(
            "evaluations that failed",
            counts["failed"],
            met=met,
            note="; ".join(filter(None, (missing, text))),
        )
    ]
    failed = Counter(f"{r.op} {r.kernel}" for r in records if summary_class(r.status) == "failed")
    return rows + [_row(f"failed: {name}", count, met=False) for name, count in failed.most_common()]


def _missing(folder: Path, count: int) -> str:
    """What a run folder with so many records lacks; "" where it is whole."""
    try:
        configuration = read_configuration(folder)
    except ValueError as error:
        return f"INCOMPLETE: {error}"
    if configuration.shard != ALL:
        return f"INCOMPLETE: only shards {configuration.shard}"
    return (
        f"INCOMPLETE: {count} of {configuration.planned} are judged" if count < configuration.planned else ""
    )


def _row(what: str, measured: float | None, *, met: bool, note: str = "") -> dict[str, Any]:
    return {"what": what, "measured": measured, "unit": "", "goal": 0, "met": met, "note": note}


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The rows of the table, of all stages that left some."""
    found = judged(out / "correctness")
    for name in ("facts", "timers", "goals"):
        with contextlib.suppress(OSError, ValueError, KeyError):  # none, or torn where the stage was killed
            found += json.loads((out / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return found


def table(rows: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> str:
    """The table that is printed last: each row with its goal, then each stage."""
    lines = [f"{'what':<68}{'measured':>10} {'':<8}{'goal':>6}  {'':<7}note"]
    for row in rows:
        measured = "-" if row["measured"] is None else f"{row['measured']:.4g}"
        goal = "" if row["goal"] is None else f"{row['goal']:g}"
        verdict = {None: "", True: "met", False: "NOT MET"}[row["met"]]
        numbers = f"{measured:>10} {row['unit']:<8}{goal:>6}"
        lines.append(f"{row['what']:<68}{numbers}  {verdict:<7} {row['note'][:240]}".rstrip())
    lines += ["", f"{'stage':<14}{'seconds':>8}  how it ended"]
    lines += [f"{one.stage:<14}{one.seconds:>8.1f}  {one.status} {one.note}".rstrip() for one in outcomes]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs everything and prints the table. 0, or 1 where a stage did not end well or an evaluation
    failed: goals inform.
    """
    parser = argparse.ArgumentParser(
        prog="python -m suite.gpu_run", description="Runs everything on one GPU inside a budget of time."
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new folder, for all results"
    )
    parser.add_argument(
        "--device", default="cuda", help="cuda, cuda:1, ...; or cpu, where everything is small"
    )
    parser.add_argument(
        "--references", type=Path, metavar="FILE.npz", help="what softmax-suite references made"
    )
    parser.add_argument("--profile", choices=PROFILES, default="quick", help="of correctness and of bench")
    parser.add_argument(
        "--op", dest="ops", action="append", choices=NAMES, default=[], help="judge and bench only this op"
    )
    parser.add_argument("--budget-seconds", type=float, default=540.0, metavar="S")
    parser.add_argument(
        "--jobs", type=int, default=min(8, max((os.cpu_count() or 1) // 2, 1)), help="that judge side by side"
    )
    parser.add_argument(
        "--tune", action="store_true", help="also time the configurations of Triton's kernels"
    )
    given = parser.parse_args(arguments)
    if not 0 < given.budget_seconds < float("inf"):
        parser.error(f"--budget-seconds {given.budget_seconds} must be above 0")
    if not 1 <= given.jobs <= MOST_THREADS:
        parser.error(f"--jobs {given.jobs} must be from 1 to {MOST_THREADS}")
    if given.references and not given.references.is_file():
        parser.error(f"--references {str(given.references)!r} is no file")
    from suite.gpu_goals import unusable  # and torch, which takes seconds

    if reason := unusable(given.device):
        parser.error(f"--device {given.device}{reason}")
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"--out {str(given.out)!r} is no folder; name a new one")
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {str(given.out)!r} cannot be made: {error.strerror}")
    if any(given.out.iterdir()):
        parser.error(f"--out {str(given.out)!r} is not empty; name a new folder")
    words = {name: value for name, value in vars(given).items() if name != "out"}
    planned = stages(given.out, **words)

    def say(line: str) -> None:
        print(line, flush=True)

    def keep(outcomes: Sequence[Outcome]) -> None:
        data = {"rows": rows_of(given.out), "stages": [asdict(one) for one in outcomes]}
        (given.out / "gpu_run.json").write_text(json.dumps(data, indent=1), encoding="utf-8")

    budget = max(given.budget_seconds - RESERVED_SECONDS, 0.0)
    outcomes = run_stages(
        planned, given.out, budget_seconds=budget, reserved_seconds=RESERVED_SECONDS, say=say, keep=keep
    )
    rows = rows_of(given.out)
    say("\n" + table(rows, outcomes))
    right = all(row["met"] for row in judged(given.out / "correctness"))
    return 0 if right and all(one.status == "done" for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
