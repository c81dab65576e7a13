"""window: a query sees keys up to a distance to its left and to its right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.ops.attention.settings.base import AttentionSetting, Place, Reach, sizes_of
from suite.settings import Shapes, Wording, is_number


class Window(AttentionSetting):
    """(left, right), each None for no limit: position - left <= j <= position + right."""

    name = "window"
    levels = (None, (16, 0), (8, 8), (None, 4), (4, None))
    wordings = (Wording("window", "win", "window", "with a window"),)
    hides_keys = True
    uses_positions = True

    def check(self, value: Any, shapes: Shapes) -> Any:
        if value is None:
            return None
        sides = tuple(value) if isinstance(value, tuple | list) else ()
        if len(sides) != 2 or any(
            s is not None and not (is_number(s) and s == int(s) and 0 <= s < 2**31) for s in sides
        ):
            raise ValueError(
                f"window={value!r} must be (left, right), each None or an integer from 0 to 2^31 - 1"
            )
        return tuple(None if side is None else int(side) for side in sides)

    def reach(self, value: Any, place: Place) -> Reach | None:
        left, right = value
        return (
            None if left is None else place.position - left,
            None if right is None else place.position + right,
        )

    def neutral(self, shapes: Shapes) -> Mapping[str, Any]:
        _, _, length, keys = sizes_of(shapes)
        return {"a window over everything": (length + keys, length + keys)}
