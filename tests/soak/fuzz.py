"""5,000 generated bad command lines, kernel files, record files and tensors: python -m
tests.soak.fuzz --tries 5000 --seed 0

Each try runs the real command in a folder of its own and must end with a contracted exit code,
without a traceback, with a message that shows what was wrong, with every record that was there
before, with no file elsewhere, and in time. Most run in worker processes that import the package
once; every 50th is a process of its own. A try that hangs or kills its worker is found by the
parent, which reads the stack and starts another worker.

Exit code 1 where anything was found. One try again, with its files kept: --only "tensors:17".
"""

import argparse
import contextlib
import faulthandler
import hashlib
import importlib
import io
import json
import os
import queue
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.soak import generators
from tests.soak.bad_kernels import kernel_files
from tests.soak.generators import RUNS, add_oddities, make_template

ROOT = Path(__file__).parent.parent.parent
CONTRACTED = (0, 1, 2, 3)
"""4 is an internal error and 130 an interruption: right only where a disk is full, or somebody interrupts."""
LIMIT_SECONDS = 120.0
"""A whole bench takes half a minute, and longer beside other work."""

WORKER_TRIES = 400
PROCESS_EVERY = 50
MEMORY_BYTES = 16 * 2**30
GENERATORS = {
    "command lines": (generators.command_lines, 0.42),
    "kernel files": (kernel_files, 0.12),
    "record files": (generators.record_files, 0.2),
    "tensors": (generators.tensors, 0.22),
    "known failures": (generators.known_failure_files, 0.04),
}
"""Each class with its share of the tries."""
FAULTS = {
    "traceback": "tracebacks",
    "exit code": "uncontracted exit codes",
    "lost record": "lost records",
    "silent": "messages that do not say what was wrong",
    "stray file": "stray files",
    "hang": "hangs",
    "crash": "crashes",
}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a command ended."""

    code: object
    output: str
    seconds: float


# The judge of a try: what must hold whatever the command was.


def faults(attempt, finished, before, after):
    """[(fault, words)] of a command: before and after are what contents() said of its folder."""
    found = []
    code, output = finished.code, finished.output
    if "Traceback (most recent call last)" in output:
        found.append(("traceback", output[output.index("Traceback (most recent") :].strip().splitlines()[-1]))
    no_room = code == 4 and re.search(r"run folder '.*' cannot be written", output)
    if code not in CONTRACTED and not no_room and not (code == 130 and attempt.interrupted):
        found.append(("exit code", f"{code}: {(output.strip().splitlines() or [''])[-1]}"))
    if code == 2 and not shows(output, attempt.shown):
        found.append(("silent", f"code 2 without what was wrong: {output.strip()[-200:]!r}"))
    if code in (1, 3) and not output.strip():
        found.append(("silent", f"code {code} without a word"))
    for file, lines in before.records.items():
        lost = [line for line in lines if line not in after.everything.get(Path(file).parent.as_posix(), ())]
        if lost:
            found.append(("lost record", f"{len(lost)} of {len(lines)} in {file}"))
    written = {*attempt.written, *_named(attempt.arguments)}
    if "report" in attempt.arguments:  # records.csv stands beside the page
        written |= {os.path.normpath(f"{path}/../records.csv") for path in written}
    for path in sorted(after.files.keys() | before.files.keys()):
        if before.files.get(path) != after.files.get(path) and not _below(path, written):
            found.append(("stray file", f"{path} {'was changed' if path in before.files else 'is new'}"))
    return found


def shows(output, values):
    """Whether a message shows one of the values, as it is or as Python writes it, the first 30
    characters of a long one.
    """
    if re.search(
        r"Missing (option|argument|parameter)|requires (an|\d) argument|extra argument \(\)", output
    ):
        return True
    message = output.partition("Error: ")[2] or output
    for value in values:
        for part in {
            value,
            *value.split("=", 1),
            value.rpartition(":")[0],
            value[:2] if value.startswith("-") else value,
        }:
            forms = (
                part,
                repr(part),
                repr(part)[1:-1],
                part.encode("utf-8", "replace").decode(),
                part.replace("\udcff", "\ufffd"),
                part.encode("utf-8", "backslashreplace").decode(),
                repr(str(Path(part))) if "\0" not in part else "",
            )
            if any(form and form[:30] in message for form in forms):
                return True
    return False


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Of a folder: digest by file, the records' lines by file, and all lines of its record files by
    folder.
    """

    files: dict
    records: dict
    everything: dict


def contents(folder):
    files, records, everything = {}, {}, {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or "__pycache__" in path.parts:
            continue
        name = path.relative_to(folder).as_posix()
        data = path.read_bytes()
        files[name] = hashlib.blake2b(data, digest_size=8).hexdigest()
        if path.name.startswith("records-") and path.suffix == ".jsonl":
            lines = [line.strip(b"\r") for line in data.split(b"\n")]
            records[name] = [line for line in lines if _is_record(line)]
            everything.setdefault(Path(name).parent.as_posix(), set()).update(lines)
    return Contents(files=files, records=records, everything=everything)


def _is_record(line):
    try:
        return "status" in json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return False


def _named(arguments):
    """The paths that a command line names: each word, and what follows its first =."""
    for word in arguments:
        for path in (word, word.partition("=")[2]):
            if path not in ("", "."):
                yield os.path.normpath(path.replace("\0", ""))


def _below(path, parents):
    return any(path == parent or path.startswith(f"{parent}/") for parent in (*parents, "runs"))


# One try.


def attempt_of(kind, number, seed, folder, template):
    """The try of a class and number, with its files in `folder`: a copy of the template, spoiled."""
    shutil.copytree(template, folder, symlinks=True)
    add_oddities(folder)
    generate, _ = GENERATORS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile about two members of one name, which are the point
        return generate(random.Random(f"{seed}|{kind}|{number}"), folder)


def judge_try(kind, number, seed, place, template, run):
    """(Try, Finished, faults) of a try in a new folder below `place`."""
    folder = place / f"{kind.replace(' ', '-')}-{number}"
    attempt = attempt_of(kind, number, seed, folder, template)
    before = contents(folder)
    finished = run(attempt.arguments, folder)
    found = faults(attempt, finished, before, contents(folder))
    return attempt, finished, found


def in_this_process(command):
    """A runner that calls `command` like the console script, with everything that it or its
    libraries print kept.
    """

    def run(arguments, folder):
        with kept_state(), tempfile.TemporaryFile() as sink:
            os.chdir(folder)
            started = time.perf_counter()
            with redirected(sink):
                code = exit_code(command, arguments)
            seconds = time.perf_counter() - started
            sink.seek(0)
            output = sink.read().decode("utf-8", "replace")
        return Finished(code=code, output=output, seconds=seconds)

    return run


def exit_code(command, arguments):
    """What the process would end with. An exception that leaves the command prints its traceback,
    as Python does.
    """
    try:
        command(list(arguments))
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def redirected(sink):
    """File descriptors 1 and 2 and Python's streams go to `sink`, encoded as in a terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    streams, copies = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    os.dup2(sink.fileno(), 1)
    os.dup2(sink.fileno(), 2)
    sys.stdout = io.TextIOWrapper(
        io.FileIO(1, "w", closefd=False), encoding="utf-8", errors="strict", write_through=True
    )
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        for number, copy in enumerate(copies, start=1):
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def kept_state():
    """The process as it was: folder, paths, environment, signals and recursion limit, whatever a
    kernel file did to them.
    """
    folder, paths, environment = Path.cwd(), list(sys.path), dict(os.environ)
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    limit = sys.getrecursionlimit()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            os.chdir(folder)
            sys.path[:] = paths
            if dict(os.environ) != environment:
                os.environ.clear()
                os.environ.update(environment)
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():
                    signal.signal(number, handler)
            sys.setrecursionlimit(limit)


def as_a_process(arguments, folder):
    """A runner that starts `python -m suite`. A process that takes too long is killed with all that
    it started.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "suite", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=2 * LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Finished(code="hang", output=output.decode("utf-8", "replace"), seconds=2 * LIMIT_SECONDS)
    return Finished(
        code=process.returncode,
        output=output.decode("utf-8", "replace"),
        seconds=time.perf_counter() - started,
    )


def can_be_a_process(arguments):
    """Whether an operating system can hand these words to a program."""
    try:
        return not any(b"\0" in os.fsencode(word) or len(word) > 100_000 for word in arguments)
    except UnicodeEncodeError:
        return False


# Workers: processes that make tries one after another, and the parent's side of them.


def load_command(name):
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def work(place, template, seed, command):
    """A worker: reads `[kind, number]` lines, answers each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a generator prints is no answer
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with (place / "stack.txt").open("w") as stack:
        faulthandler.register(signal.SIGUSR1, file=stack, all_threads=True)
        run = in_this_process(load_command(command))
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            kind, number = json.loads(line)
            report = one_answer(kind, number, place, template, seed, run)
            print(json.dumps(report), file=answers, flush=True)


def one_answer(kind, number, place, template, seed, run):
    folder = place / f"{kind.replace(' ', '-')}-{number}"
    attempt, finished, found = judge_try(kind, number, seed, place, template, run)
    if number % PROCESS_EVERY == 0 and can_be_a_process(attempt.arguments) and not found:
        shutil.rmtree(folder)
        attempt, finished, found = judge_try(kind, number, seed, place, template, as_a_process)
        processes = 1
    else:
        processes = 0
    sites = [(fault, words, site(words)) for fault, words in found]
    if any(fault in ("traceback", "exit code") for fault, _ in found):
        shutil.rmtree(folder)
        where = raised_at(attempt_of(kind, number, seed, folder, template), folder)
        sites = [(fault, f"{words} [{where}]", where) if where and fault in ("traceback",
            "exit code") else (fault, words, same)
                 for fault, words, same in sites]  # fmt: skip
    shutil.rmtree(folder)
    return {
        "faults": sites,
        "arguments": [word[:80] for word in attempt.arguments],
        "code": finished.code,
        "seconds": finished.seconds,
        "processes": processes,
    }


def site(words):
    """The words without what differs from try to try."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+|odd\S*", "_", words)[:100]


def raised_at(attempt, folder):
    """The place in the package where the exception behind an internal error was raised."""
    from suite.commands.main import cli

    def command(arguments):
        try:
            cli.main(args=arguments, prog_name="softmax-suite", standalone_mode=False)
        except Exception as error:
            frames = [
                f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}suite{os.sep}" in f.filename
            ]
            last = (frames or traceback.extract_tb(error.__traceback__))[-1]
            places.append(f"{last.filename.removeprefix(f'{ROOT}/')}:{last.lineno} {type(error).__name__}")

    places = []
    in_this_process(command)(attempt.arguments, folder)
    return places[0] if places else ""


class Worker:
    """The parent's side of a worker process."""

    def __init__(self, place, template, seed, command):
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        arguments = [
            "--work",
            str(place),
            "--template",
            str(template),
            "--seed",
            str(seed),
            "--command",
            command,
        ]
        with (place / "stderr.txt").open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.fuzz", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self.tries = 0
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(
                f"a worker cannot start: {(place / 'stderr.txt').read_text(errors='replace')[-2000:]}"
            )

    def ask(self, kind, number, seconds):
        """The worker's answer, or that of the parent where it hangs or died: then `alive` is False."""
        self.tries += 1
        self.process.stdin.write((json.dumps([kind, number]) + "\n").encode())
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        if ready:
            code = self.process.wait()
            last = (self.place / "stderr.txt").read_text(errors="replace").strip().rpartition("\n")[2]
            return self._fault("crash", f"the process died with {code}: {last}")
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        stack = (self.place / "stack.txt").read_text(errors="replace")
        frames = re.findall(
            r'File "([^"]+)", line (\d+) in (\S+)', stack.rpartition("Current thread")[2] or stack
        )
        shown = [f"{Path(f).name}:{n} {name}" for f, n, name in frames]
        inside = next(
            (f"{Path(f).name}:{n}" for f, n, _ in frames if "/suite/" in f), shown[0] if shown else "?"
        )
        return self._fault("hang", f"no answer in {seconds:g} s: {inside} < {' < '.join(shown[:4])}", inside)

    def _fault(self, fault, words, same=None):
        self.stop()
        return {
            "faults": [(fault, words, same or words)],
            "arguments": [],
            "code": fault,
            "seconds": 0.0,
            "processes": 0,
        }

    @property
    def alive(self):
        return self.process.returncode is None

    def stop(self):
        """Ends it with everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def run_all(
    tries, *, place, template, seed, command="suite.commands.main:main", workers=2, seconds=LIMIT_SECONDS
):
    """Yields (kind, number, answer) of each (kind, number), as workers give them."""
    waiting, answers = queue.Queue(), queue.Queue()
    for one in tries:
        waiting.put(one)

    def drive(name):
        worker, made = None, 0
        while True:
            try:
                kind, number = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None or not worker.alive or worker.tries >= WORKER_TRIES:
                if worker is not None and worker.alive:
                    worker.stop()
                made += 1
                worker = Worker(place / f"{name}-{made}", template, seed, command)
            answers.put(
                (kind, number, worker.ask(kind, number, seconds * (3 if number % PROCESS_EVERY == 0 else 1)))
            )
        if worker is not None and worker.alive:
            worker.stop()

    threads = [threading.Thread(target=drive, args=(f"worker{n}",), daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    for _ in tries:
        yield answers.get()
    for thread in threads:
        thread.join()


# The numbers.


def schedule(count, kinds):
    """[(kind, number)]: so many tries of each class as its share says, mixed."""
    total = sum(GENERATORS[kind][1] for kind in kinds)
    numbers = {kind: round(count * GENERATORS[kind][1] / total) for kind in kinds}
    numbers[kinds[0]] += count - sum(numbers.values())
    tries = [(kind, number) for kind, size in numbers.items() for number in range(size)]
    random.Random(0).shuffle(tries)
    return tries


class Tally:
    """Counts of tries and faults, each fault once for each place that it comes from."""

    def __init__(self):
        self.tries, self.faults, self.codes, self.sites = Counter(), Counter(), Counter(), {}
        self.processes, self.slowest = 0, (0.0, "")

    def add(self, kind, number, answer):
        self.tries[kind] += 1
        self.codes[str(answer["code"])] += 1
        self.processes += answer["processes"]
        self.slowest = max(self.slowest, (answer["seconds"], f"{kind}:{number}"))
        for fault, words, same in answer["faults"]:
            self.faults[fault] += 1
            self.sites.setdefault((fault, same), []).append((f"{kind}:{number}", words, answer["arguments"]))

    def lines(self):
        for (fault, _), found in sorted(self.sites.items(), key=lambda item: -len(item[1])):
            first, words, arguments = found[0]
            yield f"{fault} x{len(found)}, such as --only '{first}': {words[:300]}"
            yield f"    {arguments}"
            yield f"    also {', '.join(name for name, _, _ in found[1:6])}" if len(found) > 1 else ""

    def summary(self, seconds):
        classes = ", ".join(f"{count} {kind}" for kind, count in self.tries.items())
        counts = ", ".join(f"{self.faults[fault]} {plural}" for fault, plural in FAULTS.items())
        codes = ", ".join(f"{count} of {code}" for code, count in sorted(self.codes.items()))
        return (
            f"{sum(self.tries.values())} tries ({classes}; {self.processes} of them as processes) in"
            f" {seconds:.0f} s, the slowest {self.slowest[0]:.1f} s ({self.slowest[1]}); exit codes {codes}:"
            f" {counts}"
        )


def new_template(place):
    """A template made by the real command."""
    folder = place / "template"
    folder.mkdir(parents=True)

    def main(arguments):
        finished = as_a_process(arguments, folder)
        if finished.code:
            raise SystemExit(
                f"the template cannot be made: {arguments} ended with {finished.code}\n{finished.output}"
            )

    make_template(folder, main)
    assert all(list((folder / run).glob("records-*.jsonl")) for run in RUNS)
    return folder


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument(
        "--kind", action="append", choices=list(GENERATORS), help="only this class; repeatable"
    )
    parser.add_argument(
        "--only", metavar="KIND:NUMBER", help="one try again, with its output, in a folder that is kept"
    )
    parser.add_argument("--template", type=Path, help="a template that --only or a worker uses")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--command", default="suite.commands.main:main", help=argparse.SUPPRESS)
    parser.add_argument("--short", action="store_true", help="a twentieth of the tries")
    given = parser.parse_args(arguments)
    if given.short:
        given.tries //= 20
    return given


def main(arguments=None):
    given = parse(arguments)
    if given.work is not None:
        work(given.work, given.template, given.seed, given.command)
        return 0
    os.environ |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
    }
    if given.only is not None:
        return again(given)
    started, tally = time.perf_counter(), Tally()
    with tempfile.TemporaryDirectory(prefix="softmax-suite-fuzz-") as name:
        place = Path(name)
        os.environ |= {"HOME": str(place / "home"), "SOFTMAX_SUITE_CACHE": str(place / "cache")}
        (place / "home").mkdir()
        template = new_template(place)
        tries = schedule(given.tries, given.kind or list(GENERATORS))
        shown = time.monotonic()
        for kind, number, answer in run_all(
            tries, place=place, template=template, seed=given.seed, workers=given.workers
        ):
            tally.add(kind, number, answer)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(
                    f"{sum(tally.tries.values())} of {given.tries}: {dict(tally.faults)}",
                    file=sys.stderr,
                    flush=True,
                )
        for path in (
            path for path in (place / "home").glob("*") if path.name not in (".cache", ".config")
        ):  # matplotlib's
            tally.faults["stray file"] += 1
            tally.sites.setdefault(("stray file", "home"), []).append(("", f"{path} in the home folder", []))
    for line in filter(None, tally.lines()):
        print(line)
    print(tally.summary(time.perf_counter() - started))
    return 1 if tally.faults else 0


def again(given):
    """One try, with what it printed."""
    kind, _, number = given.only.rpartition(":")
    place = Path(tempfile.mkdtemp(prefix="softmax-suite-fuzz-"))
    template = given.template or new_template(place)
    attempt, finished, found = judge_try(
        kind, int(number), given.seed, place, template, in_this_process(load_command(given.command))
    )
    print(f"{place}\n{attempt}\n{finished.output[-5000:]}")
    print(f"exit code {finished.code} in {finished.seconds:.2f} s: {found or 'nothing wrong'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
