"""`python -m tests.honest` (make honest): how near correct kernels come to their bounds. None may fail.

20 seeds, some minutes an op: python -m tests.honest --seeds 20 --op softmax
"""

from __future__ import annotations

import argparse
import sys

from suite.case import DIRECTIONS
from suite.formats import DTYPES
from suite.ops import NAMES, row_ops
from tests.honest.judged import found, kernels_of
from tests.honest.rows import KERNELS
from tests.share import share


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Judges every honest kernel on every family; prints the largest ratios."
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--every", type=int, default=1, help="of attention's cases, one in so many for each kernel and seed"
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[2, 17, 33, 130, 257])
    parser.add_argument("--op", choices=NAMES, nargs="+", default=NAMES)
    parser.add_argument("--direction", choices=DIRECTIONS, default="forward")
    parser.add_argument(
        "--short",
        action="store_true",
        help="one seed, one length, one format, and one case in 20 for each kernel",
    )
    arguments = parser.parse_args()
    dtypes = DTYPES
    if arguments.short:
        arguments.seeds, arguments.lengths, arguments.every = 1, [130], 20
        dtypes = share(DTYPES, of=len(DTYPES))
    shapes, direction = [(16, n) for n in arguments.lengths], arguments.direction
    failures = judged = count = 0
    for op in arguments.op:
        largest: dict[str, dict[str, float]] = {}
        for dtype in dtypes:
            for name, failed, ratio in found(op, dtype, arguments.seeds, shapes, arguments.every, direction):
                judged += 1
                failures += bool(failed)
                if failed:
                    print(f"FALSE ALARM {op} {name} {dtype}: {failed}", flush=True)
                row = largest.setdefault(name, {})
                row[dtype] = max(row.get(dtype, 0.0), ratio)
            print(
                f"{op} {dtype}: {judged} judgements so far, {failures} false alarms",
                file=sys.stderr,
                flush=True,
            )
        print(f"\n{op:<36}" + "".join(f"{dtype:>10}" for dtype in dtypes) + "   largest error over its bound")
        for name, row in largest.items():
            shown = "".join(f"{row[dtype]:>10.2f}" if dtype in row else f"{'-':>10}" for dtype in dtypes)
            print(f"{name:<36}{shown}", flush=True)
        of_rows = op in row_ops() and direction == "forward"
        count += sum(kernel.op == op for kernel in KERNELS) if of_rows else len(kernels_of(op, direction))
    print(
        f"\n{count} honest kernels, {judged} judgements with {arguments.seeds} seeds, {failures} false alarms"
    )
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
