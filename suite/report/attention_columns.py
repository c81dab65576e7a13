"""What a case of attention asks of a kernel, in a user's words: the columns of the report's matrix.

Each column is one thing to ask for. A case stands in the column of everything that it asks for,
with three exceptions that keep a failure where it belongs: three options or more stand in a column
of their own; so does a query that sees no key, in whatever way it is hidden; and another number of
keys, which most cases have, only counts where nothing else is asked.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from suite.case import Case
from suite.formats import float32
from suite.inputs import attention_tensors
from suite.ops.attention import offset

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


@dataclass(frozen=True, slots=True)
class Column:
    """One thing to ask for. code: its heading in a terminal. heading: on the page. where: in a
    sentence, after "not safe".
    """

    name: str
    code: str
    heading: str
    where: str


PARTS: dict[str, tuple[Column, ...]] = {
    "Masks and options": (
        Column("plain", "plain", "no option", "without any option"),
        Column("top_left", "c-tl", "causal top-left", "with a causal mask from the top-left corner"),
        Column(
            "bottom_right", "c-br", "causal bottom-right", "with a causal mask from the bottom-right corner"
        ),
        Column("boolean", "bool", "boolean mask", "with a boolean mask"),
        Column("additive", "add", "additive mask", "with an additive mask"),
        Column("empty", "nokey", "a query sees nothing", "where a query sees nothing"),
        Column("window", "win", "window", "with a window"),
        Column("kv_lengths", "lens", "length per batch entry", "with a length for each batch entry"),
        Column("alibi_slopes", "alib", "ALiBi", "with ALiBi"),
        Column("sink", "sink", "sink", "with a sink"),
        Column("softcap", "cap", "softcap", "with a softcap"),
        Column("scale", "scal", "other scale", "with a scale of its own"),
        Column("return_lse", "lse", "log-sum-exp", "with the log-sum-exp"),
        Column("together", "3+", "three or more options", "with three or more options at once"),
    ),
    "Shapes, lengths and numbers": (
        Column("key_heads", "gqa", "shared heads (GQA)", "with shared heads"),
        Column("value_size", "vdim", "other value size", "where values have another size"),
        Column("layout", "strd", "other memory layout", "with tensors that are not contiguous"),
        Column("one_query", "L=1", "one query (decoding)", "with one query"),
        Column("more_keys", "S>L", "more keys than queries", "with more keys than queries"),
        Column("fewer_keys", "S<L", "fewer keys than queries", "with fewer keys than queries"),
        Column("long", "long", f"{LONG:,} keys and more", f"at {LONG:,} keys and more"),
        Column("hard", "hard", "hard numbers", "with hard numbers"),
        Column("special", "nan", "NaN and infinities", "with NaN and infinities in the input"),
    ),
}
COLUMNS = {column.name: column for part in PARTS.values() for column in part}

NEUTRAL = {"enable_gqa": (False, True), "return_lse": (False,)}
"""Values of options that ask for nothing; None does so of every option. What enable_gqa allows, the
number of heads tells.
"""


class Asked(NamedTuple):
    """What a case asks for. columns: their names. alone: one thing only. drawn: entries of the mask
    drawn to say so.
    """

    columns: tuple[str, ...] = ()
    alone: bool = False
    drawn: int = 0


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
    if case.op != "attention" or case.unjudged:
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
    found = []
    for name, value in case.options.items():
        if value is None or value in NEUTRAL.get(name, ()):
            continue
        found.append(value if name == "causal" else name)
    for name, kind in case.tensors.items():
        if name == "mask":
            found.append("boolean" if kind in attention_tensors.BOOLEAN_MASKS else "additive")
        elif name in COLUMNS and name not in ("key_heads", "value_size"):
            found.append(name)
    return tuple(found)


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
    shapes, options, kinds = case.shapes(), case.resolved_options(), case.tensors
    (batch, heads, length, _), keys = shapes["q"], shapes["k"][2]
    if max(batch * length, keys // LARGEST) > LARGEST or (
        "mask" in kinds and batch * heads * length * keys > LARGEST
    ):
        return None
    sizes = case.sizes()
    place = np.arange(length) + offset(length, keys, options)
    left, right = (
        side if side is None else min(side, length + keys) for side in options["window"] or (None, None)
    )
    first = np.zeros((batch, length), dtype=np.int64)
    last = np.full((batch, length), keys - 1)
    if left is not None:
        first = np.maximum(first, place - left)
    if options["causal"] is not None:
        last = np.minimum(last, place)
    if right is not None:
        last = np.minimum(last, place + right)
    if "kv_lengths" in kinds:
        lengths = attention_tensors.tensor("kv_lengths", kinds["kv_lengths"], sizes, float32, case.seed)
        last = np.minimum(last, lengths[:, None] - 1)
    if bool((last < first).any()):
        return True
    if "mask" not in kinds:
        return False
    mask = attention_tensors.tensor("mask", kinds["mask"], sizes, float32, case.seed)
    j = np.arange(keys)
    shown = (j >= first[:, None, :, None]) & (j <= last[:, None, :, None])
    return not bool((shown & (mask if mask.dtype == np.bool_ else mask != -np.inf)).any(axis=-1).all())
