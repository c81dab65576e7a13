"""Which queries of a long attention are judged: at 8,192 keys a reference of every query would take minutes.

The first and the last, those on both sides of tile boundaries, the hardest (the widest spread of
scores, the largest score), and others drawn by the inputs' own bits, so that every seed draws
others. Small problems are judged whole.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.inputs.draws import Draw

WHOLE = 2**22
"""How many scores a problem may have to be judged whole."""

SAMPLED = 2**20
"""About how many scores of a larger one are."""

FEWEST = 8
"""How many queries of each head are at least."""

TILES = (16, 32, 64, 128, 256)
SCORES = 2**24
"""How many scores are in memory at a time while the hardest are sought."""

REMEMBERED = 16
_HARDEST: OrderedDict[str, list[list[int]]] = OrderedDict()
"""The hardest queries of the last problems: all kernels, and both outputs, share them."""


def sampled_rows(query: Array, key: Array) -> NDArray[np.intp]:
    """Flat indices into [B, H, L], ascending, of the queries to judge. query: [B, H, L, E]; key:
    [B, G, S, E].
    """
    batches, heads, length, _ = query.shape
    size = key.shape[2]
    count = batches * heads * length
    if count * size <= WHOLE:
        return np.arange(count)
    quota = max(SAMPLED // size // (batches * heads), FEWEST)
    if quota >= length:
        return np.arange(count)
    content = hashlib.blake2b(np.ascontiguousarray(query).data, digest_size=16)
    content.update(np.ascontiguousarray(key).data)
    digest = content.hexdigest()
    hardest = _HARDEST.get(digest) or _hardest(query, key)
    _HARDEST[digest] = hardest
    if len(_HARDEST) > REMEMBERED:
        _HARDEST.popitem(last=False)
    draw = Draw(f"sampled queries|{digest}")
    last = length - 1
    edges = [0, last] + [
        i for tile in TILES[::-1] for i in (tile - 1, tile, length // tile * tile - 1, length // tile * tile)
    ]
    chosen = []
    for head in range(batches * heads):
        wanted = dict.fromkeys(
            [*edges[:2], *hardest[head], *(edges[2 + head % 4 :: 4] if quota < 32 else edges[2:])]
        )
        own = [i for i in wanted if 0 <= i < length][: quota - 2]
        drawn = draw.integers(length, 4 * quota)
        own = list(dict.fromkeys([*own, *(int(i) for i in drawn)]))[:quota]
        chosen += [head * length + i for i in sorted(own)]
    return np.array(chosen, dtype=np.intp)


def _hardest(query: Array, key: Array) -> list[list[int]]:
    """The queries of each head with the widest spread of scores and with the largest, by float32
    products of all keys.
    """
    query, key = query.astype(np.float32), key.astype(np.float32)
    batches, heads, length, _ = query.shape
    share = heads // key.shape[1]
    block = max(SCORES // key.shape[2], 1)
    found = []
    with np.errstate(over="ignore", invalid="ignore"):
        for batch in range(batches):
            for head in range(heads):
                spread, largest = np.empty(length), np.empty(length)
                for start in range(0, length, block):
                    scores = query[batch, head, start : start + block] @ key[batch, head // share].T
                    largest[start : start + block] = np.abs(scores).max(axis=1)
                    spread[start : start + block] = scores.max(axis=1) - scores.min(axis=1)
                found.append([int(np.nan_to_num(spread).argmax()), int(np.nan_to_num(largest).argmax())])
    return found
