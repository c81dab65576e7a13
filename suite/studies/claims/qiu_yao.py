"""Qiu and Yao, "Why low-precision transformer training fails", arXiv 2510.04212."""

from __future__ import annotations

from suite.formats import bfloat16
from suite.studies.claims import Finding, claim

EXACT, ROUNDED, ERROR = -4.703990459442139, -4.71875, -0.014759540557861328


@claim(
    name="bfloat16-addition-example",
    source="Qiu and Yao, arXiv 2510.04212, worked example",
    published="-4.71875, error -0.014759540557861328",
    criterion="equal in every digit",
    seconds=0.01,
)
def addition_example() -> Finding:
    """The sum -4.703990459442139 rounds to bfloat16 away from zero, with this error."""
    rounded = float(bfloat16.round(EXACT))
    return Finding(
        measured=f"{rounded}, error {rounded - EXACT!r}",
        agrees=rounded == ROUNDED and rounded - EXACT == ERROR,
    )
