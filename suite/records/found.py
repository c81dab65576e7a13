"""What a record holds of a judgement and of a call."""

from __future__ import annotations

from dataclasses import dataclass, field

from suite.records.schema import Count, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How an output is wrong, or how right: what a judgement and a record say alike. Counts are
    entries of the output, unless a field says otherwise.
    """

    judged: Size = 0.0
    """The share of numbers with a meaningful bound; a number is neither special nor 0 by a mask."""
    ratio: Size | None = None
    """The largest error divided by its bound, before the output's rounding; 1 or less is correct."""
    failed: Count = 0
    """Entries that the bound does not allow."""
    entries: Count = 0
    """All entries."""
    overflow: Count = 0
    """Entries that are NaN or infinite where the definition is finite."""
    max_ulp: Size | None = None
    """The largest error of normal results, in ulps."""
    bias_ulp: float | None = None
    """The mean signed error of normal results, in ulps."""
    bias_error_ulp: Size | None = None
    """The standard error of `bias_ulp`."""
    inversions: Count | None = None
    """Neighbours in the order of the logits whose outputs are in the wrong order."""
    saturated: Count = 0
    """Entries that are exactly 1 where the exact result is below 1."""
    flushed: Count = 0
    """Entries that are exactly 0 where the exact result rounds to something else."""
    false_zeros: Count | None = None
    """Entries of a gradient that are exactly 0 where the exact one is a normal number of the format."""
    dead_rows: Count | None = None
    """Rows of a gradient that hold nothing but 0 where the exact ones round to something else."""
    tiles: dict[str, str] = field(default_factory=dict)
    """Where the failures sit, by the tile's size or the kind of place."""
    first_failing_column: Count | None = None
    """The first column with a failed entry."""
    fits: str | None = None
    """The tightest numerics that all errors satisfy."""
    tier: str = ""
    """The highest tier of the reference: float64, arb or mpmath."""
    digest: str = ""
    """Of the output's values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(Errors):
    """What a record holds of a judgement; the defaults where there was no output to judge."""

    index: tuple[Count, ...] | None = None
    """Of the worst entry, in the output."""
    got: str | None = None
    """The worst entry's value, as float64 text."""
    expected: str | None = None
    """The worst entry's exact value, or the kind of special value, as text."""
    worst_ulp: Size | None = None
    """The worst entry's error in ulps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What a record holds of the judged call beside its output; the defaults where there was none."""

    seconds: float | None = None
    """Wall clock of one call, without copies: a hint, no benchmark."""
    warnings: tuple[str, ...] = ()
    """What the kernel warned of, shortened."""
    output: str = ""
    """What the kernel printed, shortened."""
