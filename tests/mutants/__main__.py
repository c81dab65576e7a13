"""`python -m tests.mutants` (make score): which profile catches each mutant, and how many are caught."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter

from suite.case import DIRECTIONS, PROFILES
from suite.formats import DTYPES
from suite.ops import NAMES
from tests.mutants import MUTANTS
from tests.mutants.search import caught_by

QUICK_SHARE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Runs mutants on the cases and says which profile catches each."
    )
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--op", choices=NAMES, nargs="+", default=NAMES)
    parser.add_argument(
        "--profile", choices=PROFILES, default="standard", help="the largest profile to look in"
    )
    parser.add_argument("--direction", choices=DIRECTIONS, nargs="+", default=DIRECTIONS)
    arguments = parser.parse_args()
    among = [
        mutant
        for mutant in MUTANTS.values()
        if mutant.op in arguments.op and mutant.direction in arguments.direction
    ]
    chosen = [mutant for mutant in among if arguments.only in mutant.name]
    counted: Counter[tuple[str, str]] = Counter()
    for mutant in chosen:
        for dtype in mutant.dtypes:
            found = caught_by(mutant, dtype, profile=arguments.profile)
            name, record = found or ("MISSED", None)
            counted[dtype, name] += 1
            shown = f"{record.status} on {record.case}" if record else mutant.breaks
            print(f"{mutant.name:<56}{dtype:<10}{name:<10}{shown}", flush=True)
    print(f"\n{len(chosen)} mutants, {counted.total()} pairs of a mutant and a format")
    enough = True
    profiles = PROFILES[: PROFILES.index(arguments.profile) + 1]
    for dtype in (*DTYPES, "all"):
        own: Counter[str] = Counter()
        for (of, name), count in counted.items():
            own[name] += count if dtype in (of, "all") else 0
        if not own.total():
            continue
        caught = dict(zip(profiles, itertools.accumulate(own[name] for name in profiles), strict=True))
        print(
            f"{dtype:<10}"
            + "".join(f"   {name} {n} of {own.total()}, {n / own.total():.1%}" for name, n in caught.items())
        )
        enough &= (
            caught[profiles[-1]] == own.total()
            and caught.get("quick", own.total()) >= QUICK_SHARE * own.total()
        )
    raise SystemExit(0 if enough else 1)


if __name__ == "__main__":
    main()
