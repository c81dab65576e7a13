"""Compares two run folders: the same evaluations, statuses and worst errors, times and versions apart.

    python -m tests.same_records BEFORE AFTER
    python -m tests.same_records --subset BEFORE AFTER     AFTER ran only a part of BEFORE

Prints how many evaluations agree and each that does not; ends with 1 where any differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from suite.records.flat import flat
from suite.records.store import read_records

COMPARED = ("status", "broken", "known", "ratio", "failed", "entries", "overflow", "index", "fits", "digest")
"""What must be the same. Times, versions, messages and the statistics of torch's own kernel are not
compared.
"""

SHOWN = 20


def evaluations(folder: Path) -> dict[tuple[str, ...], tuple[object, ...]]:
    """(op, case, kernel, dtype, device, id) -> what is compared."""
    return {
        (one.op, one.case, one.kernel, one.dtype, one.device, one.id): tuple(
            flat(one)[name] for name in COMPARED
        )
        for one in read_records(folder, [])
    }


def main(before: Path, after: Path, *, subset: bool) -> int:
    first, second = evaluations(before), evaluations(after)
    if subset:
        first = {key: found for key, found in first.items() if key in second}
    lines = [f"only {where}: {' '.join(key)}" for where, keys in (
        ("before", first.keys() - second.keys()), ("after", second.keys() - first.keys()),
    ) for key in sorted(keys)]  # fmt: skip
    for key in sorted(first.keys() & second.keys()):
        unlike = [
            f"{name}: {a!r:.60} then, {b!r:.60} now"
            for name, a, b in zip(COMPARED, first[key], second[key], strict=True)
            if repr(a) != repr(b)
        ]
        if unlike:
            lines.append(f"{' '.join(key)}: {'; '.join(unlike)}")
    for line in lines[:SHOWN]:
        print(line)
    if len(lines) > SHOWN:
        print(f"and {len(lines) - SHOWN:,} more")
    print(f"{len(first):,} evaluations before, {len(second):,} after, {len(lines):,} differ")
    return int(bool(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.same_records", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--subset", action="store_true", help="AFTER ran only a part of BEFORE")
    arguments = parser.parse_args()
    sys.exit(main(arguments.before, arguments.after, subset=arguments.subset))
