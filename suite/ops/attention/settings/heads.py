"""enable_gqa and key_heads: query heads that share the heads of keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.ops.attention.settings.base import AttentionSetting
from suite.settings import Shapes, Size, Wording


class EnableGqa(AttentionSetting):
    """Whether heads may be shared. What it allows, key_heads asks for."""

    name = "enable_gqa"
    default = False
    levels = (False, True)

    def check(self, value: Any, shapes: Shapes) -> Any:
        heads, key_heads = shapes["q"][1], shapes["k"][1]
        if heads != key_heads and not value:
            raise ValueError(f"q has {heads} heads and k has {key_heads}: that needs enable_gqa=True")
        return value

    def permits(self, level: Any, others: Mapping[str, Any]) -> bool:
        shared = others.get("key_heads") not in (None, others.get("heads"))
        return bool(level) or not shared


class KeyHeads(Size):
    """G: query head h reads key head h // (H / G)."""

    name = "key_heads"
    levels = (None, 1, 2)
    wordings = (Wording("key_heads", "gqa", "shared heads (GQA)", "with shared heads"),)

    def permits(self, level: Any, others: Mapping[str, Any]) -> bool:
        return level is None or others.get("heads", level) % level == 0

    def implied(self, level: Any, shape: tuple[int, ...]) -> Mapping[str, Any]:
        return {"enable_gqa": True} if level not in (None, shape[1]) else {}
