"""Starts pytest on the cases for `run` and `check`, with this suite's own progress and no terminal
output of pytest's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

import pytest
from _pytest.terminal import TerminalReporter

from suite import plugin
from suite.ops import get_op
from suite.records.configuration import ALL, Configuration, digest, in_shard
from suite.records.known_failures import read, stale
from suite.records.record import PASSING, Record, summary_class
from suite.records.store import StoreError, read_measurements
from suite.selection import cases_folder

LINE_SECONDS = 5.0


class MisuseError(Exception):
    """The request makes no sense; the text says what and shows the valid choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run of cases left: its records, those it resumed among them, its environment, stale
    known failures, and how it ended. stopped: why its folder took no more. empty_shard: all cases
    that were selected are in other shards.
    """

    records: tuple[Record, ...]
    environment: dict[str, Any]
    stale: tuple[str, ...] = ()
    interrupted: bool = False
    errors: tuple[str, ...] = ()
    stopped: str = ""
    empty_shard: bool = False

    @property
    def exit_code(self) -> int:
        """0 passed, known_failure or unsupported, or a shard without cases; 1 anything else; 3
        nothing judged; 4 internal error or a full disk; 130 interrupted.
        """
        if self.interrupted:
            return 130
        if self.errors or self.stopped:
            return 4
        if any(r.status not in PASSING for r in self.records) or self.stale:
            return 1
        return 0 if self.empty_shard or any(r.status != "unsupported" for r in self.records) else 3


def run_cases(arguments: Sequence[str], *, measure: Literal["none", "torch", "all"] = "none") -> Result:
    """Runs pytest on all cases with these options of the plugin. Raises MisuseError for options
    that make no sense.

    measure: then also measures each kernel for the report's chapters, into the run folder; "torch":
    those of gradients alone, of torch's own kernels.
    """
    watcher = _Watcher(sys.stderr)
    command = [
        "-c",
        str(Path(__file__).parent / "pytest.ini"),
        f"--rootdir={cases_folder()}",
        f"--confcutdir={cases_folder()}",
        "-p",
        "suite.plugin",
        # nobody reads it, and pytest's own parses the source of every case that is expected to fail
        "--tb=native",
        *arguments,
        str(cases_folder()),
    ]
    # The user's own pytest plugins and options have no part in this run.
    kept = {name: os.environ.get(name) for name in ("PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")}
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        code = pytest.main(command, plugins=[watcher])
    finally:
        watcher.close()
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    if code == pytest.ExitCode.USAGE_ERROR and not watcher.stopped:
        raise MisuseError(watcher.usage_error())
    session = watcher.session
    if session is None:
        return Result(
            records=(),
            environment={},
            interrupted=watcher.interrupted,
            errors=tuple(watcher.errors),
            stopped=watcher.stopped,
        )
    if measure != "none" and not watcher.interrupted and not watcher.stopped:
        try:
            _measure(session, watcher.environment["env_id"], sys.stderr, torch_only=measure == "torch")
        except KeyboardInterrupt:
            watcher.interrupted = True
        except StoreError as error:
            watcher.stopped = str(error)
    ran = {record.kernel for record in session.records}
    entries = [] if session.strict else [entry for entry in session.known if entry.kernel in ran]
    existing = session.existing_cases() if entries else set()
    outdated = stale(entries, session.records, existing, narrowed=session.narrowed)
    return Result(
        records=tuple(session.records),
        environment=watcher.environment,
        stale=tuple(outdated),
        interrupted=watcher.interrupted,
        errors=tuple(watcher.errors),
        stopped=watcher.stopped,
        empty_shard=session.shard != ALL and session.selected and not session.records,
    )


def stale_in(records: Sequence[Record], configuration: Configuration) -> tuple[str, ...]:
    """The known failures that passed in the records of a whole run, which may have been made elsewhere.

    Raises ValueError where a list that the run had is not here.
    """
    asked = configuration.asked
    files, patterns = asked.get("known-failures"), asked.get("case")
    if not isinstance(files, dict) or not isinstance(patterns, list):
        raise ValueError("run.json does not say which known failures and cases were asked for")
    if asked.get("strict"):
        return ()
    entries = plugin.default_known_failures()
    for path, digest_then in files.items():
        if not Path(path).is_file() or digest(Path(path).read_bytes()) != digest_then:
            raise ValueError(f"known-failures file {path!r} is not here as it was when the runs were made")
        entries += read(Path(path))
    ran = {record.kernel for record in records}
    entries = [entry for entry in entries if entry.kernel in ran]
    # That an entry matches an existing case, each shard has checked: here every entry's own pattern
    # stands for one.
    existing = [record.case for record in records] + [entry.case for entry in entries]
    return tuple(stale(entries, records, existing, narrowed=bool(patterns)))


def _differentiated(op: str) -> str:
    """torch's own kernel, whose gradients are measured where nobody asked; empty for none."""
    own = get_op(op).torch
    return own.differentiated if own is not None else ""


def _measure(session: plugin.Session, env_id: str, stream: TextIO, *, torch_only: bool) -> None:
    """Appends the measurements of every kernel and dtype of the session to its run folder, but
    those that are there; of the backward also those of depth, which are no kernel's.

    A shard takes its share of the kernels. torch_only: chapters of gradients of torch's own
    kernels; depth from quick on.
    """
    from suite.studies import depth
    from suite.studies.measure import chapters_of, measure_kernel

    assert session.store is not None
    there = set(read_measurements(session.store.folder, []))
    directions = ("backward",) if torch_only else session.directions
    pairs = [
        (kernel, dtype)
        for op in session.ops
        for kernel in session.kernels[op]
        for dtype in session.dtypes
        if in_shard(f"{op} {kernel.id} {dtype}", session.shard)
        and not (torch_only and kernel.id != _differentiated(op))
        and any(
            (chapter, op, kernel.id, dtype, session.device) not in there
            for chapter in chapters_of(op, directions)
        )
    ]
    shown = time.monotonic()
    with contextlib.closing(session.store) as store, session.hosts:
        for number, (kernel, dtype) in enumerate(pairs):
            if time.monotonic() - shown > LINE_SECONDS:
                shown = time.monotonic()
                print(
                    f"measuring {number} of {len(pairs)}: {kernel.op} {kernel.id} {dtype}",
                    file=stream,
                    flush=True,
                )
            for measurement in measure_kernel(
                kernel, dtype, device=session.device, host=session.hosts.of(kernel), directions=directions
            ):
                if (measurement.kind, kernel.op, kernel.id, dtype, session.device) not in there:
                    store.append_measurement(replace(measurement, env_id=env_id))
        deep = (
            "backward" in directions
            and in_shard("depth", session.shard)
            and not (torch_only and session.profile == "smoke")
        )
        if deep and "depth" not in {key[0] for key in there}:
            print("measuring gradients through depth", file=stream, flush=True)
            for measurement in depth.measure(dtypes=session.dtypes):
                store.append_measurement(replace(measurement, env_id=env_id))


class _Watcher:
    """A pytest plugin: silences pytest's reporter, shows progress, keeps the session and what went
    wrong inside pytest.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._silent = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
        self._counts: Counter[str] = Counter()
        self._total = 0
        self._shown = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._misuse = ""
        self.session: plugin.Session | None = None
        self.environment: dict[str, Any] = {}
        self.errors: list[str] = []
        self.interrupted = False
        self.stopped = ""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        reporter = config.pluginmanager.unregister(name="terminalreporter")
        if reporter is not None:
            config.pluginmanager.register(TerminalReporter(config, self._silent), "terminalreporter")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._keep(session.config)
        self._total = len(session.items)
        if self._total and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("judging"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self._stream),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            if report.failed:
                self.errors.append(f"{report.nodeid}: {_crash(report)}")
            return
        properties = dict(report.user_properties)
        status = properties.get("status")
        if "store_error" in properties:
            return
        if status is None:
            self.errors.append(f"{report.nodeid}: {_crash(report) if report.failed else 'no record'}")
            return
        self._counts[summary_class(str(status))] += 1
        done = sum(self._counts.values())
        text = ", ".join(f"{count} {name}" for name, count in sorted(self._counts.items()))
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=text)
        elif time.monotonic() - self._shown > LINE_SECONDS:
            self._shown = time.monotonic()
            print(f"judging {done} of {self._total}: {text}", file=self._stream, flush=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(f"{report.nodeid}: {_crash(report)}")

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.interrupted |= isinstance(excinfo.value, KeyboardInterrupt) and not isinstance(
            excinfo.value, pytest.Session.Interrupted
        )

    def pytest_internalerror(self, excrepr: Any) -> None:
        self.errors.append(str(excrepr).splitlines()[-1])

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Any:
        """Keeps a usage error for the command to show, which pytest would print in its own words."""
        try:
            plugin.session_of(session.config)
            return (yield)
        except pytest.UsageError as error:
            self._misuse = str(error)
            raise pytest.exit.Exception("misuse", pytest.ExitCode.USAGE_ERROR) from None

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        self._keep(config)
        if self._bar is not None:
            self._bar.stop()

    def close(self) -> None:
        self._silent.close()

    def usage_error(self) -> str:
        return self._misuse or "; ".join(self.errors) or "the options are not understood"

    def _keep(self, config: pytest.Config) -> None:
        self.session = config.stash.get(plugin.SESSION, None)
        self.stopped = config.stash.get(plugin.STOPPED, "")
        if self.session is not None:
            self.environment = self.session.environment


def _crash(report: pytest.TestReport | pytest.CollectReport) -> str:
    """What went wrong, in one line: the exception with its text."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else report.longreprtext.strip().splitlines()[-1]
    return text.splitlines()[0]
