"""Which cases there are: every @case of the files in cases/."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from suite.case import CASE_ATTRIBUTE, CaseSpecification


def cases_folder() -> Path:
    """Where the cases are: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / "cases"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "cases"


def case_specifications() -> list[CaseSpecification]:
    """All cases, in the order of their files."""
    found = []
    for path in sorted(cases_folder().rglob("test_*.py")):
        specification = importlib.util.spec_from_file_location(
            f"_softmax_suite_cases_{path.parent.name}_{path.stem}", path
        )
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        for value in vars(module).values():
            if isinstance(getattr(value, CASE_ATTRIBUTE, None), CaseSpecification):
                found.append(getattr(value, CASE_ATTRIBUTE))
    return found
