"""A kernel's declared domain, checked both ways: failing outside it is a known failure, and passing
where theory says that it must fail makes the declaration wrong.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from suite.kernels import Domain
from suite.oracle import Reference
from suite.verdict.judgement import Judgement
from suite.verdict.special import Mask
from suite.verdict.verdict import Verdict


def check_domain(verdict: Verdict, domain: Domain, reference: Reference, *, backward: bool) -> None:
    """Adds to a verdict what the domain says of its rows.

    backward: the call was one of the backward, which may pass where the forward must fail.
    """
    largest = reference.problem.x.max(axis=1, initial=-np.inf)
    ordinary = np.isfinite(largest)
    failed = _failed_rows(verdict.judgement)
    must_fail = ordinary & domain.fails & (not backward)
    surprising = np.flatnonzero(must_fail & ~failed)
    if len(surprising):
        verdict.breaks(
            "domain",
            f"row {surprising[0]} passes although {domain.why} there; the declared domain is wrong",
        )
        return
    unexpected = failed & np.where(ordinary, domain.works, largest != np.inf)
    if failed.any() and not unexpected.any():
        rows = f"{int(failed.sum())} of {len(failed)} rows"
        verdict.excuse(f"outside its declared domain: {domain.why} ({rows})")


def within_domain(judgement: Judgement, domain: Domain) -> Judgement:
    """The judgement of a further call, passed where only rows outside the domain fail."""
    if judgement.broken and not (_failed_rows(judgement) & domain.works).any():
        return replace(judgement, status="passed", broken=())
    return judgement


def _failed_rows(judgement: Judgement) -> Mask:
    return np.array([status != "passed" for status in judgement.row_status], dtype=np.bool_)
