"""Two shards side by side against one run of the same cases, and the records of both ways.

    python -m tests.soak.shards

One run and two shards take turns, `--rounds` times with a warm cache of references and as often
with an empty one for every run. The ratio is of the median times: of one run, and of two shards
until the second has ended. It must be at least 1.7 where 2 cores are free, and the merged records
those of the one run, times apart.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.records.store import read_run

ROOT = Path(__file__).parent.parent.parent
WANTED = 1.7


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records by id as they are written, times apart."""
    return {
        record.id: {**record.to_dict(), "started": "", "seconds": 0} for record in read_run(folder).records
    }


@dataclass(frozen=True)
class Times:
    """Of runs side by side, each: seconds until it ended, and seconds of processor time that it and
    its children took.
    """

    wall: list[float]
    processor: list[float]


def run(words: list[str], folders: dict[Path, str], cache: Path) -> Times:
    """Runs side by side: run folder -> shard."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOFTMAX_SUITE_CACHE": str(cache)}
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "suite", "run", *words, f"--shard={shard}", f"--out={folder}"],
            cwd=folder.parent,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for folder, shard in folders.items()
    ]
    times = Times([0.0] * len(processes), [0.0] * len(processes))
    while not all(times.wall):
        time.sleep(0.01)
        for number, process in enumerate(processes):
            if times.wall[number]:
                continue
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(status)
                times.wall[number] = time.monotonic() - started
                times.processor[number] = used.ru_utime + used.ru_stime
    bad = [process.returncode for process in processes if process.returncode not in (0, 1)]
    if bad:
        raise SystemExit(f"a run ended with exit code {bad[0]}: {' '.join(words)}")
    return times


def compare(words: list[str], place: Path, *, rounds: int, cold: bool, wanted: float) -> bool:
    """Measures and prints one line; whether it is as it must be."""
    one, two = list[Times](), list[Times]()
    whole, parts = place / "whole", [place / "part1", place / "part2"]
    shared = place / "cache"
    if not cold:
        run(words, {place / "warming": "1/1"}, shared)
    for number in range(rounds):
        for turn in ("one", "two") if number % 2 == 0 else ("two", "one"):
            cache = Path(tempfile.mkdtemp(dir=place)) if cold else shared
            if turn == "one":
                shutil.rmtree(whole, ignore_errors=True)
                one.append(run(words, {whole: "1/1"}, cache))
            else:
                for part in parts:
                    shutil.rmtree(part, ignore_errors=True)
                two.append(run(words, {part: f"{i}/2" for i, part in enumerate(parts, start=1)}, cache))
    joined = place / "joined"
    merging = [sys.executable, "-m", "suite", "merge", *map(str, parts), "--out", str(joined)]
    started = time.monotonic()
    merged = subprocess.run(merging, cwd=ROOT, capture_output=True, text=True, check=False)
    if merged.returncode not in (0, 1) or "gap" in merged.stderr or "contradiction" in merged.stderr:
        raise SystemExit(f"merge ended with exit code {merged.returncode}: {merged.stderr}")
    seconds = time.monotonic() - started
    expected, found = records(whole), records(joined)
    changed = sum(found.get(id) != record for id, record in expected.items()) + len(
        found.keys() - expected.keys()
    )
    alone, shared_by_two = (statistics.median(max(times.wall) for times in way) for way in (one, two))
    shares = [len(read_run(part).records) for part in parts]
    used = [
        statistics.median(times.processor[number] for times in way)
        for way, number in ((one, 0), (two, 0), (two, 1))
    ]
    print(
        f"{'cold' if cold else 'warm'} cache: one run {alone:.1f} s, two shards {shared_by_two:.1f} s:"
        f" {alone / shared_by_two:.2f} times as fast (medians of {rounds}; {shares[0]:,} and {shares[1]:,}"
        f" records; processor time {used[0]:.1f} s against {used[1]:.1f} and {used[2]:.1f} s; merge"
        f" {seconds:.1f} s); {len(found):,} merged records, {changed} unlike the one run's",
        flush=True,
    )
    for folder in place.iterdir():
        shutil.rmtree(folder)
    return alone / shared_by_two >= wanted and not changed


def main() -> int:
    """Prints a line for a warm and one for a cold cache; 1 where a ratio or the records are not
    what they must be.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--op", action="append", help="default: softmax and log_softmax")
    parser.add_argument("--dtype", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", choices=["warm", "cold", "both"], default="both")
    parser.add_argument(
        "--short", action="store_true", help="one round of one op in one format, not held to the ratio"
    )
    given = parser.parse_args()
    if given.short:
        given.op, given.dtype, given.rounds, given.cache = ["logsumexp"], ["bfloat16"], 1, "warm"
    ops = given.op or ["softmax", "log_softmax"]
    words = [
        *(f"--op={op}" for op in ops),
        f"--profile={given.profile}",
        "--no-measure",
        *(f"--dtype={d}" for d in given.dtype),
    ]
    place = Path(tempfile.mkdtemp(prefix="softmax-suite-shards-"))
    print(
        f"softmax-suite run {' '.join(words)}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before",
        flush=True,
    )
    try:
        chosen = [cold for cold, name in ((False, "warm"), (True, "cold")) if given.cache in (name, "both")]
        wanted = 0.0 if given.short else WANTED
        good = [compare(words, place, rounds=given.rounds, cold=cold, wanted=wanted) for cold in chosen]
    finally:
        shutil.rmtree(place)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
