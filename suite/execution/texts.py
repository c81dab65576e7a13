"""What a kernel prints, warns of and raises, as records keep it: shortened, and without characters
that no file can hold.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable

KEPT_CHARACTERS = 2000
"""Of what a kernel prints, and of a message."""
KEPT_TEXTS = 20
"""Of warnings and the like: how many different ones."""
TEXT_CHARACTERS = 300
"""Of each of them."""


class Tail(io.TextIOBase):
    """A stream that keeps the last KEPT_CHARACTERS of what is written to it."""

    def __init__(self) -> None:
        self._kept = ""
        self._dropped = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        joined = self._kept + text[-KEPT_CHARACTERS:]
        self._dropped += len(self._kept) + len(text) - len(joined[-KEPT_CHARACTERS:])
        self._kept = joined[-KEPT_CHARACTERS:]
        return len(text)

    def text(self) -> str:
        kept = _clean(self._kept)
        return f"[{self._dropped} characters before this] {kept}" if self._dropped else kept


def some(texts: Iterable[str]) -> tuple[str, ...]:
    """The first KEPT_TEXTS different ones, each shortened, and how many more there are."""
    different = list(dict.fromkeys(map(shortened, texts)))
    more = len(different) - KEPT_TEXTS
    return (*different[:KEPT_TEXTS], *([f"and {more:,} more"] if more > 0 else ()))


def shortened(text: str, characters: int = TEXT_CHARACTERS) -> str:
    """The beginning of a text that may be of any length, without lone surrogates."""
    return _clean(text[:characters])


def warning_text(warning: warnings.WarningMessage) -> str:
    return f"{warning.category.__name__[:100]}: {said(warning.message)[:200]}"


def said(what: BaseException | str) -> str:
    """What an exception or a warning says, which is code of the kernel's author."""
    try:
        return str(what)
    except Exception:
        return "its message cannot be shown"


def _clean(text: str) -> str:
    """The text without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
