"""Our CPU timer beside torch.utils.benchmark, alternating in one run, and beside itself: python -m
tests.benchmarks.timers.

The goals: within 3 % of torch's, two runs of ours within 5 %. On a machine with other work neither
says anything.
"""

import statistics

import torch
from torch.utils.benchmark import Timer

from suite.inputs.draws import Draw
from suite.timing import cpu

ROUNDS, SECONDS = 9, 0.3
SHAPES = ((64, 256), (256, 1024), (1024, 4096))


def main() -> None:
    torch.set_num_threads(1)
    print(f"medians of {ROUNDS} rounds")
    print(f"{'softmax of':<14}{'ours, us':>12}{'torch, us':>12}{'ours / torch':>14}{'ours / ours':>13}")
    for shape in SHAPES:
        x = torch.from_numpy(Draw(f"timers|{shape}").normal(*shape)).float()
        timer = Timer("torch.softmax(x, -1)", globals={"torch": torch, "x": x}, num_threads=1)
        ours, theirs, again = [], [], []
        for _ in range(ROUNDS):
            ours.append(seconds(x))
            theirs.append(timer.blocked_autorange(min_run_time=SECONDS).median)
            again.append(seconds(x))
        beside_torch = statistics.median((a + b) / 2 / c for a, b, c in zip(ours, again, theirs, strict=True))
        beside_ours = statistics.median(a / b for a, b in zip(ours, again, strict=True))
        print(
            f"{'x'.join(map(str, shape)):<14}{statistics.median(ours) * 1e6:>12.2f}{statistics.median(theirs) * 1e6:>12.2f}"
            f"{beside_torch:>14.3f}{beside_ours:>13.3f}"
        )


def seconds(x: torch.Tensor) -> float:
    return cpu.measure(lambda: torch.softmax(x, -1), budget_seconds=SECONDS, target=0.0).median.value


if __name__ == "__main__":
    main()
