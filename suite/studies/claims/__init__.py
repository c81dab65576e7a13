"""Published numerical results about softmax, exp and log, measured again on this machine.

A claim is a function that measures, registered with @claim: what is stated and where, the published
number, and how agreement is decided. Its outcome is "reproduced", "differs" (as legitimate a result
as the other), "undecided" where a sample is too small to tell, or "not run here".
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal

Outcome = Literal["reproduced", "differs", "undecided", "not run here"]

MODULES = (
    "blanchard_higham_higham",
    "flash_attention_4",
    "math_libraries",
    "monotone_exp",
    "milakov_gimelshein",
    "thresholds",
    "summation",
    "nair",
    "dong",
    "noci",
    "qiu_yao",
    "issues",
)


class NotRunHereError(Exception):
    """Raised by a measuring function that cannot measure on this machine; its text is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a measurement found."""

    measured: str
    """The numbers, as text."""

    agrees: bool | None
    """By the claim's criterion; None where a sample does not decide."""

    note: str = ""
    """What else matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A published result and how it is measured here."""

    name: str
    source: str
    stated: str

    published: str | None
    """The printed numbers, or None where the claim is not a number."""

    criterion: str
    """How agreement is decided."""

    seconds: float
    """The typical duration."""

    measure: Callable[..., Finding]

    exhaustive_seconds: float | None = None
    """The duration of the exhaustive measurement, where a sample is the default. `measure` then takes
    `points`, the size of the sample, None for all.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A claim with its outcome on this machine."""

    name: str
    source: str
    stated: str
    published: str | None
    criterion: str
    outcome: Outcome
    measured: str
    note: str

    seconds: float
    """What the measurement took."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_CLAIMS: dict[str, Claim] = {}


def claim(
    *,
    name: str,
    source: str,
    published: str | None,
    criterion: str,
    seconds: float,
    stated: str | None = None,
    exhaustive_seconds: float | None = None,
) -> Callable[[Callable[..., Finding]], Callable[..., Finding]]:
    """Registers a measuring function as a claim. What is stated is the first paragraph of its
    docstring unless given.

    Raises ValueError for a name that is taken, and where neither a docstring nor `stated` says what
    the claim is.
    """

    def register(measure: Callable[..., Finding]) -> Callable[..., Finding]:
        text = stated or " ".join((measure.__doc__ or "").split("\n\n")[0].split())
        if name in _CLAIMS:
            raise ValueError(f"claim {name!r} exists already")
        if not text:
            raise ValueError(f"claim {name!r} needs a docstring that states it")
        _CLAIMS[name] = Claim(
            name=name,
            source=source,
            stated=text,
            published=published,
            criterion=criterion,
            seconds=seconds,
            measure=measure,
            exhaustive_seconds=exhaustive_seconds,
        )
        return measure

    return register


def all_claims() -> dict[str, Claim]:
    """All claims by name, in the order of MODULES."""
    for module in MODULES:
        importlib.import_module(f"suite.studies.claims.{module}")
    return dict(_CLAIMS)


def select(names: Sequence[str]) -> list[Claim]:
    """The claims of these names; all where there are none. Raises ValueError with the valid names."""
    known = all_claims()
    for name in names:
        if name not in known:
            raise ValueError(f"unknown claim {name!r}; expected one of {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())


def check(claim: Claim, *, exhaustive: bool = False) -> Result:
    """Measures a claim; exhaustive: on all points where a sample is the default."""
    started = time.perf_counter()
    outcome: Outcome
    try:
        finding = (
            claim.measure(points=None)
            if exhaustive and claim.exhaustive_seconds is not None
            else claim.measure()
        )
        outcome = "undecided" if finding.agrees is None else "reproduced" if finding.agrees else "differs"
        measured, note = finding.measured, finding.note
    except NotRunHereError as reason:
        outcome, measured, note = "not run here", "", str(reason)
    return Result(
        name=claim.name,
        source=claim.source,
        stated=claim.stated,
        published=claim.published,
        criterion=claim.criterion,
        outcome=outcome,
        measured=measured,
        note=note,
        seconds=round(time.perf_counter() - started, 3),
    )


def table(results: Sequence[Result]) -> str:
    """The results as an aligned Markdown table, and below it what each claim says and how agreement
    was decided.
    """
    rows: list[tuple[str, ...]] = [
        ("claim", "published", "measured here", "outcome", "seconds"),
        ("---",) * 5,
    ]
    rows += [(r.name, r.published or "", r.measured, r.outcome, f"{r.seconds:.1f}") for r in results]
    rows = [tuple(text.replace("|", "\\|") for text in row) for row in rows]  # a bar would end the cell
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    for r in results:
        lines += ["", f"* **{r.name}**: {r.stated} ({r.source})", f"  Decided by: {r.criterion}"]
        lines += [f"  Note: {r.note}"] if r.note else []
    return "\n".join(lines)


def same_digits(measured: float, published: str) -> bool:
    """Whether the measured number, rounded to the digits that are printed, is the published one."""
    printed = Decimal(published)
    return Decimal(measured).quantize(Decimal((0, (1,), int(printed.as_tuple().exponent)))) == printed
