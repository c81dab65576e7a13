"""keys and value_size: sizes that queries do not tell."""

from __future__ import annotations

from suite.settings import Size, Wording


class Keys(Size):
    """S, the number of keys; None: as many as queries."""

    name = "keys"
    levels = (None, 1, 33, 70, 129)


class ValueSize(Size):
    """Ev, the size of a value; None: that of a query."""

    name = "value_size"
    levels = (None, 1, 24)
    wordings = (Wording("value_size", "vdim", "other value size", "where values have another size"),)
