"""What a verdict says: the judgement of an op's outputs, and one judgement of several."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace

from suite.records.found import Errors, Judged
from suite.records.record import by_precedence


class JudgementError(AssertionError):
    """Raised by raise_if_failed(); its text is the judgement's message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The entry that uses most of its bound."""

    index: tuple[int, ...]
    """In the output tensor."""
    row: int
    """Of the output, as rows."""
    column: int
    """Of the output, as rows."""
    got: str
    """The kernel's value, as text."""
    expected: str
    """The exact value, or the kind of special value, as text: 20 digits where the entry fails."""
    lower: str
    """The smallest value that the bound allows, as text."""
    upper: str
    """The largest value that the bound allows, as text."""
    ratio: float
    """The error before the output's rounding, divided by the bound."""
    ulp: float
    """The error in ulps of the output's format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement(Errors):
    """What judge() found."""

    op: str
    """The op that was judged: that of the backward for gradients."""
    dtype: str
    """The format of the output."""
    shape: tuple[int, ...]
    """Of the logits."""
    status: str
    """passed, unjudged, or the first of `broken`."""
    broken: tuple[str, ...] = ()
    """Every status that holds, in order of precedence."""
    ratio: float = 0.0
    """The largest error divided by its bound, before the output's rounding; 1 or less is correct."""
    failed_rows: int = 0
    """Rows with a failed entry."""
    worst: Worst | None = None
    """The entry with the largest ratio; None where there is no entry."""
    numerics: str = "best practice"
    """The declaration that the bound belongs to."""
    message: str = ""
    """The judgement in words."""
    row_status: tuple[str, ...] = field(default=(), repr=False)
    """The status of each row."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def recorded(self) -> Judged:
        """What a record holds of it."""
        shared = {one.name: getattr(self, one.name) for one in fields(Errors)}
        if self.worst is None:
            return Judged(**shared)
        index, got, expected = self.worst.index, self.worst.got, self.worst.expected
        return Judged(**shared, index=index, got=got, expected=expected, worst_ulp=self.worst.ulp)

    def raise_if_failed(self) -> None:
        """Raises JudgementError (an AssertionError) with the whole message unless the status is passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise JudgementError(self.message)

    def __str__(self) -> str:
        return self.message


def merged(first: Judgement, other: Judgement) -> Judgement:
    """The judgement of an op's outputs: the first one's, with what is broken in the other."""
    broken = by_precedence({*first.broken, *other.broken})
    rows = _rows_of_both(first.row_status, other.row_status)
    worse = other.worst is not None and (
        first.worst is None or other.worst.ratio > max(first.worst.ratio, 1.0)
    )
    return replace(
        first,
        status=broken[0] if broken else first.status,
        broken=broken,
        ratio=max(first.ratio, other.ratio),
        failed=first.failed + other.failed,
        entries=first.entries + other.entries,
        overflow=first.overflow + other.overflow,
        flushed=first.flushed + other.flushed,
        false_zeros=_added(first.false_zeros, other.false_zeros),
        dead_rows=_added(first.dead_rows, other.dead_rows),
        failed_rows=sum(status != "passed" for status in rows),
        worst=other.worst if worse else first.worst,
        digest=hashlib.blake2b(f"{first.digest}{other.digest}".encode(), digest_size=8).hexdigest(),
        row_status=rows,
        message="\n".join(one.message for one in (first, other) if one.broken)
        or f"{first.message}; {other.message}",
    )


def _rows_of_both(first: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The status of each row of the first output, by both.

    Rows of another kind (keys beside queries) depend on all of these: where one of them fails and
    none of the first does, each may be to blame.
    """
    if len(first) == len(other):
        return tuple(b if a == "passed" else a for a, b in zip(first, other, strict=True))
    broken = next((status for status in other if status != "passed"), "passed")
    return first if any(status != "passed" for status in first) else (broken,) * len(first)


def _added(a: int | None, b: int | None) -> int | None:
    return None if a is None and b is None else (a or 0) + (b or 0)
