"""Special values: which kind of value a definition has at a position."""

from __future__ import annotations

from enum import IntEnum


class Special(IntEnum):
    """A kind of value. Arrays hold it as int8, and 0 means an ordinary number."""

    FINITE = 0
    NAN = 1
    POSITIVE_INFINITY = 2
    NEGATIVE_INFINITY = 3
    NAN_OR_NEGATIVE_INFINITY = 4
    NAN_OR_POSITIVE_INFINITY = 5
    ANYTHING = 6
    """Nothing to judge: any value is accepted."""

    @property
    def text(self) -> str:
        """How a message names it."""
        return _TEXTS[self]


_TEXTS = {
    Special.FINITE: "finite",
    Special.NAN: "NaN",
    Special.POSITIVE_INFINITY: "inf",
    Special.NEGATIVE_INFINITY: "-inf",
    Special.NAN_OR_NEGATIVE_INFINITY: "NaN or -inf",
    Special.NAN_OR_POSITIVE_INFINITY: "NaN or inf",
    Special.ANYTHING: "anything",
}
