"""causal: a query sees no key behind its own position."""

from __future__ import annotations

from typing import Any

from suite.ops.attention.settings.base import AttentionSetting, Place, Reach
from suite.settings import Shapes, Wording


class Causal(AttentionSetting):
    """Query i is at position i + o: "top_left" o = 0, "bottom_right" o = S - L. It sees keys j <= i + o."""

    name = "causal"
    levels = (None, "top_left", "bottom_right")
    wordings = (
        Wording("top_left", "c-tl", "causal top-left", "with a causal mask from the top-left corner"),
        Wording(
            "bottom_right", "c-br", "causal bottom-right", "with a causal mask from the bottom-right corner"
        ),
    )

    hides_keys = True
    uses_positions = True
    places_queries = True

    def check(self, value: Any, shapes: Shapes) -> Any:
        if value not in self.levels:
            raise ValueError(f"causal={value!r} is not one of None, 'top_left', 'bottom_right'")
        return value

    def offset(self, value: Any, length: int, keys: int) -> int:
        """The position of the first query among the keys."""
        return keys - length if value == "bottom_right" else 0

    def reach(self, value: Any, place: Place) -> Reach | None:
        return None, place.position

    def wording(self, level: Any) -> Wording | None:
        return next((one for one in self.wordings if one.name == level), None)


CAUSAL = Causal()
