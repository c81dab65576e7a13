"""`python -m tests.mutants` (make score): which profile catches each mutant, and how many are caught."""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter

from suite.case import DIRECTIONS, PROFILES
from suite.formats import DTYPES
from suite.ops import NAMES
from tests.mutants import MUTANTS, Mutant
from tests.mutants.search import REMEMBERED, caught_by, remembered
from tests.share import share

QUICK_SHARE = 0.95
SHORT = 25
"""--short takes one pair in so many."""


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
    parser.add_argument(
        "--short", action="store_true", help=f"one pair of a mutant and a format in {SHORT}, of each op"
    )
    parser.add_argument(
        "--remember", action="store_true", help=f"write the cases that catch them to {REMEMBERED.name}"
    )
    arguments = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS.values()
        if mutant.op in arguments.op
        and mutant.direction in arguments.direction
        and arguments.only in mutant.name
    ]
    pairs = [(mutant.name, dtype) for mutant in chosen for dtype in mutant.dtypes]
    if arguments.short:
        pairs = share(pairs, of=SHORT, kind=lambda pair: (MUTANTS[pair[0]].op, MUTANTS[pair[0]].direction))
    counted: Counter[tuple[str, str]] = Counter()
    memory = {name: dict(cases) for name, cases in remembered().items() if name in MUTANTS}
    for name, dtype in pairs:
        counted[dtype, judged(MUTANTS[name], dtype, arguments.profile, memory)] += 1
    names = {name for name, _ in pairs}
    backward = sum(MUTANTS[name].direction == "backward" for name in names)
    print(
        f"\n{len(names)} mutants, {backward} of them in backward passes;"
        f" {len(pairs)} pairs of a mutant and a format"
    )
    if arguments.remember:
        lines = [f"{json.dumps(name)}: {json.dumps(memory[name])}" for name in sorted(memory)]
        REMEMBERED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    profiles = PROFILES[: PROFILES.index(arguments.profile) + 1]
    raise SystemExit(0 if enough(counted, profiles, missing_at_quick=arguments.short) else 1)


def judged(mutant: Mutant, dtype: str, profile: str, memory: dict[str, dict[str, list[str]]]) -> str:
    """The smallest profile that catches the mutant, or MISSED. Prints it; the case goes into the memory."""
    found = caught_by(mutant, dtype, profile=profile)
    name, shown = "MISSED", mutant.breaks
    if found is not None:
        name, record = found
        shown = f"{record.status} on {record.case}"
        memory.setdefault(mutant.name, {})[dtype] = [record.case, *record.laws]
    print(f"{mutant.name:<56}{dtype:<10}{name:<10}{shown}", flush=True)
    return name


def enough(counted: Counter[tuple[str, str]], profiles: tuple[str, ...], *, missing_at_quick: bool) -> bool:
    """Whether the largest profile catches all, and quick nearly all. Prints the counts of each format.

    missing_at_quick: a few pairs say nothing of how many quick misses.
    """
    good = True
    for dtype in (*DTYPES, "all"):
        own: Counter[str] = Counter()
        for (of, name), count in counted.items():
            own[name] += count if dtype in (of, "all") else 0
        total = own.total()
        if not total:
            continue
        caught = dict(zip(profiles, itertools.accumulate(own[name] for name in profiles), strict=True))
        shown = (f"   {name} {n} of {total}, {n / total:.1%}" for name, n in caught.items())
        print(f"{dtype:<10}{''.join(shown)}")
        good &= caught[profiles[-1]] == total
        good &= missing_at_quick or caught.get("quick", total) >= QUICK_SHARE * total
    return good


if __name__ == "__main__":
    main()
