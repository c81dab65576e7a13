"""Where attention is wrong: in which heads, queries and keys.

An output does not tell which keys it was made of. So a kernel that failed is asked once more, with
values that mark blocks of keys: column c is 1 at the keys of block c. Its output is the weight of
each block, and is judged like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.ops.attention.definition import Queries

ALIKE = 2.0**-6
"""How far apart, relatively, two blocks may be that share a factor: roundings of 16 bits."""

SMALL = 2.0**-24
"""Below it a weight has no such ratio."""

TILES = (256, 128, 64, 32, 16)


def blocks(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """(values of the same shape [B, G, S, Ev] that mark blocks of keys, the keys of a block): at
    most Ev of at least 16.
    """
    size, columns = values.shape[2:]
    width = 16
    while width * columns < size:
        width *= 2
    marked = (np.arange(size)[:, None] // width == np.arange(columns)).astype(np.float64)
    return np.broadcast_to(marked, values.shape).copy(), width


def keys(failed: NDArray[np.bool_], got: Array, exact: Array, width: int, size: int) -> str:
    """What such a call says about the keys: which of its entries [rows, Ev] fail, the entries, and
    the exact ones.

    A wrong weight is in the sum of all weights. Where no block is right, blocks that share one
    factor with most others count as right.
    """
    count = -(-size // width)
    wrong = np.flatnonzero(np.asarray(failed.any(axis=0))[:count])
    if not len(wrong):
        return (
            "every block of keys has the right weight: what is wrong lies in the values, or in how they are"
            " summed"
        )
    if len(wrong) == count:
        wrong = np.flatnonzero(_unlike_the_others(got[:, :count], exact[:, :count]).any(axis=0))
    if len(wrong) in (0, count):
        return f"all {count} blocks of {width} keys have wrong weights"
    spans = ", ".join(f"{b * width}..{min((b + 1) * width, size) - 1}" for b in wrong[:4]) + (
        ", ..." if len(wrong) > 4 else ""
    )
    begins = f"errors begin at key {wrong[0] * width}"
    return f"{begins}: {len(wrong)} of {count} blocks of {width} keys have wrong weights, keys {spans}"


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def _unlike_the_others(got: Array, exact: Array) -> NDArray[np.bool_]:
    """[rows, blocks]: whose ratio of weight to exact weight is not the one that most blocks of the
    row share.
    """
    ratio = np.where(exact > SMALL, got / exact, np.nan)
    alike = np.abs(ratio[:, :, None] - ratio[:, None, :]) <= ALIKE * np.abs(ratio[:, :, None])
    shared = np.take_along_axis(ratio, alike.sum(axis=2).argmax(axis=1)[:, None], axis=1)
    return np.asarray(np.abs(ratio - shared) > ALIKE * np.abs(shared))


def rows(failed: NDArray[np.bool_], problem: Queries) -> Mapping[str, str]:
    """Which heads and which queries have failing entries, where that is not all of them."""
    wrong = failed.any(axis=1)
    found: dict[str, str] = {}
    if not wrong.any() or wrong.all():
        return found
    head, query = np.divmod(problem.rows, problem.length)
    bad_heads = np.unique(head[wrong])
    if len(bad_heads) < len(np.unique(head)):
        count = len(problem.of_heads)
        found["head"] = (
            f"in {len(bad_heads)} of {count} heads (batch entry by batch entry): {_some(bad_heads)}"
        )
    bad = np.unique(query[wrong])
    judged = np.unique(query[np.isin(head, bad_heads)])
    if len(bad) < len(judged):
        found["query"] = f"in {len(bad)} of {len(judged)} queries: {_some(bad)}"
        later = judged[judged >= bad[0]]
        if np.array_equal(bad, later):
            found["query"] = f"errors begin at query {bad[0]}: in all from there on"
        else:
            for tile in TILES:
                place = np.unique(bad % tile)
                if (
                    len(bad) > 1
                    and problem.length > tile
                    and len(place) == 1
                    and len(bad) == len(judged[judged % tile == place[0]])
                ):
                    found["query"] = f"in every query at {place[0]} (mod {tile})"
                    break
    return found


def _some(numbers: NDArray[Any]) -> str:
    return ", ".join(str(n) for n in numbers[:6]) + (", ..." if len(numbers) > 6 else "")
