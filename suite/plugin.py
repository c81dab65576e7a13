"""The pytest plugin: cases meet kernels. Each item is one evaluate() of one case, kernel and dtype.

    pytest cases --op softmax --kernel my.py:f --dtype bfloat16

Loaded by the checkout's conftest.py, or with `-p suite.plugin`; never by an entry point, so it
slows down nobody's tests.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from suite.case import CASE_ATTRIBUTE, DIRECTIONS, PROFILES, Case, CaseSpecification
from suite.execution.isolation import ISOLATE, MOST_THREADS, TIMEOUT_SECONDS, start_server
from suite.formats import DTYPES
from suite.ops import NAMES
from suite.records.configuration import (
    ALL,
    FILE,
    Configuration,
    code_digests,
    differences,
    digest,
    in_shard,
    read_configuration,
    shards,
    unlike_facts,
)
from suite.records.store import FULL, Store, StoreError, held, read_environment, read_records, refuse_records
from suite.selection import cases_folder

if TYPE_CHECKING:
    from suite.kernels import Kernel
    from suite.oracle import Oracle
    from suite.records.known_failures import KnownFailure
    from suite.records.record import Record

SESSION = pytest.StashKey["Session"]()
STOPPED = pytest.StashKey[str]()
"""Why the run ended at once: its folder takes no more."""

STORE_EXIT_CODE = 4
THREADS = 1
"""Threads of torch while kernels are judged, unless --threads says otherwise. Digests depend on it."""

_EVALUATION = re.compile(rf"\[({'|'.join(NAMES)})/.*-({'|'.join(DTYPES)})-.*\]$")
"""The end of the node id of an evaluation."""

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
    add(
        "--direction",
        default="forward",
        choices=(*DIRECTIONS, "both"),
        help="cases of the forward, of the backward, or of both (default: forward)",
    )
    add("--device", default="cpu", help="device of the inputs: cpu, cuda, cuda:1, ... (default: cpu)")
    add("--profile", default="smoke", choices=PROFILES, help="how much to run (default: smoke)")
    add(
        "--case",
        action="append",
        metavar="PATTERN",
        help="a case id, or a pattern such as 'softmax/sparse/*'",
    )
    add("--out", type=Path, metavar="DIR", help="run folder to append records to")
    add(
        "--resume",
        action="store_true",
        help="go on with the run in --out: what it has recorded is not run again",
    )
    add(
        "--shard",
        default=ALL,
        metavar="I/N",
        help="only part I of N of the cases, by their ids; merge joins the parts",
    )
    add(
        "--threads",
        type=int,
        default=THREADS,
        metavar="N",
        help="threads of torch while kernels run (default: 1)",
    )
    add(
        "--isolate",
        default="outside",
        choices=ISOLATE,
        help="which kernels run in a process of their own (default: those from outside)",
    )
    add(
        "--timeout",
        type=_positive,
        default=TIMEOUT_SECONDS,
        metavar="S",
        help=(
            "seconds that a kernel in a process of its own may take for a case (default:"
            f" {TIMEOUT_SECONDS:g})"
        ),
    )
    add(
        "--memory",
        type=_positive,
        metavar="GIB",
        help="what a kernel in a process of its own may take (default: half of this machine's memory)",
    )
    add(
        "--ignore-declarations",
        action="store_true",
        help="judge by best practice, whatever a kernel declares",
    )
    add(
        "--known-failures",
        action="append",
        type=Path,
        metavar="FILE",
        help="failures that are known, with reason and link",
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"{text} is not a positive number")
    return value


def default_known_failures() -> list[KnownFailure]:
    """The entries that come with the cases, if any do."""
    from suite.records.known_failures import read

    path = cases_folder() / "known_failures.txt"
    return read(path) if path.is_file() else []


class Session:
    """What all items of one pytest process share: kernels, oracle, host, store and the records so far."""

    def __init__(self, config: pytest.Config) -> None:
        from suite.execution.hosts import Hosts
        from suite.oracle import Oracle
        from suite.oracle.cache import default_folder
        from suite.records.known_failures import read

        option = config.option
        self.device: str = option.device
        self.strict: bool = option.ignore_declarations
        self.profile: str = option.profile
        self.directions: tuple[str, ...] = DIRECTIONS if option.direction == "both" else (option.direction,)
        self.patterns: list[str] = option.case or []
        self.ops: tuple[str, ...] = tuple(option.op or NAMES)
        self.dtypes: tuple[str, ...] = tuple(option.dtype or DTYPES)
        self.timeout: float = option.timeout
        self.hosts = Hosts(isolate=option.isolate, memory_gibibytes=option.memory, timeout=option.timeout)
        self.kernels = self._load_kernels(option.kernel)
        self.oracle: Oracle = Oracle(default_folder())
        self.store: Store | None = Store(option.out) if option.out else None
        self.shard: str = option.shard
        self.resume: bool = option.resume
        self.worker = hasattr(config, "workerinput")
        self.close: Callable[[], None] = lambda: None
        self.known: list[KnownFailure] = default_known_failures()
        for path in option.known_failures or []:
            self.known += read(path)
        self.records: list[Record] = []
        self.specifications: list[CaseSpecification] = []
        self.selected = False
        self.environment: dict[str, Any] = {}
        self._recorded: dict[tuple[str, ...], Record] = {}
        self._resumed: Configuration | None = None
        self._asked = {
            "profile": self.profile,
            "op": sorted(self.ops),
            "dtype": sorted(self.dtypes),
            "direction": option.direction,
            "case": sorted(set(self.patterns)),
            "device": self.device,
            "strict": self.strict,
            "isolate": option.isolate,
            "timeout": option.timeout,
            "memory": option.memory,
            "known-failures": {str(path): digest(path.read_bytes()) for path in option.known_failures or []},
        }

    def _load_kernels(self, specifications: list[str] | None) -> dict[str, list[Kernel]]:
        """The kernels of each op. A name that only some of the ops have is taken for those; one
        that none has is misuse.
        """
        from suite.kernels import UnloadableError, own_kernels

        if not specifications:
            slow_too, device = self.profile in SLOW_PROFILES, self.device.split(":")[0]
            return {
                op: [
                    k
                    for k in own_kernels(op).values()
                    if (slow_too or not k.slow) and device in (k.devices or (device,))
                ]
                for op in self.ops
            }
        chosen: dict[str, list[Kernel]] = {op: [] for op in self.ops}
        for specification in dict.fromkeys(specifications):
            errors = []
            for op in self.ops:
                try:
                    chosen[op] += self.hosts.load(specification, op, device=self.device)
                except UnloadableError as error:
                    raise pytest.UsageError(str(error)) from None
                except ValueError as error:
                    errors.append(str(error))
            if len(errors) == len(self.ops):
                raise pytest.UsageError(errors[0])
            found = [k for op in self.ops for k in chosen[op] if k.id == specification]
            if (
                len(found) > 1
                and not any(k.declared for k in found)
                and specification not in own_kernels(found[0].op)
            ):
                raise pytest.UsageError(
                    f"--kernel {specification!r} does not say what it computes: name one with --op"
                    f" ({', '.join(self.ops)}), or declare it with @kernel"
                )
        return chosen

    def start(self, environment: dict[str, Any], closing: contextlib.ExitStack) -> None:
        """Takes the run folder, where there is one. Raises ValueError where it is in use, or not
        for this run.
        """
        self.environment = environment
        if self.store is None:
            return
        if not self.worker:  # a worker's controller has done so for all
            closing.enter_context(held(self.store.folder))
            if self.resume:
                self._resumed = self._resumable()
            else:
                refuse_records(self.store.folder)
            self.store.write_environment(environment)
        if self.resume:
            for record in read_records(self.store.folder, []):
                if (record.env_id, record.strict) == (environment["env_id"], self.strict):
                    self._recorded[_key(record)] = record
            for record in sorted(self._recorded.values(), key=lambda record: record.started):
                self.hosts.recall(record)

    def configuration(self) -> Configuration:
        """What this run was asked, and the code that does it; not yet how many records that makes."""
        return Configuration(
            asked=self._asked,
            kernels={
                f"{op} {kernel.id}": kernel.version
                for op in sorted(self.kernels)
                for kernel in self.kernels[op]
            },
            code=code_digests({"suite": Path(__file__).parent, "cases": cases_folder()}),
            env_id=self.environment["env_id"],
            shard=self.shard,
        )

    def _resumable(self) -> Configuration:
        """The configuration of the run in the folder. Raises ValueError, with every difference,
        where it is not this one.
        """
        assert self.store is not None
        folder = self.store.folder
        then, now = read_configuration(folder), self.configuration()
        found = differences(then, now)
        if then.shard != now.shard:
            found.append(f"--shard: {then.shard} then, {now.shard} now")
        if then.env_id != now.env_id:
            facts = unlike_facts(read_environment(folder, []), self.environment)
            found += facts or [f"environment: {then.env_id} then, {now.env_id} now"]
        if found:
            raise ValueError(_refusal(folder, found))
        return then

    def plan(self, planned: int) -> None:
        """Writes run.json before the first record: what this run will be when it is whole. Raises
        ValueError, as start().
        """
        if self.store is None or self.worker:
            return
        if self._resumed is None:
            self._resumed = replace(self.configuration(), planned=planned)
            self.store.write_json(FILE, self._resumed.to_dict())
        elif self._resumed.planned != planned:
            line = f"evaluations selected: {self._resumed.planned} then, {planned} now"
            raise ValueError(_refusal(self.store.folder, [line]))

    @property
    def narrowed(self) -> bool:
        """Whether a kernel may not have met all cases of the profile."""
        return bool(self.patterns) or self.shard != ALL

    def existing_cases(self) -> set[str]:
        """The ids of all cases of the largest profile, in the modules that were collected."""
        return {case.id for specification in self.specifications for case in specification.cases("full")}

    def evaluate(self, case: Case, kernel: Kernel, dtype: str) -> Record:
        """The engine's record of a case, with what this session shares; a resumed run's own, where
        it has one.
        """
        from suite.execution.evaluation import evaluate

        recorded = self._recorded.get((kernel.id, case.op, case.id, dtype, self.device))
        if recorded is not None:
            self.records.append(recorded)
            return recorded
        record = evaluate(
            case,
            kernel,
            dtype=dtype,
            device=self.device,
            oracle=self.oracle,
            host=self.hosts.of(kernel),
            timeout=self.timeout,
            store=self.store,
            known=self.known,
            strict=self.strict,
            env_id=self.environment["env_id"],
        )
        self.records.append(record)
        return record


def _key(record: Record) -> tuple[str, ...]:
    return record.kernel, record.op, record.case, record.dtype, record.device


def _refusal(folder: Path, found: Sequence[str]) -> str:
    return "\n  ".join([f"--resume: the run in {str(folder)!r} is another one than this:", *found])


def session_of(config: pytest.Config) -> Session:
    """This process's session, made on first use: a run of ordinary tests beside the cases pays nothing."""
    session = config.stash.get(SESSION, None)
    if session is None:
        if config.option.isolate == "always" or (config.option.isolate == "outside" and config.option.kernel):
            start_server()

        import torch

        from suite.oracle.libm import accuracy
        from suite.records.environment import probe

        option = config.option
        _check_device(option.device)
        if option.resume and option.out is None:
            raise pytest.UsageError("--resume goes on with the run in a folder: name it with --out")
        if not 1 <= option.threads <= MOST_THREADS:
            raise pytest.UsageError(f"--threads {option.threads} must be from 1 to {MOST_THREADS}")
        try:
            shards(option.shard)
            session = Session(config)
            with contextlib.ExitStack() as closing:
                # Workers beside each other would wait for one another's threads, and digests depend
                # on their number.
                closing.callback(torch.set_num_threads, torch.get_num_threads())
                closing.callback(session.hosts.close)
                torch.set_num_threads(option.threads)
                session.start({**probe(session.device), "libm": asdict(accuracy())}, closing)
                session.close = closing.pop_all().close
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        except StoreError as error:
            stop(config, error)
        except OSError as error:
            if error.errno in FULL:
                stop(config, StoreError(option.out, error))
            raise pytest.UsageError(f"--out {str(option.out)!r} cannot be made: {error.strerror}") from None
        config.stash[SESSION] = session
    return session


def stop(config: pytest.Config, error: StoreError) -> NoReturn:
    """Ends the run at once, with the error's text and no traceback."""
    config.stash[STOPPED] = str(error)
    pytest.exit(str(error), returncode=STORE_EXIT_CODE)


class _Stopper:
    """Ends the run when a record of any process could not be stored. The workers' reports come to
    their controller.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        text = dict(report.user_properties).get("store_error")
        if text is not None:
            self._config.stash[STOPPED] = str(text)
            pytest.exit(str(text), returncode=STORE_EXIT_CODE)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Stopper(config), "softmax-suite-stopper")


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    if session is not None:
        session.close()


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
    except Exception as error:  # each backend has its own, a module that is missing among them
        raise pytest.UsageError(f"--device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


THROUGHPUT = "test_throughput.py"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Throughput is measured where pytest-benchmark is asked for it, never beside verdicts."""
    if collection_path.name != THROUGHPUT or not collection_path.is_relative_to(cases_folder()):
        return None
    asked = any(config.getoption(name, default=False) for name in ("benchmark_enable", "benchmark_only"))
    return None if asked else True


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """pytest-benchmark knows the CPU; it must know the device too. It asks before there is a session."""
    device = config.option.device
    machine_info["softmax_suite"] = {"device": device, "threads": config.option.threads}
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():  # else the session says what is wrong
            machine_info["softmax_suite"]["gpu"] = torch.cuda.get_device_name(device)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Times of another device are not compared, where pytest-benchmark would warn alone."""
    here, there = (info.get("softmax_suite") for info in (machine_info, compared_benchmark["machine_info"]))
    if here is not None and there is not None and here != there:
        raise pytest.UsageError(f"these times are of {here}, those to compare with of {there}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """What was asked for is prepared before anything is collected, so that a wrong name is answered at once.

    First of all plugins: the controller of pytest-xdist collects nothing, and lets nobody after it be asked.
    """
    option = session.config.option
    if option.kernel or option.out or option.known_failures or option.device != "cpu" or option.resume:
        session_of(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    specification = getattr(metafunc.function, CASE_ATTRIBUTE, None)
    if specification is None:
        return
    assert isinstance(specification, CaseSpecification)
    session = session_of(metafunc.config)
    session.specifications.append(specification)
    cases = [
        c
        for c in specification.cases(session.profile)
        if c.op in session.ops and c.direction in session.directions
    ]
    if session.patterns:
        # An id names its case whatever the profile and direction; a pattern narrows them.
        everything = specification.cases("full") if specification.may_have(session.patterns) else []
        named = [case for case in everything if case.id in session.patterns and case.op in session.ops]
        cases = named + [
            c for c in cases if c not in named and any(fnmatchcase(c.id, p) for p in session.patterns)
        ]
    session.selected |= bool(cases)
    triples = [
        (case, dtype, kernel)
        for case in cases
        if in_shard(case.id, session.shard)
        for dtype in session.dtypes
        if dtype in specification.dtypes or case.id in session.patterns
        for kernel in session.kernels[case.op]
        if case.profile == "smoke" or not kernel.slow or case.id in session.patterns
    ]
    metafunc.parametrize(
        "evaluate", triples, ids=[f"{c.id}-{d}-{k.id}" for c, d, k in triples], indirect=True
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A case function that has nothing to run here, for its profile or its op, is no item: pytest
    would skip an empty one.
    """
    empty = [
        item
        for item in items
        if hasattr(getattr(item, "function", None), CASE_ATTRIBUTE)
        and not isinstance(_parameters(item), tuple)
    ]
    if empty:
        items[:] = [item for item in items if item not in empty]
        config.hook.pytest_deselected(items=empty)


def _parameters(item: pytest.Item) -> Any:
    return item.callspec.params.get("evaluate") if hasattr(item, "callspec") else None


@pytest.fixture
def evaluate(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Calls the engine on this item's case, kernel and dtype, and turns the record into the item's
    outcome.
    """
    case, dtype, kernel = request.param
    session = session_of(request.config)

    def run() -> None:
        __tracebackhide__ = True
        record, unwritten = None, ""
        try:
            record = session.evaluate(case, kernel, dtype)
        except StoreError as error:
            unwritten = str(error)
            request.node.user_properties.append(("store_error", unwritten))
        if record is None:
            pytest.fail(unwritten, pytrace=False)
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
        try:
            shared.store.close()
        except StoreError as error:
            if STOPPED not in session.config.stash:
                stop(session.config, error)
    trim(default_folder())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """A worker has collected, and evaluates nothing before its controller has seen what all workers
    collected.
    """
    _plan(node.config, sum(_EVALUATION.search(name) is not None for name in ids))


def _plan(config: pytest.Config, planned: int) -> None:
    session = config.stash.get(SESSION, None)
    if session is None:
        return
    try:
        session.plan(planned)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    except StoreError as error:
        stop(config, error)


def pytest_collection_finish(session: pytest.Session) -> None:
    """A --case that matches nothing is misuse, answered with what there is."""
    shared = session.config.stash.get(SESSION, None)
    if shared is None or hasattr(session.config, "workerinput"):
        return
    evaluated = [_parameters(item) for item in session.items]
    _check_patterns(shared, evaluated)
    _plan(session.config, sum(isinstance(parameters, tuple) for parameters in evaluated))


def _check_patterns(shared: Session, evaluated: Sequence[Any]) -> None:
    chosen = {parameters[0].id for parameters in evaluated if isinstance(parameters, tuple)}
    for pattern in shared.patterns:
        if any(fnmatchcase(case, pattern) for case in chosen):
            continue
        existing = sorted(shared.existing_cases())
        if not any(fnmatchcase(case, pattern) for case in existing):
            near = difflib.get_close_matches(pattern, existing, n=3, cutoff=0.1)
            some = ", ".join(near or existing[:3])
            raise pytest.UsageError(
                f"--case {pattern!r} matches no case; `softmax-suite list cases` has all, such as {some}"
            )
