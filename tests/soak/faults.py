"""300 faults in one run: each gets its status, no record is lost, and every other record is that of
an undisturbed run.

    python -m tests.soak.faults

One run of `softmax-suite run` judges this suite's own kernels, in process, beside kernels from
outside, each in a process of its own; a second one is the same, but for faults of all kinds of
tests/crashing_kernels.py at seeded places, at most two in a row for a kernel, as three set it
aside. A fault is tied to the bits of an input, so that the plan holds in any process and order;
where the case has a law that repeats the call, one that ends the process comes at that call only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.records.record import Record
from suite.records.store import read_run
from tests.crashing_kernels import KINDS, PLAN, Kind, digest, fast_math_library

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "tests" / "crashing_kernels.py"
OUTSIDE = {
    "planned_softmax": "softmax",
    "planned_naive_softmax": "softmax",
    "planned_log_softmax": "log_softmax",
    "planned_logsumexp": "logsumexp",
    "planned_cross_entropy": "cross_entropy",
}
OWN = ("shifted",)
REPEATING = {"batch", "canaries", "repeat", "replay", "written"}
"""The laws that call again with the case's own input; batch asks nothing of rows with targets."""

ENDING = ("crashed", "timed_out", "out_of_memory")
GONE_SECONDS = 3.0
TIMES = ("started", "seconds")
Planned = dict[str, tuple[str, int]]
"""Of record ids: which kind of fault, at which sight of the input."""


@dataclass
class Found:
    """What came of the faults."""

    kinds: Counter[str] = field(default_factory=Counter)
    right: int = 0
    in_laws: int = 0
    evaluations: int = 0
    lost: int = 0
    changed: int = 0
    left: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return sum(self.kinds.values())

    @property
    def missed(self) -> bool:
        return bool(self.problems or self.lost or self.changed or self.left or self.right < self.faults)

    def line(self) -> str:
        return (
            f"{self.faults} faults of {len(self.kinds)} kinds over {self.evaluations:,} evaluations: "
            f"{self.right} right statuses ({self.in_laws} at a law's call), {self.lost} lost records, "
            f"{self.changed} changed verdicts elsewhere, {self.left} processes left, {self.seconds:.0f} s"
        )


def soak(
    folder: Path, *, faults: int, timeout: float, arguments: list[str], outside: list[str], seed: int = 0
) -> Found:
    """Runs twice in `folder`, without and with the faults. arguments: of `run`, less its kernels
    from outside.
    """
    fast_math_library()
    command = [*arguments, "--memory=0.25", f"--timeout={timeout}"]
    kernels = shutil.copy(KERNELS, folder)  # which nobody edits while it runs
    command += [f"--kernel={kernels}:{name}" for name in outside]
    found = Found()
    before = _run(folder, command, "undisturbed", {}, found)
    planned = plan(before, faults, random.Random(seed))
    by_kernel: dict[str, dict[str, tuple[str, int]]] = defaultdict(dict)
    for record in before:
        if record.id in planned:
            by_kernel[_function(record)][_first_input(record)] = planned[record.id]
    started = time.monotonic()
    after = {record.id: record for record in _run(folder, command, "disturbed", by_kernel, found)}
    found.seconds = time.monotonic() - started
    found.evaluations = sum(record.status != "unsupported" for record in before)
    for record in before:
        _compare(record, after.get(record.id), planned.get(record.id), found)
    return found


def plan(records: list[Record], faults: int, draw: random.Random) -> Planned:
    """Which evaluations of kernels from outside, in their order, get which fault: every kind as
    often as any other.
    """
    candidates = _candidates(records)
    if faults > len(candidates):
        raise ValueError(f"{faults} faults do not fit into {len(candidates)} evaluations")
    order = list(KINDS) * (faults // len(KINDS) + 1)
    waiting = order[:faults]
    draw.shuffle(waiting)
    draw.shuffle(candidates)
    places = {
        record.id: place for _, group in _by_kernel(records).items() for place, record in enumerate(group)
    }
    taken: dict[str, set[int]] = defaultdict(set)
    planned: Planned = {}
    for record in candidates:
        if not waiting:
            break
        place, own = places[record.id], taken[record.kernel]
        in_a_row = 1 + _run_length(own, place, -1) + _run_length(own, place, 1)
        kind = waiting[-1]
        if in_a_row > 2 or (KINDS[kind].status == "nonfinite" and not record.family.startswith("normal")):
            continue
        waiting.pop()
        own.add(place)
        repeating = REPEATING - {"batch"} if record.op == "cross_entropy" else REPEATING
        again = KINDS[kind].status in ENDING and repeating & set(record.laws)
        planned[record.id] = kind, 2 if again else 1
    if waiting:
        raise ValueError(f"{len(waiting)} of {faults} faults found no place")
    return planned


def _candidates(records: list[Record]) -> list[Record]:
    """Passed evaluations of kernels from outside, less those whose input another evaluation of the
    kernel has too.
    """
    inputs = Counter(
        (r.kernel, r.op, _first_input(r)) for r in records if r.outside and r.status != "unsupported"
    )
    return [
        r
        for r in records
        if r.outside
        and r.status == "passed"
        and 0 not in r.shape
        and inputs[r.kernel, r.op, _first_input(r)] == 1
    ]


def _by_kernel(records: list[Record]) -> dict[str, list[Record]]:
    """The evaluations that call a kernel, in their order."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.outside and record.status != "unsupported":
            found[record.kernel].append(record)
    return found


def _run_length(taken: set[int], place: int, step: int) -> int:
    length = 0
    while place + step * (length + 1) in taken:
        length += 1
    return length


_INPUTS: dict[tuple[str, str], str] = {}


def _first_input(record: Record) -> str:
    """The digest of the logits of the first call."""
    from suite.case import Case
    from suite.formats import get_format
    from suite.tensors import to_torch

    key = record.case, record.dtype
    if key not in _INPUTS:
        format = get_format(record.dtype)
        logits = next(iter(Case.from_id(record.case).inputs(format).values()))
        _INPUTS[key] = digest(to_torch(logits, format))
    return _INPUTS[key]


def _function(record: Record) -> str:
    return record.kernel.rpartition(":")[2]


def _run(folder: Path, command: list[str], name: str, planned: Any, found: Found) -> list[Record]:
    """The records of a run, in their order; what went wrong with it is added to `found`."""
    place = folder / name
    place.mkdir()
    (place / "plan.json").write_text(json.dumps(planned))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", PLAN: str(place)}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "suite", "run", *command, f"--out={place / 'run'}"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        code = process.wait()
    if code not in (0, 1):
        found.problems.append(
            f"the {name} run exited with {code}: {(folder / f'{name}.log').read_text()[-500:]}"
        )
    deadline = time.monotonic() + GONE_SECONDS
    while (left := _left(place)) and time.monotonic() < deadline:
        time.sleep(0.05)
    found.left += len(left)
    return list(read_run(place / "run").records)


def _left(place: Path) -> list[str]:
    """The ids of processes that were started by the run with this plan and are still there."""
    marker, left = f"{PLAN}={place}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (folder / "environ").read_bytes().split(b"\0"):
                left.append(folder.name)
        except OSError:
            continue  # it has ended, or is somebody else's
    return left


def _compare(before: Record, after: Record | None, fault: tuple[str, int] | None, found: Found) -> None:
    if fault is not None:
        found.kinds[fault[0]] += 1
    if after is None:
        found.lost += 1
        found.problems.append(f"lost: {before.kernel} {before.case} {before.dtype}")
        return
    kind = KINDS[fault[0]] if fault is not None else None
    if fault is None or kind is None or kind.status is None:
        differing = _differing(before, after, () if fault is None else ("output",))
        if differing:
            found.problems.append(f"changed: {before.kernel} {before.case} {before.dtype}: {differing}")
        if fault is None:
            found.changed += bool(differing)
        else:
            found.right += not differing and "bytes before this" in after.outcome.output
        return
    if _is_right(after, kind, fault[1]):
        found.right += 1
        found.in_laws += fault[1] > 1
    else:
        found.problems.append(
            f"{fault}: {before.case} {before.dtype} is {after.status}, not {kind.status}: {after.message}"
        )


def _is_right(record: Record, kind: Kind, at: int) -> bool:
    in_law = "  law " in record.message
    return record.status == kind.status and kind.words in record.message and (in_law or at == 1)


def _differing(before: Record, after: Record, but: tuple[str, ...]) -> str:
    """The fields that differ, times apart."""
    then, now = before.to_dict(), after.to_dict()
    names = [name for name in then if name not in (*TIMES, *but) and then[name] != now[name]]
    return "; ".join(f"{name}: {then[name]!r:.200} then, {now[name]!r:.200} now" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=300, help="how many faults (default: 300)")
    parser.add_argument(
        "--timeout", type=float, default=1.0, help="--timeout of the runs, in seconds (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the places (default: 0)")
    parser.add_argument("--short", action="store_true", help="a tenth of the faults")
    options = parser.parse_args()
    if options.short:
        options.faults //= 10
    arguments = ["--profile=quick", *(f"--kernel={name}" for name in OWN)]
    with tempfile.TemporaryDirectory(prefix="softmax-suite-faults-") as folder:
        found = soak(
            Path(folder),
            faults=options.faults,
            timeout=options.timeout,
            arguments=arguments,
            outside=list(OUTSIDE),
            seed=options.seed,
        )
    for name, count in sorted(found.kinds.items()):
        print(f"{count:4} {name:<32} {KINDS[name].status or 'as without':<14} {KINDS[name].because}")
    for problem in found.problems[:50]:
        print(problem)
    print(found.line())
    sys.exit(found.missed)


if __name__ == "__main__":
    main()
