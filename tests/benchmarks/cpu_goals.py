"""Own kernels beside others on this CPU, taking turns in one run: python -m tests.benchmarks.cpu_goals.

The goals: an online softmax through torch.compile at least 0.9 of torch.softmax's speed at 4096 x
4096 in float32; chunked attention at least as fast as naive at 4096 queries and keys, with a tenth
of its memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from suite.inputs.draws import Draw
from suite.kernels import own_kernels
from suite.kernels.parts.compiled import compiled
from suite.timing import memory

ROUNDS = 21
SIDE, HEADS, HEAD_SIZE = 4096, 2, 64


def main() -> None:
    parser = argparse.ArgumentParser(description="Own kernels beside others on this CPU.")
    parser.add_argument("--short", action="store_true", help="one round")
    rounds = 1 if parser.parse_args().short else ROUNDS
    torch.set_num_threads(1)
    softmax, attention = own_kernels("softmax"), own_kernels("attention")
    x = torch.from_numpy(Draw("goals|softmax").normal(SIDE, SIDE)).float()
    through_compile = {name: compiled(softmax[name].call) for name in ("two_pass", "online_tree")}
    show(
        f"softmax {SIDE} x {SIDE}, float32",
        {
            "torch.softmax": lambda: torch.softmax(x, -1),
            "compiled": lambda: softmax["compiled"].call(x),
            "online_compiled": lambda: softmax["online_compiled"].call(x),
            **{
                f"{name}, compiled": (lambda graph=graph: graph(x, -1))
                for name, graph in through_compile.items()
            },
        },
        rounds,
    )
    q, k, v = (
        torch.from_numpy(Draw(f"goals|{name}").normal(1, HEADS, SIDE, HEAD_SIZE)).float() for name in "qkv"
    )
    calls = {name: (lambda call=attention[name].call: call(q, k, v)) for name in ("naive", "chunked")}
    show(f"attention, {HEADS} heads of {HEAD_SIZE}, {SIDE} queries and keys, float32", calls, rounds)
    peaks = {name: memory.peak_bytes(call) for name, call in calls.items()}
    print(
        "peak memory beside inputs and output: "
        + ", ".join(f"{name} {peak / 1e6:.1f} MB" for name, peak in peaks.items())
    )


def show(title: str, calls: Mapping[str, Callable[[], object]], rounds: int) -> None:
    """Prints each call's median time, and its speed as a share of the first one's: the median of
    the ratios of a round.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    base = seconds[next(iter(calls))]
    print(f"{title}, medians of {rounds} rounds")
    for name, own in seconds.items():
        ratios = sorted(a / b for a, b in zip(base, own, strict=True))
        middle = f"{ratios[rounds // 4]:.3f} ... {ratios[-1 - rounds // 4]:.3f}"
        speed = f"speed {statistics.median(ratios):.3f}, half of them {middle}"
        print(f"  {name:<26}{statistics.median(own) * 1e3:>9.2f} ms   {speed}")


if __name__ == "__main__":
    main()
