"""Our CPU timer beside torch.utils.benchmark, alternating in one run, and beside itself: python -m
tests.benchmarks.timers.

The goals: within 3 % of torch's, two runs of ours within 5 %. On a machine with other work neither
says anything.
"""

import argparse
import statistics

import torch
from torch.utils.benchmark import Timer

from suite.inputs.draws import Draw
from suite.timing import cpu

ROUNDS, SECONDS = 9, 0.3
SHAPES = ((64, 256), (256, 1024), (1024, 4096))


def main() -> None:
    parser = argparse.ArgumentParser(description="Our CPU timer beside torch's, and beside itself.")
    parser.add_argument("--short", action="store_true", help="one round, a tenth as long")
    short = parser.parse_args().short
    rounds, budget = (1, SECONDS / 10) if short else (ROUNDS, SECONDS)
    torch.set_num_threads(1)
    print(f"medians of {rounds} rounds")
    print(f"{'softmax of':<14}{'ours, us':>12}{'torch, us':>12}{'ours / torch':>14}{'ours / ours':>13}")
    for shape in SHAPES:
        x = torch.from_numpy(Draw(f"timers|{shape}").normal(*shape)).float()
        timer = Timer("torch.softmax(x, -1)", globals={"torch": torch, "x": x}, num_threads=1)
        ours, theirs, again = [], [], []
        for _ in range(rounds):
            ours.append(seconds(x, budget))
            theirs.append(timer.blocked_autorange(min_run_time=budget).median)
            again.append(seconds(x, budget))
        beside_torch = statistics.median((a + b) / 2 / c for a, b, c in zip(ours, again, theirs, strict=True))
        beside_ours = statistics.median(a / b for a, b in zip(ours, again, strict=True))
        print(
            f"{'x'.join(map(str, shape)):<14}{statistics.median(ours) * 1e6:>12.2f}"
            f"{statistics.median(theirs) * 1e6:>12.2f}{beside_torch:>14.3f}{beside_ours:>13.3f}"
        )


def seconds(x: torch.Tensor, budget: float) -> float:
    return cpu.measure(lambda: torch.softmax(x, -1), budget_seconds=budget, target=0.0).median.value


if __name__ == "__main__":
    main()
