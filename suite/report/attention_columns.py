"""What a case of attention asks of a kernel, in a user's words: the columns of the report's matrix.

Each column is one thing to ask for. A case stands in the column of everything that it asks for,
with three exceptions that keep a failure where it belongs: three options or more stand in a column
of their own; so does a query that sees no key, in whatever way it is hidden; and another number of
keys, which most cases have, only counts where nothing else is asked.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from suite.case import Case
from suite.formats import float32
from suite.inputs import attention_tensors
from suite.inputs.layouts import LAYOUT
from suite.ops.attention import OP, given
from suite.ops.attention.settings import SETTINGS, SIZES, TENSORS
from suite.ops.attention.settings.base import Place, within
from suite.ops.attention.settings.causal import CAUSAL
from suite.settings import Wording

LONG = 1024
"""Keys from which a sequence is long."""
LARGEST = 2**20
"""Entries of a mask that is still drawn to see whether it hides everything: strangers' case ids may
name any size.
"""
MANY = 3

ORDINARY = ("normal", "probe", "probe_sharp", "minilm", "ends", "sparse")
"""Families whose numbers are easy: what is hard about their cases is what else they ask for."""
SPECIAL = ("nan_queries", "nan_key", "infinite_values")


PLAIN = Wording("plain", "plain", "no option", "without any option")
EMPTY = Wording("empty", "nokey", "a query sees nothing", "where a query sees nothing")
TOGETHER = Wording("together", "3+", "three or more options", "with three or more options at once")

PARTS: dict[str, tuple[Wording, ...]] = {
    "Masks and options": (
        PLAIN,
        *(wording for setting in SETTINGS for wording in setting.wordings),
        EMPTY,
        TOGETHER,
    ),
    "Shapes, lengths and numbers": (
        *(wording for setting in (*SIZES, LAYOUT) for wording in setting.wordings),
        Wording("one_query", "L=1", "one query (decoding)", "with one query"),
        Wording("more_keys", "S>L", "more keys than queries", "with more keys than queries"),
        Wording("fewer_keys", "S<L", "fewer keys than queries", "with fewer keys than queries"),
        Wording("long", "long", f"{LONG:,} keys and more", f"at {LONG:,} keys and more"),
        Wording("hard", "hard", "hard numbers", "with hard numbers"),
        Wording("special", "nan", "NaN and infinities", "with NaN and infinities in the input"),
    ),
}
COLUMNS = {column.name: column for part in PARTS.values() for column in part}


class Asked(NamedTuple):
    """What a case asks for."""

    columns: tuple[str, ...] = ()
    """The names of its columns."""
    alone: bool = False
    """Whether that is one thing only."""
    drawn: int = 0
    """Entries of the mask that were drawn to say so."""


@functools.lru_cache(maxsize=4096)
def asked(case_id: str) -> Asked:
    """What the case with this id asks for.

    Without a column: an id that this version cannot read, another op's, a case that no kernel is
    judged on, and one that is too large to say what it shows.
    """
    try:
        case = Case.from_id(case_id)
    except ValueError:
        return Asked()
    if case.op != OP.name or case.unjudged:
        return Asked()
    blind, drawn = sees_nothing(case), math.prod(case.shapes().get("mask", (0,)))
    if blind is None:
        return Asked()
    options, others = _options(case), _others(case)
    named = (*options, *others)
    if len(options) >= MANY:
        return Asked(("together",), True, drawn)
    if blind:
        return Asked(("empty",), len(named) <= 1, drawn)
    if not [name for name in named if name != "value_size"]:
        keys, queries = case.shapes()["k"][2], case.shape[2]
        named += ("more_keys",) if keys > queries else ("fewer_keys",) if keys < queries else ()
    return Asked(named or ("plain",), len(named) <= 1, drawn)


def _options(case: Case) -> tuple[str, ...]:
    """The options and further tensors that say something, by column."""
    named = {**case.options, **case.tensors}
    said = (setting.wording(named[setting.name]) for setting in SETTINGS if setting.name in named)
    return tuple(wording.name for wording in said if wording is not None)


def _others(case: Case) -> tuple[str, ...]:
    """What shapes, layout and numbers ask for, by column."""
    shapes = case.shapes()
    holds = {
        "key_heads": shapes["k"][1] != shapes["q"][1],
        "value_size": shapes["v"][3] != shapes["q"][3],
        "layout": case.layout != "contiguous",
        "one_query": shapes["q"][2] == 1,
        "long": shapes["k"][2] >= LONG,
        "hard": case.family not in (*ORDINARY, *SPECIAL),
        "special": case.family in SPECIAL,
    }
    return tuple(name for name, true in holds.items() if true)


def sees_nothing(case: Case) -> bool | None:
    """Whether some query of the case sees no key; None where it is too large to say.

    Causal, window and lengths show a query the keys from `first` to `last`; of these a mask shows some.
    """
    shapes, options, sizes = (
        case.shapes(),
        case.resolved_options(),
        OP.inputs.sizes(case.wanted(case.options)),
    )
    (batch, heads, length, _), keys = shapes["q"], shapes["k"][2]
    heads = heads if "mask" in shapes else 1  # nothing else hides keys from one head alone
    mask = math.prod(shapes.get("mask", (0,)))
    if max(batch * length, keys // LARGEST, mask) > LARGEST:
        return None
    tensors = {
        name: attention_tensors.tensor(name, kind, sizes, float32, case.seed)
        for name, kind in case.tensors.items()
        if name in TENSORS and TENSORS[name].hides_keys
    }
    place = Place.of_all((batch, heads, length, keys), CAUSAL.offset(options["causal"], length, keys))
    first, last = np.zeros(1, dtype=np.int64), np.full(1, keys - 1)
    shown = None
    for setting, value in given(tensors, options):
        reach = setting.reach(value, place)
        if reach is None:
            own = setting.visible(value, place)
            if own is not None:  # most settings hide no key
                shown = own if shown is None else shown & own
            continue
        first = first if reach[0] is None else np.maximum(first, reach[0])
        last = last if reach[1] is None else np.minimum(last, reach[1])
    if bool((last < first).any()):
        return True
    if shown is None:
        return False
    return not bool((shown & within((first, last), place)).any(axis=-1).all())
