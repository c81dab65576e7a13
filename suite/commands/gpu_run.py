"""`gpu-run`: a whole run on a GPU, inside a budget of time.

    references -> facts -> correctness -> merge -> timers -> goals -> tuning -> bench -> report

Each stage is processes of its own, so a fault of the device ends a stage and not the run. A stage
that fails is named in the table at the end. docs/gpu.md says how to prepare a machine without
network.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from suite.commands.options import (
    DEVICE_TO_MEASURE,
    FILE,
    FOLDER,
    POSITIVE,
    misuse,
    ops_option,
    profile_option,
)
from suite.commands.stages import Outcome, Stage, run_stages
from suite.execution.isolation import MOST_THREADS
from suite.records.configuration import ALL, read_configuration
from suite.records.record import summary_class
from suite.records.store import latest, read_records

RESERVED_SECONDS = 20.0
"""Of the budget, for merge and report."""

TUNING = 0.25
"""Of the budget, for candidates; the last one of a kernel, and its rounds, may take longer."""

SUITE = (sys.executable, "-m", "suite")


@click.command("gpu-run")
@click.option("--out", type=FOLDER, required=True, metavar="DIR", help="A new folder, for all results.")
@click.option("--device", default="cuda", show_default=True, help=DEVICE_TO_MEASURE)
@click.option("--references", type=FILE, metavar="FILE.npz", help="What softmax-suite references made.")
@profile_option("quick", "Of correctness and of bench.", choices=("smoke", "quick"))
@ops_option("Judge and bench only this op; may be repeated.")
@click.option("--budget-seconds", type=POSITIVE, default=540.0, show_default=True, metavar="S")
@click.option(
    "--jobs",
    type=click.IntRange(1, MOST_THREADS),
    default=min(8, max((os.cpu_count() or 1) // 2, 1)),
    show_default=True,
    help="How many processes judge side by side.",
)
@click.option("--tune", is_flag=True, help="Also time the configurations of Triton's kernels.")
def command(out: Path, device: str, references: Path | None, budget_seconds: float, **asked: Any) -> None:
    """Runs everything on one GPU inside a budget of time, and prints the table.

    Exit code 1 where a stage did not end well or an evaluation failed: goals inform.
    """
    if references is not None and not references.is_file():
        misuse(f"--references {str(references)!r} is no file")
    from suite.studies.gpu_goals import unusable  # and torch, which takes seconds

    if reason := unusable(device):
        misuse(f"--device {device}{reason}")
    _make_folder(out)
    planned = stages(out, device=device, references=references, budget_seconds=budget_seconds, **asked)

    def keep(outcomes: Sequence[Outcome]) -> None:
        data = {"rows": rows_of(out), "stages": [asdict(one) for one in outcomes]}
        (out / "gpu_run.json").write_text(json.dumps(data, indent=1), encoding="utf-8")

    budget = max(budget_seconds - RESERVED_SECONDS, 0.0)
    outcomes = run_stages(
        planned, out, budget_seconds=budget, reserved_seconds=RESERVED_SECONDS, say=click.echo, keep=keep
    )
    click.echo("\n" + table(rows_of(out), outcomes))
    right = all(row["met"] for row in judged(out / "correctness"))
    sys.exit(0 if right and all(one.status == "done" for one in outcomes) else 1)


def _make_folder(out: Path) -> None:
    """Makes the folder of the results; misuse where something is in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        misuse(f"--out {str(out)!r} cannot be made: {error.strerror}")
    if any(out.iterdir()):
        misuse(f"--out {str(out)!r} is not empty; name a new folder")


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

    def measuring(*words: str, into: str) -> tuple[tuple[str, ...], ...]:
        return ((*SUITE, *words, f"--device={device}", "--out", str(out / into)),)

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
        Stage(name="facts", commands=measuring("gpu-goals", "facts", into="facts.json"), share=0.1),
        Stage(name="correctness", commands=judging, share=0.45, good=(0, 1, 3), environment=sharing(jobs)),
        Stage(name="merge", commands=merging, good=(0, 1, 3), runs=shards, reserved=True),
        Stage(name="timers", commands=measuring("gpu-goals", "timers", into="timers.json"), share=0.15),
        Stage(name="goals", commands=measuring("gpu-goals", "goals", into="goals.json"), share=0.3),
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
