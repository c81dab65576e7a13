"""What a process of its own costs a kernel: a run with it against one without, and the time until a
dead one is replaced.

    python -m tests.soak.isolation

The cost is that of softmax's quick profile in every dtype for one kernel from outside, `--isolate
outside` against `--isolate never`, in turn, with the references in the cache: of the whole command,
and of its evaluations alone. A restart is timed from the call that kills the process to the answer
of the next call, the kernel's file loaded again in between.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
KERNEL = """
import os
import torch

def right(x, dim=-1):
    if x.shape == (2, 3) and bool((x == 12345.0).all()):
        os.kill(os.getpid(), 9)
    return torch.softmax(x, dim)
"""
METHODS = ("never", "outside")

SHARE = 0.15
MILLISECONDS = 3.0
RESTART_SECONDS = 0.1
"""What none of the numbers may reach."""


def measured(method: str, kernel: str) -> tuple[float, float, int]:
    """(seconds of the command, seconds of its evaluations, how many they were) of a run in a new
    interpreter.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", "tests.soak.isolation", "--one", method, "--kernel", kernel]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - started
    inside, evaluations = json.loads(output.stdout.splitlines()[-1])
    return seconds, inside, evaluations


def one(method: str, kernel: str) -> None:
    """The command `run`, with a clock around every evaluation."""
    from suite.session import Request, Session

    seconds, evaluate = [], Session.evaluate

    def timed(*arguments):
        start = time.perf_counter()
        record = evaluate(*arguments)
        if record.status != "unsupported":
            seconds.append(time.perf_counter() - start)
        return record

    Session.evaluate = timed
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            profile="quick", ops=("softmax",), kernels=(kernel,), isolate=method, out=Path(folder) / "run"
        )
        with Session(request) as session:
            result = session.run()
    if result.exit_code not in (0, 1):  # 1: torch's softmax itself has failures
        sys.exit(f"the run with --isolate {method} exited with {result.exit_code}")
    print(json.dumps([sum(seconds), len(seconds)]))


def restarts(kernel: str, count: int) -> list[float]:
    """Seconds from a call that kills its process to the answer of the next."""
    import torch

    from suite.execution.host import Call
    from suite.execution.hosts import Hosts

    def status(x: torch.Tensor) -> str | None:
        # call() sets aside after three.
        [outcome] = host.submit(loaded, [Call({"x": x}, {"dim": -1})], limit_seconds=60)
        return outcome.status

    torch.set_num_threads(1)
    deadly, harmless, seconds = torch.full((2, 3), 12345.0), torch.zeros(2, 3), []
    with Hosts() as hosts:
        [loaded] = hosts.load(kernel, "softmax")
        host = hosts.of(loaded)
        for _ in range(count):
            assert status(harmless) is None
            start = time.perf_counter()
            died, after = status(deadly), status(harmless)
            seconds.append(time.perf_counter() - start)
            assert (died, after) == ("crashed", None)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="how many pairs of runs (default: 5)")
    parser.add_argument("--restarts", type=int, default=50, help="how many restarts (default: 50)")
    parser.add_argument(
        "--short",
        action="store_true",
        help="one pair and five restarts, whose times are not held to the goals",
    )
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--kernel", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(options.one, options.kernel)
    if options.short:
        options.pairs, options.restarts = 1, 5
    with tempfile.TemporaryDirectory(prefix="softmax-suite-isolation-") as folder:
        path = Path(folder) / "kernel.py"
        path.write_text(KERNEL)
        kernel = f"{path}:right"
        measured("never", kernel)  # fills the cache of references
        pairs = [[measured(method, kernel) for method in METHODS] for _ in range(options.pairs)]
        replaced = restarts(kernel, options.restarts)
    missed = False
    evaluations = pairs[0][0][2]
    for place, what in enumerate(("whole command", "evaluations alone")):
        here, elsewhere = (statistics.median(pair[i][place] for pair in pairs) for i in (0, 1))
        share, milliseconds = elsewhere / here - 1, 1000 * (elsewhere - here) / evaluations
        print(
            f"{what}: {here:.3f} s in process, {elsewhere:.3f} s isolated; medians of {len(pairs)},"
            f" {evaluations} evaluations: {share:+.1%}, {milliseconds:+.2f} ms a case"
        )
        missed |= share >= SHARE or milliseconds >= MILLISECONDS
    middle, longest = statistics.median(replaced), max(replaced)
    print(f"restart: median {middle:.3f} s, longest {longest:.3f} s of {len(replaced)}")
    sys.exit(not options.short and (missed or longest >= RESTART_SECONDS))


if __name__ == "__main__":
    main()
