"""How reports write numbers, names and lists, each written once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from suite.formats import DTYPES

PREFIXES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
LETTERS = 28
"""Letters of a kernel's name in a figure."""
NAMED = 4
"""Names that a list spells out before it counts the others."""
CHOSEN_BY_BENCH = ("upstream=", "reduction=")
"""Options that bench sets itself: no table names them."""


def count(number: int, noun: str) -> str:
    """ "1 kernel", "1,204 kernels"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int = NAMED) -> str:
    """ "a, b, c, d and 3 more"."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def joined(words: Sequence[str]) -> str:
    """ "a, b and c"; empty words are left out."""
    words = [word for word in words if word]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def spaced(status: str) -> str:
    """A status as people write it: "known failure"."""
    return status.replace("_", " ")


def first_line(message: str) -> str:
    return message.strip().partition("\n")[0]


def shortened(name: str) -> str:
    """The end of a long name, which says more than its beginning."""
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def in_order(dtypes: Iterable[str]) -> list[str]:
    """The formats, widest first; after them the names that this version does not know."""
    found = set(dtypes)
    return [dtype for dtype in DTYPES if dtype in found] + sorted(found.difference(DTYPES))


def with_direction(op: str, direction: str) -> str:
    """ "softmax" for the forward, "softmax backward"."""
    return op if direction == "forward" else f"{op} {direction}"


def shape_of(shape: Iterable[int]) -> str:
    """ "16x4096"."""
    return "x".join(map(str, shape))


def options_of(case: str) -> list[str]:
    """The options in a case id that tables name."""
    return [part for part in case.split("/")[3:-1] if not part.startswith(CHOSEN_BY_BENCH)]


def shape_and_options(case: str) -> str:
    """ "16x4096 temperature=2", of a case id."""
    return " ".join([*case.split("/")[2:-1][:1], *options_of(case)])


def times(ratio: float | None) -> str:
    """An error divided by its bound, short."""
    if ratio is None:
        return "?"
    if math.isinf(ratio):
        return "∞"
    if ratio == 0:
        return "0"
    if ratio < 0.01:
        return "<0.01"
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:,.0f}" if ratio < 1e5 else f"{ratio:.0e}"


def digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def seconds(value: float) -> str:
    """A time with three digits, in the unit that suits it."""
    scale, unit = next(((scale, unit) for scale, unit in PREFIXES if value >= scale), PREFIXES[-1])
    return f"{digits(value / scale)} {unit}"


def share(value: float | None) -> str:
    """A share in percent. Not quite all never reads as all, nor almost nothing as nothing."""
    if value is None:
        return "–"
    if value in (0, 1):
        return "0" if value == 0 else "100 %"
    return "< 0.1 %" if value < 0.001 else "> 99.9 %" if value >= 0.9995 else f"{100 * value:.1f} %"
