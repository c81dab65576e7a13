"""kill -9 at random moments, then --resume: nothing that was recorded is lost, and the records are
those of an undisturbed run.

    python -m tests.soak.kills --kills 200

A life is one `run`, killed with everything that it started; lives follow each other in one folder
until one ends by itself. Cold lives are new interpreters and judge a kernel from outside beside one
of ours; warm ones are forked from this process, which has imported everything, and judge two of
ours: the same command in a tenth of the time. In one of four cold lives only the first process is
killed, and what it started must go away by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.records.store import read_run

ROOT = Path(__file__).parent.parent.parent
TOKEN = "SOFTMAX_SUITE_SOAK"
GONE_SECONDS = 5.0
KERNEL = "import torch\n\ndef outside(x, dim=-1):\n    return torch.softmax(x, dim)\n"
Fields = dict[str, Any]
SELECTION = ("--op=softmax", "--profile=smoke", "--dtype=float32", "--dtype=bfloat16", "--kernel=shifted")


@dataclass
class Count:
    """What was found so far."""

    kills: int = 0
    cold: int = 0
    alone: int = 0
    before_records: int = 0
    series: int = 0
    records: int = 0
    torn: int = 0
    lost: int = 0
    changed: int = 0
    twice: int = 0
    left: int = 0
    wrong_exit: list[str] = field(default_factory=list)

    @property
    def missed(self) -> bool:
        return bool(self.lost or self.changed or self.twice or self.left or self.wrong_exit)


class ColdLife:
    """A run in a new interpreter. Whatever it starts, in whatever session, has its token in the
    environment.
    """

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.token = secrets.token_hex(8)
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "suite", *arguments],
                cwd=log.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT), TOKEN: self.token},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def exit_code(self) -> int | None:
        return self.process.poll()

    def members(self) -> list[int]:
        """The ids of the processes of this life that are alive."""
        marker, found = f"{TOKEN}={self.token}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                if alive and marker in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue  # it has ended, or is somebody else's
        return found

    def kill(self, *, alone: bool) -> int:
        """Kills this life, or only its first process; returns how many processes then did not go away."""
        if alone:
            self.process.kill()
        else:
            for process in self.members():
                _kill(process)
        self.process.wait()
        deadline = time.monotonic() + GONE_SECONDS
        while (left := self.members()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for process in left:
            _kill(process)
        return len(left)


class WarmLife:
    """A run in a fork of this process."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._status: int | None = None
        self.process = os.fork()
        if self.process == 0:
            _live(arguments, log)

    def exit_code(self) -> int | None:
        if self._status is None:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status

    def kill(self, *, alone: bool) -> int:
        _kill(self.process)
        os.waitpid(self.process, 0)
        return 0


def _live(arguments: list[str], log: Path) -> None:
    """Runs the command in this fork, which ends with it."""
    from suite.commands.main import main

    code = 99
    try:
        os.setsid()
        os.chdir(log.parent)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 99
    finally:
        sys.stdout.flush()
        os._exit(code)


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


Life = ColdLife | WarmLife


def _written(folder: Path) -> dict[str, bytes]:
    """The whole lines of each record file."""
    found = {}
    for path in folder.glob("records-*.jsonl"):
        content = path.read_bytes()
        found[path.name] = content[: content.rfind(b"\n") + 1]
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("records-*.jsonl"))


def _records(folder: Path) -> dict[str, Fields]:
    """The records by id as they are written, times apart."""
    return {
        record.id: {**record.to_dict(), "started": "", "seconds": 0} for record in read_run(folder).records
    }


def undisturbed(kind: type[Life], arguments: list[str], folder: Path) -> tuple[dict[str, Fields], int, float]:
    """(records, exit code, seconds to the first record) of a run that nobody kills."""
    started, first = time.monotonic(), 0.0
    life = kind([*arguments, f"--out={folder}"], folder.with_suffix(".log"))
    while life.exit_code() is None:
        time.sleep(0.005)
        first = first or (time.monotonic() - started if _size(folder) else 0.0)
    code = life.exit_code()
    assert code is not None
    return _records(folder), code, first


def series(
    kind: type[Life],
    arguments: list[str],
    folder: Path,
    expected: tuple[dict[str, Fields], int, float],
    count: Count,
    kills: int,
    draw: random.Random,
) -> None:
    """Lives in one folder until one ends by itself, at most `kills` of them killed; compares what
    is there then.
    """
    records, exit_code, first_seconds = expected
    seen: dict[str, bytes] = {}
    while True:
        resume = ["--resume"] if (folder / "run.json").is_file() else []
        begun = _size(folder)
        life = kind([*arguments, f"--out={folder}", *resume], folder.with_suffix(".log"))
        if kills and draw.random() < 0.25:  # at any moment, most of them before the first record of this life
            moment = time.monotonic() + draw.uniform(0, 1.2 * first_seconds)
            while life.exit_code() is None and time.monotonic() < moment:
                time.sleep(0.001)
        elif kills:  # while it records
            enough = begun + draw.randrange(1, 25_000)
            while life.exit_code() is None and _size(folder) < enough:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.01))
        while not kills and life.exit_code() is None:
            time.sleep(0.01)
        seen |= _written(folder)
        code = life.exit_code()
        if code is not None:
            break
        alone = kind is ColdLife and draw.random() < 0.25
        count.left += life.kill(alone=alone)
        kills -= 1
        count.kills += 1
        count.cold += kind is ColdLife
        count.alone += alone
        count.before_records += _size(folder) == begun
    count.series += 1
    _compare(folder, records, seen, count)
    if code != exit_code:
        text = folder.with_suffix(".log").read_text(errors="replace").strip()[-400:]
        count.wrong_exit.append(f"exit code {code} in place of {exit_code}: {text}")


def _compare(folder: Path, records: dict[str, Fields], seen: dict[str, bytes], count: Count) -> None:
    """Counts what was lost, is not as in the undisturbed run, or was evaluated twice."""
    for name, before in seen.items():
        path = folder / name
        if not path.is_file() or not path.read_bytes().startswith(before):
            count.lost += before.count(b"\n")
    found = _records(folder)
    count.records += len(found)
    count.changed += sum(found.get(id) != record for id, record in records.items()) + len(
        found.keys() - records.keys()
    )
    ids = []
    for path in folder.glob("records-*.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                ids.append(json.loads(line)["id"])
            except ValueError:
                count.torn += 1
    count.twice += len(ids) - len(set(ids))


def _wake() -> None:
    """Imports what a run imports, so that warm lives find it."""
    import jinja2  # noqa: F401
    import pandas  # noqa: F401
    import rich.progress  # noqa: F401
    import torch

    import suite.report.html
    import suite.session  # noqa: F401
    from suite.case import Case
    from suite.execution.evaluation import evaluate
    from suite.kernels import own_kernels

    torch.set_num_threads(1)
    # Torch imports much when memory is guarded.
    case = Case.from_id("softmax/normal/4x4/s0", laws=("written", "canaries"))
    evaluate(case, own_kernels("softmax")["shifted"])


def main() -> int:
    """Kills, prints one line of numbers, and returns 1 where one of them is not what it must be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--cold", type=int, help="how many of them in new interpreters (default: a quarter)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="a tenth of the kills")
    given = parser.parse_args()
    if given.short:
        given.kills //= 10
    cold = given.kills // 4 if given.cold is None else given.cold
    started, draw, count = time.monotonic(), random.Random(given.seed), Count()
    place = Path(tempfile.mkdtemp(prefix="softmax-suite-kills-"))
    (place / "outside.py").write_text(KERNEL)
    _wake()
    for kind, kernel, kills in (
        (ColdLife, f"{place}/outside.py:outside", cold),
        (WarmLife, "naive", given.kills - cold),
    ):
        arguments = ["run", *SELECTION, f"--kernel={kernel}"]
        expected = undisturbed(kind, arguments, place / f"{kind.__name__}") if kills else None
        end = count.kills + kills
        while expected is not None and count.kills < end:
            folder = place / f"{kind.__name__}-{count.series}"
            series(kind, arguments, folder, expected, count, end - count.kills, draw)
            shutil.rmtree(folder)
    shutil.rmtree(place)
    print(
        f"{count.kills} kills ({count.cold} cold, {count.alone} of the first process only;"
        f" {count.before_records} before a record) in {count.series} runs of"
        f" {count.records // max(count.series, 1)} records: {count.lost} lost, {count.changed} changed,"
        f" {count.twice} evaluated twice, {count.torn} torn lines, {count.left} processes left,"
        f" {len(count.wrong_exit)} wrong exit codes; seed {given.seed}, {time.monotonic() - started:.0f} s"
    )
    for line in count.wrong_exit[:3]:
        print(line)
    return 1 if count.missed else 0


if __name__ == "__main__":
    sys.exit(main())
