"""The pytest plugin: cases meet kernels. Each item is one evaluate() of one case, kernel and dtype.

    pytest cases --op softmax --kernel my.py:f --dtype bfloat16

Loaded by the checkout's conftest.py, or with `-p suite.plugin`; never by an entry point, so it
slows down nobody's tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from suite.case import CASE_ATTRIBUTE, DIRECTIONS, PROFILES
from suite.execution.isolation import ISOLATE, TIMEOUT_SECONDS
from suite.formats import DTYPES
from suite.ops import NAMES
from suite.records.configuration import ALL
from suite.records.record import Record
from suite.records.store import StoreError
from suite.selection import THROUGHPUT, Evaluation, cases_folder
from suite.session import MisuseError, Request, Session

SESSION = pytest.StashKey[Session]()
STOPPED = pytest.StashKey[str]()
"""Why the run ended at once: its folder takes no more."""

STORE_EXIT_CODE = 4

_EVALUATION = re.compile(rf"\[({'|'.join(NAMES)})/.*-({'|'.join(DTYPES)})-.*\]$")
"""The end of the node id of an evaluation."""

_CASE_ERROR = "suite.case.CaseError: "
"""What pytest puts before the message of a case that makes no sense."""


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
        default=1,
        metavar="N",
        help="threads of torch while kernels run (default: 1)",
    )
    _add_processes(add)
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


def _add_processes(add: Callable[..., None]) -> None:
    """The options about the processes of kernels."""
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


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"{text} is not a positive number")
    return value


def request_of(option: Any) -> Request:
    """The request that pytest's options make. Raises MisuseError where they do not go together."""
    return Request(
        ops=tuple(option.op or NAMES),
        kernels=tuple(dict.fromkeys(option.kernel or ())),
        dtypes=tuple(option.dtype or DTYPES),
        direction=option.direction,
        device=option.device,
        profile=option.profile,
        patterns=tuple(option.case or ()),
        out=option.out,
        resume=option.resume,
        shard=option.shard,
        threads=option.threads,
        isolate=option.isolate,
        timeout=option.timeout,
        memory=option.memory,
        strict=option.ignore_declarations,
        known_failures=tuple(option.known_failures or ()),
    )


def session_of(config: pytest.Config) -> Session:
    """This process's session, made on first use: a run of ordinary tests beside the cases pays nothing."""
    session = config.stash.get(SESSION, None)
    if session is None:
        try:
            session = Session(request_of(config.option), worker=hasattr(config, "workerinput"))
            config.stash[SESSION] = session.__enter__()
        except MisuseError as error:
            raise pytest.UsageError(str(error)) from None
        except StoreError as error:
            stop(config, error)
        config.add_cleanup(lambda: session.__exit__())
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
    if specification is not None:
        selected = session_of(metafunc.config).select(specification)
        ids = [evaluation.id for evaluation in selected]
        metafunc.parametrize("evaluate", selected, ids=ids, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """A case that makes no sense is one message, without the traceback of its import."""
    report = yield
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None and crash.message.startswith(_CASE_ERROR):
        report.longrepr = crash.message.removeprefix(_CASE_ERROR)
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A case function that has nothing to run here, for its profile or its op, is no item: pytest
    would skip an empty one.
    """
    empty = [
        item
        for item in items
        if hasattr(getattr(item, "function", None), CASE_ATTRIBUTE) and evaluation_of(item) is None
    ]
    if empty:
        items[:] = [item for item in items if item not in empty]
        config.hook.pytest_deselected(items=empty)


def evaluation_of(item: pytest.Item) -> Evaluation | None:
    """What an item evaluates; None for an item that is no case."""
    parameter = item.callspec.params.get("evaluate") if hasattr(item, "callspec") else None
    return parameter if isinstance(parameter, Evaluation) else None


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
        conclude(record)

    return run


def conclude(record: Record) -> None:
    """Ends a test as its record says: nothing for passed, else skip, xfail or fail."""
    __tracebackhide__ = True
    if record.status == "unsupported":
        pytest.skip(f"unsupported: {record.message}")
    if record.status == "known_failure":
        pytest.xfail(record.known)
    if record.status != "passed":
        pytest.fail(f"{record.message}\n  reproduce {record.reproduce}", pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    shared = session.config.stash.get(SESSION, None)
    if shared is None:
        return
    try:
        shared.close_store()
    except StoreError as error:
        if STOPPED not in session.config.stash:
            stop(session.config, error)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """A worker has collected, and evaluates nothing before its controller has seen what all workers
    collected.
    """
    shared = node.config.stash.get(SESSION, None)
    if shared is not None:
        _plan(node.config, shared, sum(_EVALUATION.search(name) is not None for name in ids))


def pytest_collection_finish(session: pytest.Session) -> None:
    """A --case that matches nothing is misuse, answered with what there is."""
    shared = session.config.stash.get(SESSION, None)
    if shared is None or hasattr(session.config, "workerinput"):
        return
    evaluated = [one for one in map(evaluation_of, session.items) if one is not None]
    try:
        shared.check_patterns([one.case.id for one in evaluated])
    except MisuseError as error:
        raise pytest.UsageError(str(error)) from None
    _plan(session.config, shared, len(evaluated))


def _plan(config: pytest.Config, session: Session, planned: int) -> None:
    try:
        session.plan(planned)
    except MisuseError as error:
        raise pytest.UsageError(str(error)) from None
    except StoreError as error:
        stop(config, error)
