"""Text of strangers as it can be shown: nothing in it acts, hides, or fills the page.

Control characters, terminal escapes, bidirectional overrides and invisible characters stand as
their escapes (\\x1b, \\u202e).
"""

from __future__ import annotations

NAME = 300
"""Characters that are shown of a name."""
TEXT = 2000
"""Characters that are shown of a message."""


def visible(text: str, *, limit: int = TEXT, lines: bool = True) -> str:
    """The text with every character that is not printable as its escape; lines: line breaks and tabs stay.

    Of a text of more than `limit` characters both ends are kept, and what is left out is said.
    """
    if len(text) > limit:
        left, right = limit * 2 // 3, limit // 3
        text = f"{text[:left]} […{len(text) - left - right:,} characters left out…] {text[-right:]}"
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode("ascii") for c in text
    )
