"""What a request selects: the cases of cases/**/test_*.py, the kernels, and which of them meet."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from suite.case import CASE_ATTRIBUTE, Case, CaseError, CaseSpecification
from suite.records.configuration import in_shard

if TYPE_CHECKING:
    from suite.execution.hosts import Hosts
    from suite.kernels import Kernel
    from suite.session import Request

THROUGHPUT = "test_throughput.py"
"""Items of pytest-benchmark, which are no cases."""

SLOW_PROFILES = ("standard", "full")
"""The profiles whose default kernels include the slow ones."""


class BrokenFileError(Exception):
    """A file of cases that cannot be imported."""


class Evaluation(NamedTuple):
    """One kernel on one case in one format: one record."""

    case: Case
    dtype: str
    kernel: Kernel

    @property
    def id(self) -> str:
        return f"{self.case.id}-{self.dtype}-{self.kernel.id}"


def cases_folder() -> Path:
    """Where the cases are: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / "cases"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "cases"


def case_specifications() -> list[CaseSpecification]:
    """All cases, in the order of their files.

    Raises BrokenFileError for a file that cannot be imported, and CaseError for a case that makes no sense.
    """
    found = []
    for path in sorted(cases_folder().rglob("test_*.py")):
        if path.name == THROUGHPUT:
            continue
        specification = importlib.util.spec_from_file_location(
            f"_softmax_suite_cases_{path.parent.name}_{path.stem}", path
        )
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        try:
            specification.loader.exec_module(module)
        except CaseError:
            raise
        except Exception as error:  # the file is anybody's
            text = (str(error).splitlines() or [""])[0]
            raise BrokenFileError(f"{path}: {type(error).__name__}: {text}") from error
        found += [
            getattr(value, CASE_ATTRIBUTE)
            for value in vars(module).values()
            if isinstance(getattr(value, CASE_ATTRIBUTE, None), CaseSpecification)
        ]
    return found


def chosen_cases(specification: CaseSpecification, request: Request) -> list[Case]:
    """The cases of a specification that the request selects, whatever its shard.

    An id names its case whatever the profile and direction; a pattern narrows them.
    """
    ops = tuple(op for op in specification.ops if op in request.ops)
    of_ops = replace(specification, ops=ops)
    upstream = tuple(
        one for one in specification.upstream if ("backward" if one else "forward") in request.directions
    )
    cases = replace(of_ops, upstream=upstream).cases(request.profile)
    if not request.patterns:
        return cases
    everything = of_ops.cases("full") if of_ops.may_have(request.patterns) else []
    named = [case for case in everything if case.id in request.patterns]
    return named + [
        case
        for case in cases
        if case not in named and any(fnmatchcase(case.id, pattern) for pattern in request.patterns)
    ]


def evaluations(
    cases: Iterable[Case],
    dtypes: Sequence[str],
    request: Request,
    kernels: Mapping[str, Sequence[Kernel]],
) -> list[Evaluation]:
    """Which kernels meet which of these cases, in which formats.

    dtypes: those in which the cases say something. A case whose id was named runs in every format
    and on every kernel that was asked for.
    """
    return [
        Evaluation(case, dtype, kernel)
        for case in cases
        if in_shard(case.id, request.shard)
        for dtype in request.dtypes
        if dtype in dtypes or case.id in request.patterns
        for kernel in kernels[case.op]
        if case.profile == "smoke" or not kernel.slow or case.id in request.patterns
    ]


def check_patterns(
    patterns: Iterable[str], chosen: Iterable[str], specifications: Iterable[CaseSpecification]
) -> None:
    """Raises ValueError, with cases that exist, for a pattern that matches no case of any profile.

    chosen: the ids of the cases that were selected.
    """
    ids = set(chosen)
    unmet = [one for one in patterns if not any(fnmatchcase(case, one) for case in ids)]
    existing = sorted(existing_cases(specifications)) if unmet else []
    for pattern in unmet:
        if not any(fnmatchcase(case, pattern) for case in existing):
            near = difflib.get_close_matches(pattern, existing, n=3, cutoff=0.1)
            some = ", ".join(near or existing[:3])
            raise ValueError(
                f"--case {pattern!r} matches no case; `softmax-suite list cases` has all, such as {some}"
            )


def existing_cases(
    specifications: Iterable[CaseSpecification], patterns: Sequence[str] = ("*",)
) -> Iterator[str]:
    """The ids of all cases of the largest profile; at least those that match one of the patterns."""
    beginnings = [re.split(r"[*?[]", pattern)[0] for pattern in patterns]
    for specification in specifications:
        own = [f"{op}/{specification.family}/" for op in specification.ops]
        if any(one.startswith(begin) or begin.startswith(one) for one in own for begin in beginnings):
            yield from (case.id for case in specification.cases("full"))


def chosen_kernels(request: Request, hosts: Hosts) -> dict[str, list[Kernel]]:
    """The kernels of each op. A name that only some of the ops have is taken for those.

    Raises ValueError for a name that none of the ops has, and for a function that does not say
    which op it computes where it could be of several.
    """
    if not request.kernels:
        return _default_kernels(request)
    chosen: dict[str, list[Kernel]] = {op: [] for op in request.ops}
    for specification in request.kernels:
        found = _named(specification, request, hosts)
        if len(found) > 1 and not any(kernel.declared for kernel in found):
            raise ValueError(
                f"--kernel {specification!r} does not say what it computes: name one with --op"
                f" ({', '.join(request.ops)}), or declare it with @kernel"
            )
        for kernel in found:
            chosen[kernel.op].append(kernel)
    return chosen


def _default_kernels(request: Request) -> dict[str, list[Kernel]]:
    """This suite's own kernels that run on the device; the slow ones from the profile standard on."""
    from suite.kernels import own_kernels

    slow_too, device = request.profile in SLOW_PROFILES, request.device.split(":")[0]
    return {
        op: [
            kernel
            for kernel in own_kernels(op).values()
            if (slow_too or not kernel.slow) and device in (kernel.devices or (device,))
        ]
        for op in request.ops
    }


def _named(specification: str, request: Request, hosts: Hosts) -> list[Kernel]:
    from suite.kernels import UnloadableError

    found, errors = list["Kernel"](), list[ValueError]()
    for op in request.ops:
        try:
            found += hosts.load(specification, op, device=request.device)
        except UnloadableError:  # of no op, so there is no need to ask for the others
            raise
        except ValueError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found
