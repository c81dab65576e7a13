"""The pytest plugin: cases meet kernels. Each item is one evaluate() of one case, kernel and dtype.

    pytest cases --op softmax --kernel my.py:f --dtype bfloat16

Loaded by the checkout's conftest.py, or with `-p suite.plugin`; never by an entry point, so it slows down nobody's tests.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from suite.case import CASE_ATTRIBUTE, PROFILES, Case, CaseSpecification
from suite.formats import DTYPES
from suite.ops import NAMES

if TYPE_CHECKING:
    from suite.execution.host import Host
    from suite.kernels import Kernel
    from suite.known_failures import KnownFailure
    from suite.oracle import Oracle
    from suite.records import Record
    from suite.store import Store

SESSION = pytest.StashKey["Session"]()

SLOW_PROFILES = ("standard", "full")
"""The profiles whose default kernels include the slow ones."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("softmax-suite", "softmax-suite: cases against kernels")
    add = group.addoption
    add("--op", action="append", choices=NAMES, help="only this op; may be repeated (default: all)")
    add(
        "--kernel",
        action="append",
        metavar="K",
        help="NAME, FILE.py:FUNC or pkg.mod:FUNC; may be repeated (default: own)",
    )
    add("--dtype", action="append", choices=DTYPES, help="only this dtype; may be repeated (default: all)")
    add("--device", default="cpu", help="device of the inputs: cpu, cuda, cuda:1, ... (default: cpu)")
    add("--profile", default="smoke", choices=PROFILES, help="how much to run (default: smoke)")
    add(
        "--case",
        action="append",
        metavar="PATTERN",
        help="a case id, or a pattern such as 'softmax/sparse/*'",
    )
    add("--out", type=Path, metavar="DIR", help="run folder to append records to")
    add("--ignore-declarations", action="store_true", help="judge by best practice, whatever a kernel declares")
    add(
        "--known-failures",
        action="append",
        type=Path,
        metavar="FILE",
        help="failures that are known, with reason and link",
    )


def cases_folder() -> Path:
    """Where the cases are: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / "cases"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "cases"


def default_known_failures() -> list[KnownFailure]:
    """The entries that come with the cases, if any do."""
    from suite.known_failures import read

    path = cases_folder() / "known_failures.txt"
    return read(path) if path.is_file() else []


class Session:
    """What all items of one pytest process share: kernels, oracle, host, store and the records so far."""

    def __init__(self, config: pytest.Config) -> None:
        from suite.execution.host import InProcess
        from suite.known_failures import read
        from suite.oracle import Oracle
        from suite.oracle.cache import default_folder
        from suite.store import Store

        option = config.option
        self.device: str = option.device
        self.strict: bool = option.ignore_declarations
        self.profile: str = option.profile
        self.patterns: list[str] = option.case or []
        self.ops: tuple[str, ...] = tuple(option.op or NAMES)
        self.dtypes: tuple[str, ...] = tuple(option.dtype or DTYPES)
        self.kernels = self._load_kernels(option.kernel)
        self.oracle: Oracle = Oracle(default_folder())
        self.host: Host = InProcess()
        self.store: Store | None = Store(option.out) if option.out else None
        self.known: list[KnownFailure] = default_known_failures()
        for path in option.known_failures or []:
            self.known += read(path)
        self.records: list[Record] = []
        self.specifications: list[CaseSpecification] = []
        self.environment: dict[str, Any] = {}

    def _load_kernels(self, specifications: list[str] | None) -> dict[str, list[Kernel]]:
        """The kernels of each op. A name that only some of the ops have is taken for those; one that none has is misuse."""
        from suite.kernels import load_kernels, own_kernels

        if not specifications:
            slow_too, device = self.profile in SLOW_PROFILES, self.device.split(":")[0]
            return {
                op: [k for k in own_kernels(op).values() if (slow_too or not k.slow) and device in (k.devices or (device,))]
                for op in self.ops
            }
        chosen: dict[str, list[Kernel]] = {op: [] for op in self.ops}
        for specification in specifications:
            errors = []
            for op in self.ops:
                try:
                    chosen[op] += load_kernels(specification, op)
                except ValueError as error:
                    errors.append(str(error))
            if len(errors) == len(self.ops):
                raise pytest.UsageError(errors[0])
            found = [k for op in self.ops for k in chosen[op] if k.id == specification]
            if len(found) > 1 and not any(k.declared for k in found) and specification not in own_kernels(found[0].op):
                raise pytest.UsageError(
                    f"--kernel {specification!r} does not say what it computes: name one with --op ({', '.join(self.ops)}), "
                    "or declare it with @kernel"
                )
        return chosen

    def start(self, environment: dict[str, Any]) -> None:
        self.environment = environment
        if self.store is not None:
            self.store.write_environment(environment)

    def existing_cases(self) -> set[str]:
        """The ids of all cases of the largest profile, in the modules that were collected."""
        return {case.id for specification in self.specifications for case in specification.cases("full")}

    def evaluate(self, case: Case, kernel: Kernel, dtype: str) -> Record:
        """The engine's record of a case, with what this session shares."""
        from suite.execution import evaluate

        record = evaluate(
            case,
            kernel,
            dtype=dtype,
            device=self.device,
            oracle=self.oracle,
            host=self.host,
            store=self.store,
            known=self.known,
            strict=self.strict,
            env_id=self.environment["env_id"],
        )
        self.records.append(record)
        return record


def session_of(config: pytest.Config) -> Session:
    """This process's session, made on first use: a run of ordinary tests beside the cases pays nothing."""
    session = config.stash.get(SESSION, None)
    if session is None:
        import torch

        from suite.environment import probe
        from suite.oracle.libm import accuracy

        _check_device(config.option.device)
        try:
            session = Session(config)
        except ValueError as error:
            raise pytest.UsageError(str(error).splitlines()[0]) from None
        except OSError as error:
            raise pytest.UsageError(f"--out {str(config.option.out)!r} cannot be made: {error.strerror}") from None
        if hasattr(config, "workerinput"):
            torch.set_num_threads(1)
        session.start({**probe(session.device), "libm": asdict(accuracy())})
        config.stash[SESSION] = session
    return session


def _check_device(device: str) -> None:
    import torch

    known = "expected cpu, cuda, cuda:1, ..."
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise pytest.UsageError(f"--device {device!r} is no device of torch; {known}") from None
    if kind == "meta":
        raise pytest.UsageError(f"--device {device!r} holds no values to judge; {known}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise pytest.UsageError(f"--device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def pytest_collection(session: pytest.Session) -> None:
    """What was asked for is prepared before anything is collected, so that a wrong name is answered at once."""
    option = session.config.option
    if option.kernel or option.out or option.known_failures or option.device != "cpu":
        session_of(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    specification = getattr(metafunc.function, CASE_ATTRIBUTE, None)
    if specification is None:
        return
    assert isinstance(specification, CaseSpecification)
    session = session_of(metafunc.config)
    session.specifications.append(specification)
    cases = [case for case in specification.cases(session.profile) if case.op in session.ops]
    if session.patterns:
        # An id names its case whatever the profile; a pattern narrows the profile.
        everything = specification.cases("full") if specification.may_have(session.patterns) else []
        named = [case for case in everything if case.id in session.patterns and case.op in session.ops]
        cases = named + [c for c in cases if c not in named and any(fnmatchcase(c.id, p) for p in session.patterns)]
    triples = [
        (case, dtype, kernel)
        for case in cases
        for dtype in session.dtypes
        if dtype in specification.dtypes or case.id in session.patterns
        for kernel in session.kernels[case.op]
        if case.profile == "smoke" or not kernel.slow or case.id in session.patterns
    ]
    metafunc.parametrize("evaluate", triples, ids=[f"{c.id}-{d}-{k.id}" for c, d, k in triples], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A case function that has nothing to run here, for its profile or its op, is no item: pytest would skip an empty one."""
    empty = [
        item
        for item in items
        if hasattr(getattr(item, "function", None), CASE_ATTRIBUTE) and not isinstance(_parameters(item), tuple)
    ]
    if empty:
        items[:] = [item for item in items if item not in empty]
        config.hook.pytest_deselected(items=empty)


def _parameters(item: pytest.Item) -> Any:
    return item.callspec.params.get("evaluate") if hasattr(item, "callspec") else None


@pytest.fixture
def evaluate(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Calls the engine on this item's case, kernel and dtype, and turns the record into the item's outcome."""
    case, dtype, kernel = request.param
    session = session_of(request.config)

    def run() -> None:
        __tracebackhide__ = True
        record = session.evaluate(case, kernel, dtype)
        request.node.user_properties.append(("status", record.status))
        if record.status == "unsupported":
            pytest.skip(f"unsupported: {record.message}")
        if record.status == "known_failure":
            pytest.xfail(record.known)
        if record.status != "passed":
            pytest.fail(f"{record.message}\n  reproduce {record.reproduce}", pytrace=False)

    return run


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    from suite.oracle.cache import default_folder, trim

    shared = session.config.stash.get(SESSION, None)
    if shared is None:
        return
    if shared.store is not None:
        shared.store.close()
    trim(default_folder())


def pytest_collection_finish(session: pytest.Session) -> None:
    """A --case that matches nothing is misuse, answered with what there is."""
    shared = session.config.stash.get(SESSION, None)
    if shared is None or not shared.patterns or hasattr(session.config, "workerinput"):
        return
    evaluated = [_parameters(item) for item in session.items]
    chosen = {parameters[0].id for parameters in evaluated if isinstance(parameters, tuple)}
    for pattern in shared.patterns:
        if any(fnmatchcase(case, pattern) for case in chosen):
            continue
        existing = sorted(shared.existing_cases())
        if not any(fnmatchcase(case, pattern) for case in existing):
            near = difflib.get_close_matches(pattern, existing, n=3, cutoff=0.1)
            some = ", ".join(near or existing[:3])
            raise pytest.UsageError(f"--case {pattern!r} matches no case; `softmax-suite list cases` has all, such as {some}")
