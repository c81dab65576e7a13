"""Which of many costly tests run this time: a share that rotates with the commit.

SHARE=all (make test-all) takes all of them. Any other SHARE, such as the one that a run prints, takes
the same share again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ALL = "all"


@functools.cache
def number() -> str:
    """What chooses the share: SHARE, or the first digits of the commit; "0" outside of a checkout."""
    if os.environ.get("SHARE"):
        return os.environ["SHARE"]
    command = ["git", "rev-parse", "--short=8", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "0"
    return done.stdout.strip()


def share(items: Iterable[T], *, of: int, kind: Callable[[T], object] = lambda item: None) -> list[T]:
    """One in `of` of the items of each kind, at least one, in their own order. repr() names an item."""
    given = list(items)
    if number() == ALL:
        return given
    kinds: dict[object, list[int]] = {}
    for place, item in enumerate(given):
        kinds.setdefault(kind(item), []).append(place)
    chosen: set[int] = set()
    for places in kinds.values():
        drawn = sorted(places, key=lambda place: _draw(given[place]))
        chosen.update(drawn[: -(-len(places) // of)])
    return [item for place, item in enumerate(given) if place in chosen]


def _draw(item: object) -> bytes:
    return hashlib.sha256(f"{number()}|{item!r}".encode()).digest()
