"""One request in, records out: `run`, `check`, `bench`, `reproduce` and the pytest plugin all judge
by a session.

    with Session(Request(ops=("softmax",), kernels=("my.py:f",))) as session:
        result = session.run()

Nothing else puts together hosts, oracle, store and environment. Importing this module wakes no
heavy library.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from suite.case import DIRECTIONS, PROFILES, CaseError, CaseSpecification
from suite.execution.isolation import MOST_THREADS, TIMEOUT_SECONDS, Isolate, start_server
from suite.formats import DTYPES
from suite.ops import NAMES
from suite.records.configuration import ALL, Configuration, code_digests, digest, shards
from suite.records.known_failures import KnownFailure, read, stale
from suite.records.record import PASSING, Record
from suite.records.run_folder import RunFolder
from suite.records.store import FULL, Store, StoreError
from suite.selection import (
    BrokenFileError,
    Evaluation,
    case_specifications,
    cases_folder,
    check_patterns,
    chosen_cases,
    chosen_kernels,
    evaluations,
    existing_cases,
)

if TYPE_CHECKING:
    from suite.case import Case
    from suite.kernels import Kernel


class MisuseError(Exception):
    """The request makes no sense; the text says what is wrong and shows the valid choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to judge, where and how. Raises MisuseError for values that do not go together."""

    ops: tuple[str, ...] = NAMES
    """Names of ops."""

    kernels: tuple[str, ...] = ()
    """NAME, FILE.py:FUNC or pkg.mod:FUNC; this suite's own that suit device and profile where empty."""

    dtypes: tuple[str, ...] = DTYPES
    """Names of formats."""

    direction: str = "forward"
    """"forward", "backward" or "both"."""

    device: str = "cpu"
    """Of the inputs: cpu, cuda, cuda:1, ..."""

    profile: str = "smoke"
    """How many cases, and whether slow kernels run by default."""

    patterns: tuple[str, ...] = ()
    """Case ids, or patterns of them; all cases of the profile where empty."""

    out: Path | None = None
    """The run folder; no records are written where None."""

    resume: bool = False
    """Go on with the run in the folder: what it has recorded is not evaluated again."""

    resumable: bool = True
    """Whether the caller can resume, which is advised where a folder holds records."""

    shard: str = ALL
    """"i/n": only part i of n of the cases, by their ids."""

    threads: int = 1
    """Of torch while kernels run. Digests depend on it."""

    isolate: Isolate = "outside"
    """Which kernels run in a process of their own."""

    timeout: float = TIMEOUT_SECONDS
    """Seconds that a kernel in a process of its own may take for a case."""

    memory: float | None = None
    """Gibibytes that such a process may take; half of this machine's where None."""

    strict: bool = False
    """Judge by best practice, whatever a kernel declares, and ignore known failures."""

    known_failures: tuple[Path, ...] = ()
    """Files of known failures, beside those that come with the cases."""

    measure: Literal["none", "torch", "all"] = "none"
    """What to measure for the report's chapters: nothing, the gradients of torch's own kernels, or all."""

    def __post_init__(self) -> None:
        if self.resume and self.out is None:
            raise MisuseError("--resume goes on with the run in a folder: name it with --out")
        if not 1 <= self.threads <= MOST_THREADS:
            raise MisuseError(f"--threads {self.threads} must be from 1 to {MOST_THREADS}")
        for option, given, valid in (
            ("--op", self.ops, NAMES),
            ("--dtype", self.dtypes, DTYPES),
            ("--profile", (self.profile,), PROFILES),
            ("--direction", (self.direction,), (*DIRECTIONS, "both")),
        ):
            for value in given:
                if value not in valid:
                    raise MisuseError(f"{option} {value!r} is not one of {', '.join(valid)}")
        try:
            shards(self.shard)
        except ValueError as error:
            raise MisuseError(str(error)) from None

    @property
    def directions(self) -> tuple[str, ...]:
        return DIRECTIONS if self.direction == "both" else (self.direction,)

    def asked(self) -> dict[str, Any]:
        """What of the request decides the records, as run.json holds it."""
        return {
            "profile": self.profile,
            "op": sorted(self.ops),
            "dtype": sorted(self.dtypes),
            "direction": self.direction,
            "case": sorted(set(self.patterns)),
            "device": self.device,
            "strict": self.strict,
            "isolate": self.isolate,
            "timeout": self.timeout,
            "memory": self.memory,
            "known-failures": {str(path): digest(path.read_bytes()) for path in self.known_failures},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a session left, and how it ended."""

    records: tuple[Record, ...]
    """Those of a run that was resumed among them."""

    environment: dict[str, Any]
    """This machine's identity, as in env.json."""

    stale: tuple[str, ...] = ()
    """Known failures that passed, or that no case has: a line each."""

    interrupted: bool = False
    """By Ctrl-C."""

    errors: tuple[str, ...] = ()
    """What went wrong in the suite itself: a line each."""

    stopped: str = ""
    """Why the run folder took no more."""

    empty_shard: bool = False
    """Whether all cases that were selected are in other shards."""

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


class Progress:
    """Hears how a run goes on. This one keeps it to itself."""

    def begin(self, total: int) -> None:
        """Before the first of so many evaluations."""

    def judged(self, record: Record) -> None:
        """After each evaluation, resumed ones included."""

    def end(self) -> None:
        """After the last evaluation, or an interruption."""

    def measuring(self, number: int, total: int, what: str) -> None:
        """Before each measurement."""


class Session:
    """Kernels, oracle, hosts, run folder and environment of one request. Use it as a context manager.

    Entering raises MisuseError where the request makes no sense here, and StoreError where the run
    folder cannot be written.
    """

    def __init__(self, request: Request, *, worker: bool = False) -> None:
        """worker: another process has taken the run folder, and this one writes to it beside others."""
        self.request = request
        self.records: list[Record] = []
        self.environment: dict[str, Any] = {}
        self._worker = worker
        self._specifications: list[CaseSpecification] = []
        self._selected = False
        self._recorded: dict[tuple[str, ...], Record] = {}
        self._folder: RunFolder | None = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Session:
        request = self.request
        with contextlib.ExitStack() as closing:
            try:
                if request.out is not None:
                    self._folder = RunFolder(
                        request.out,
                        closing,
                        resume=request.resume,
                        worker=self._worker,
                        resumable=request.resumable,
                    )
                self._start(closing)
            except ValueError as error:
                raise MisuseError(str(error)) from None
            except OSError as error:
                if request.out is None:
                    raise
                if error.errno in FULL:
                    raise StoreError(request.out, error) from None
                raise MisuseError(f"--out {str(request.out)!r} cannot be made: {error.strerror}") from None
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _start(self, closing: contextlib.ExitStack) -> None:
        request = self.request
        outside = any(":" in name or name.endswith(".py") for name in request.kernels)
        if request.isolate == "always" or (request.isolate == "outside" and outside):
            start_server()

        import torch

        from suite.execution.hosts import Hosts
        from suite.oracle import Oracle
        from suite.oracle.cache import default_folder, trim
        from suite.oracle.libm import accuracy
        from suite.records.environment import probe

        check_device(request.device)
        self.hosts = closing.enter_context(
            Hosts(isolate=request.isolate, memory_gibibytes=request.memory, timeout=request.timeout)
        )
        self.kernels = chosen_kernels(request, self.hosts)
        self.known = default_known_failures()
        for path in request.known_failures:
            self.known += read(path)
        # Workers beside each other would wait for one another's threads, and digests depend on
        # their number.
        closing.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(request.threads)
        self.oracle = Oracle(default_folder())
        closing.callback(trim, default_folder())
        self.environment = {**probe(request.device), "libm": asdict(accuracy())}
        if self._folder is not None:
            begun = self._folder.begin(self.configuration(), self.environment, strict=request.strict)
            self._recorded = {_key(record): record for record in begun}
            for record in begun:
                self.hosts.recall(record)

    @property
    def store(self) -> Store | None:
        """The store of the run folder, where there is one."""
        return self._folder.store if self._folder is not None else None

    def configuration(self) -> Configuration:
        """What this run was asked, and the code that does it; not yet how many records that makes."""
        return Configuration(
            asked=self.request.asked(),
            kernels={
                f"{op} {kernel.id}": kernel.version
                for op in sorted(self.kernels)
                for kernel in self.kernels[op]
            },
            code=code_digests({"suite": Path(__file__).parent, "cases": cases_folder()}),
            env_id=self.environment["env_id"],
            shard=self.request.shard,
        )

    def select(self, specification: CaseSpecification) -> list[Evaluation]:
        """The evaluations of one case function. Raises CaseError where it makes no sense."""
        self._specifications.append(specification)
        cases = chosen_cases(specification, self.request)
        self._selected |= bool(cases)
        return evaluations(cases, specification.dtypes, self.request, self.kernels)

    def plan(self, planned: int) -> None:
        """Writes run.json before the first record. Raises MisuseError where the run that is resumed
        is another one.
        """
        if self._folder is None:
            return
        try:
            self._folder.plan(self.configuration(), planned)
        except ValueError as error:
            raise MisuseError(str(error)) from None

    def check_patterns(self, chosen: Sequence[str]) -> None:
        """Raises MisuseError where a pattern matches no case; chosen: the ids of those selected."""
        try:
            check_patterns(self.request.patterns, chosen, self._specifications)
        except ValueError as error:
            raise MisuseError(str(error)) from None

    def run(self, progress: Progress | None = None) -> Result:
        """Evaluates all that the request selects, and measures what it asks for.

        Ctrl-C and a folder that takes no more end the run; the result says so. Raises MisuseError
        for a case that makes no sense, or a pattern that matches none.
        """
        from suite.studies import measure_missing

        progress = progress or Progress()
        errors, stopped, interrupted = list[str](), "", False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a kernel's own are in its record
                self._evaluate_all(progress, errors)
            if self.request.measure != "none":
                measure_missing(self, progress.measuring)
        except KeyboardInterrupt:
            interrupted = True
        except StoreError as error:
            stopped = str(error)
        except BrokenFileError as error:
            errors.append(str(error))
        except CaseError as error:
            raise MisuseError(str(error)) from None
        try:
            self.close_store()
        except StoreError as error:
            stopped = stopped or str(error)
        return Result(
            records=tuple(self.records),
            environment=self.environment,
            stale=tuple(self._stale()),
            interrupted=interrupted,
            errors=tuple(errors),
            stopped=stopped,
            empty_shard=self.request.shard != ALL and self._selected and not self.records,
        )

    def _evaluate_all(self, progress: Progress, errors: list[str]) -> None:
        wanted = [one for specification in case_specifications() for one in self.select(specification)]
        self.check_patterns([one.case.id for one in wanted])
        self.plan(len(wanted))
        progress.begin(len(wanted))
        try:
            for one in wanted:
                try:
                    progress.judged(self.evaluate(one.case, one.kernel, one.dtype))
                except StoreError:
                    raise
                except (Exception, SystemExit) as error:  # this suite's own fault: the other cases go on
                    text = (str(error).splitlines() or [""])[0]
                    errors.append(f"{one.id}: {type(error).__name__}: {text}")
        finally:
            progress.end()

    def evaluate(
        self,
        case: Case,
        kernel: Kernel,
        dtype: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        input_file: str = "",
    ) -> Record:
        """The record of a case, which is stored; the old one where the run is resumed and has it.

        inputs: in place of the case's own. input_file: where they are from; known failures are of
        cases, not of files. Raises StoreError where the run folder takes no more.
        """
        from suite.execution.evaluation import evaluate

        request = self.request
        record = self._recorded.get((kernel.id, case.op, case.id, dtype, request.device))
        if record is None:
            record = evaluate(
                case,
                kernel,
                dtype=dtype,
                device=request.device,
                oracle=self.oracle,
                host=self.hosts.of(kernel),
                timeout=request.timeout,
                store=self.store,
                known=() if input_file else self.known,
                strict=request.strict,
                env_id=self.environment["env_id"],
                inputs=inputs,
                input_file=input_file,
            )
        self.records.append(record)
        return record

    def close_store(self) -> None:
        """Forces what was recorded to the disk. Raises StoreError where that fails."""
        if self._folder is not None:
            self._folder.store.close()

    def _stale(self) -> list[str]:
        """What is wrong with the known failures of the kernels that ran."""
        ran = {record.kernel for record in self.records}
        entries = [] if self.request.strict else [entry for entry in self.known if entry.kernel in ran]
        existing = {record.case for record in self.records}
        unmet = [entry for entry in entries if not any(entry.names(case) for case in existing)]
        # To list every case takes a second: only those that entries without a case so far might mean.
        for specification in self._specifications:
            for case in existing_cases([specification], [entry.case for entry in unmet]):
                if any(entry.names(case) for entry in unmet):
                    existing.add(case)
                    unmet = [entry for entry in unmet if not entry.names(case)]
        narrowed = bool(self.request.patterns) or self.request.shard != ALL
        return stale(entries, self.records, existing, narrowed=narrowed)


def default_known_failures() -> list[KnownFailure]:
    """The entries that come with the cases, if any do."""
    path = cases_folder() / "known_failures.txt"
    return read(path) if path.is_file() else []


def check_device(device: str) -> None:
    """Raises ValueError where torch has no such device here, or it holds no values."""
    import torch

    known = "expected cpu, cuda, cuda:1, ..."
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"--device {device!r} is no device of torch; {known}") from None
    if kind == "meta":
        raise ValueError(f"--device {device!r} holds no values to judge; {known}")
    try:
        torch.empty(0, device=device)
    except Exception as error:  # each backend has its own, a module that is missing among them
        raise ValueError(f"--device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def _key(record: Record) -> tuple[str, ...]:
    return record.kernel, record.op, record.case, record.dtype, record.device
