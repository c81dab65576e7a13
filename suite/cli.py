"""The command `softmax-suite`, also `python -m suite`.

Exit codes: 0 passed, known_failure or unsupported; 1 any other status, or a known failure that
passed; 2 misuse; 3 nothing judged; 4 internal error, or a full disk; 130 interrupted, report
written. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import click

from suite.case import DIRECTIONS, PROFILES
from suite.execution.isolation import ISOLATE, MOST_THREADS, TIMEOUT_SECONDS, Isolate
from suite.formats import DTYPES
from suite.ops import NAMES, ROW_OPS
from suite.version import __version__

if TYPE_CHECKING:
    from suite.records.record import Measurement, Record
    from suite.run import Result

RUNS = Path("runs")


class _Positive(click.FloatRange):
    """A number above 0 and up to a thousand million: NaN is none."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True, max=1e9)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        number = super().convert(value, param, context)
        if number != number:
            self.fail(f"{value!r} is not a number above 0", param, context)
        return float(number)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the options of selection() say: what runs, and where."""

    ops: tuple[str, ...]
    dtypes: tuple[str, ...]
    device: str
    direction: str
    patterns: tuple[str, ...]
    strict: bool
    known: tuple[Path, ...]
    resume: bool
    shard: str
    threads: int
    isolate: Isolate
    timeout: float
    memory: float | None


POSITIVE = _Positive()
OPTION_HELP = "An option of the op, such as reduction=none; repeatable."
F = TypeVar("F", bound=Callable[..., Any])


def misuse(text: str) -> NoReturn:
    raise click.UsageError(text)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="softmax-suite")
def cli() -> None:
    """Tells the truth about softmax kernels, against certified references, by proved bounds.

    \b
    softmax-suite check --op softmax --kernel my.py:f    judge your kernel
    softmax-suite run                                    run everything, write a report
    softmax-suite judge --op softmax --tensors dump.npz  judge saved tensors
    """


def selection(function: F) -> F:
    """The options that select what runs; shared by run and check."""
    for option in reversed(
        [
            click.option(
                "--op", "ops", multiple=True, type=click.Choice(NAMES), help="Only this op; may be repeated."
            ),
            click.option(
                "--dtype",
                "dtypes",
                multiple=True,
                type=click.Choice(DTYPES),
                help="Only this dtype; repeatable.",
            ),
            click.option(
                "--device",
                default="cpu",
                show_default=True,
                help="Device of the inputs: cpu, cuda, cuda:1, ...",
            ),
            click.option(
                "--direction",
                type=click.Choice((*DIRECTIONS, "both")),
                default="forward",
                show_default=True,
                help="Cases of the forward, of the backward (autograd's gradients), or of both.",
            ),
            click.option(
                "--case", "patterns", multiple=True, metavar="PATTERN", help="Only cases whose id matches."
            ),
            click.option(
                "--isolate",
                type=click.Choice(ISOLATE),
                default="outside",
                show_default=True,
                help="Which kernels run in a process of their own.",
            ),
            click.option(
                "--timeout",
                type=POSITIVE,
                default=TIMEOUT_SECONDS,
                metavar="S",
                help="Per case, where isolated.",
            ),
            click.option(
                "--memory", type=POSITIVE, metavar="GIB", help="Memory, where isolated. Default: half of it."
            ),
            click.option(
                "--strict", is_flag=True, help="Ignore what kernels declare; judge by best practice."
            ),
            click.option(
                "--known-failures", "known", multiple=True, type=click.Path(path_type=Path), metavar="FILE"
            ),
            click.option(
                "--json",
                "json_file",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Write records here.",
            ),
            click.option(
                "--resume",
                is_flag=True,
                help="Go on with the run in --out: what it has recorded is not run again.",
            ),
            click.option(
                "--shard",
                default="1/1",
                metavar="I/N",
                help="Only part I of N of the cases; merge joins the parts.",
            ),
            click.option(
                "--threads",
                type=click.IntRange(1, MOST_THREADS),
                default=1,
                show_default=True,
                help="Of torch, for kernels.",
            ),
        ]
    ):
        function = option(function)
    return function


@cli.command()
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="K",
    help="NAME, FILE.py:FUNC or pkg.mod:FUNC. Default: all own.",
)
@click.option(
    "--profile", type=click.Choice(PROFILES), default="smoke", show_default=True, help="How much to run."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Run folder. Default: runs/<time>.",
)
@click.option(
    "--measure/--no-measure",
    default=None,
    help=(
        "Measure each kernel for the chapters. Default: from profile standard on; before, torch's own for"
        " those of gradients."
    ),
)
@selection
def run(
    kernels: tuple[str, ...],
    profile: str,
    out: Path | None,
    measure: bool | None,
    json_file: Path | None,
    **selected: Any,
) -> None:
    """Runs the cases on kernels and writes records.csv, env.json and report.html."""
    folder = out or RUNS / datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
    chapters: Literal["none", "torch", "all"] = (
        "all" if measure or (measure is None and profile in ("standard", "full")) else "none"
    )
    if measure is None and chapters == "none" and selected["direction"] != "forward":
        chapters = "torch"
    if selected["resume"] and out is None:
        misuse("--resume goes on with the run in a folder: name it with --out")
    with _holding(folder, resume=selected["resume"]):
        result = _run(kernels, profile, Selection(**selected), out=folder, measure=chapters)
        _write_json(json_file, result)
        if result.records:
            _print_summary(result, verbose=False)
            _write_report(folder)
    _finish(result)


@cli.command()
@click.option(
    "--op",
    "ops",
    multiple=True,
    type=click.Choice(NAMES),
    help="Only this op; repeatable. Default: all but merge_states.",
)
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="K",
    help="NAME, FILE.py:FUNC or pkg.mod:FUNC. Default: all own.",
)
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), help="Only this dtype; repeatable."
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--direction", type=click.Choice((*DIRECTIONS, "both")), default="forward", show_default=True)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="SHAPE",
    help="Such as 4096x4096, or 1x8x2048x64 of attention.",
)
@click.option("--lengths", metavar="N,N,...", help="In place of the profile's.")
@click.option(
    "--profile",
    type=click.Choice(PROFILES[:3]),
    default="quick",
    show_default=True,
    help="How much to measure.",
)
@click.option(
    "--cache", type=click.Choice(["warm", "flushed"]), default="warm", show_default=True, help="Of the CPU."
)
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), default=1, show_default=True, help="Of torch."
)
@click.option(
    "--timeout",
    type=POSITIVE,
    default=TIMEOUT_SECONDS,
    show_default=True,
    metavar="S",
    help="Per case, of a kernel in a process of its own; its timing may take ten times as long.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Run folder. Default: runs/bench-<time>.",
)
def bench(
    kernels: tuple[str, ...],
    shapes: tuple[str, ...],
    lengths: str | None,
    out: Path | None,
    threads: int,
    **asked: Any,
) -> None:
    """Times kernels, beside their accuracy: each is judged first, and one that does not pass gets
    no times.
    """
    if shapes and lengths:
        misuse("--shape and --lengths both say how long rows are; give one")
    sizes = [_sizes("--shape", shape, "x", "32x8192") for shape in dict.fromkeys(shapes)]
    folder = out or RUNS / datetime.datetime.now().strftime("bench-%Y-%m-%d-%H%M%S")
    if kernels:
        from suite.execution.isolation import start_server

        start_server()
    import torch

    torch.set_num_threads(threads)
    result, measurements = _bench(
        kernels,
        sizes,
        tuple(dict.fromkeys(_sizes("--lengths", lengths, ",", "256,4096"))) if lengths else (),
        folder,
        **asked,
    )
    if measurements:
        from suite.report.bench_terminal import print_bench

        print_bench(measurements, records=result.records)
    if result.records:
        _write_report(folder)
    if result.exit_code in (0, 3) and any(
        one.data["status"] not in ("passed", "known_failure") for one in measurements
    ):
        sys.exit(1)
    _finish(result)


def _bench(
    kernels: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    lengths: Sequence[int],
    folder: Path,
    *,
    ops: Sequence[str],
    dtypes: Sequence[str],
    device: str,
    direction: str,
    profile: str,
    cache: Literal["warm", "flushed"],
    timeout: float,
) -> tuple[Result, list[Measurement]]:
    """Measures into the run folder: what bench() says. Misuse ends the command."""
    from suite.bench import points as benchmark
    from suite.execution.hosts import LOADING, Hosts
    from suite.oracle import Oracle
    from suite.oracle.cache import default_folder
    from suite.plugin import default_known_failures
    from suite.records.environment import probe
    from suite.records.store import ANEW, RESUMING, Store, StoreError
    from suite.run import Result

    plan, wanted = benchmark.PLANS[profile], list(dict.fromkeys(ops)) or list(benchmark.OPS)
    records, measurements = list[Any](), list[Any]()
    environment, stopped, interrupted = dict[str, Any](), "", False
    try:
        benchmark.check_device(device)
        environment = probe(device)
        with (
            benchmark.device_lock(device),
            Hosts(timeout=timeout) as hosts,
            _holding(folder, resume=False, resumable=False),
        ):
            chosen = (
                benchmark.named_kernels(kernels, wanted, hosts, device=device)
                if kernels
                else benchmark.default_kernels(wanted, slow=plan.slow, device=device)
            )
            points = [
                point
                for one in (DIRECTIONS if direction == "both" else (direction,))
                for point in benchmark.points(
                    chosen,
                    plan,
                    dtypes=tuple(dict.fromkeys(dtypes)),
                    direction=one,
                    lengths=lengths,
                    shapes=shapes,
                )
            ]
            with contextlib.closing(Store(folder)) as store:
                store.write_environment(environment)
                measuring = benchmark.Bench(
                    device=device,
                    hosts=hosts,
                    oracle=Oracle(default_folder()),
                    store=store,
                    env_id=environment["env_id"],
                    known=default_known_failures(),
                    cache=cache,
                    budget_seconds=plan.budget_seconds,
                    limit_seconds=LOADING * timeout,
                )
                for record, measurement in benchmark.sweep(
                    measuring, points, lambda line: click.echo(line, err=True)
                ):
                    records += [record] if record is not None else []
                    measurements += [measurement] if measurement is not None else []
    except ValueError as error:
        misuse(str(error))
    except KeyboardInterrupt:
        interrupted = True
    except StoreError as error:
        stopped = str(error).replace(RESUMING, ANEW)
    found = Result(records=tuple(records), environment=environment, interrupted=interrupted, stopped=stopped)
    return found, measurements


def _sizes(option: str, text: str, separator: str, example: str) -> tuple[int, ...]:
    """The sizes in the text of an option; misuse where it has others."""
    parts = text.split(separator)
    if not all(part.isascii() and part.isdigit() and 0 < len(part) < 10 and int(part) > 0 for part in parts):
        misuse(f"{option} {text!r} must be sizes joined by {separator!r}, as {example}")
    return tuple(int(part) for part in parts)


@cli.command()
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    required=True,
    metavar="K",
    help="NAME, FILE.py:FUNC or pkg.mod:FUNC.",
)
@click.option(
    "--profile", type=click.Choice(PROFILES), default="quick", show_default=True, help="How much to run."
)
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Judge on x, or logits and target, of this .npz or .safetensors.",
)
@click.option(
    "--option", "settings", multiple=True, metavar="NAME=VALUE", help=f"With --input. {OPTION_HELP}"
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Also write a run folder."
)
@selection
def check(
    kernels: tuple[str, ...],
    profile: str,
    input_file: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    json_file: Path | None,
    **selected: Any,
) -> None:
    """Judges a kernel: yours, by FILE.py:FUNC, or one of this suite's by name."""
    if selected["resume"] and out is None:
        misuse("--resume goes on with the run in a folder: name it with --out")
    with _holding(out, resume=selected["resume"]):
        if input_file is not None:
            result = _check_input(kernels, input_file, settings, Selection(**selected), out=out)
        elif settings:
            misuse("--option goes with --input; a case has its options in its id")
        else:
            result = _run(kernels, profile, Selection(**selected), out=out)
        _write_json(json_file, result)
        if result.records:
            _print_summary(result, verbose=True)
            if out is not None and input_file is None:
                _write_report(out)
    _finish(result)


@cli.command()
@click.option("--op", required=True, type=click.Choice(NAMES))
@click.option(
    "--tensors",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=(
        "Inputs by name (x; logits, target; q, k, v, ...), y and lse; or upstream and dx, dq, ...; .npz or"
        " .safetensors."
    ),
)
@click.option("--dim", type=int, help="The reduced dim, -1 by default; short for --option dim=DIM.")
@click.option("--option", "settings", multiple=True, metavar="NAME=VALUE", help=OPTION_HELP)
@click.option("--dtype", type=click.Choice(DTYPES), help="Format of raw bit patterns in an .npz.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE")
def judge(
    op: str,
    tensors: Path,
    dim: int | None,
    settings: tuple[str, ...],
    dtype: str | None,
    json_file: Path | None,
) -> None:
    """Judges saved tensors: x, the input, and y, what a kernel made of it. For C++, CUDA, JAX and
    other machines.
    """
    from dataclasses import asdict

    from suite.inputs.saved_tensors import load
    from suite.records.record import plain
    from suite.verdict.judge import judge as judge_tensors

    try:
        options = _parse_options(op, settings) | ({"dim": dim} if dim is not None else {})
        saved = load(tensors, dtype=dtype)
        if op == "attention" and {"lse", "upstream_lse"} & set(saved):
            options = {"return_lse": True} | options
        inputs = _pick_inputs(op, saved, tensors)
        judgement = judge_tensors(
            op, inputs, _pick_outputs(op, inputs, saved, options, tensors), options=options
        )
    except (ValueError, TypeError) as error:
        misuse(str(error))
    click.echo(judgement.message)
    if json_file is not None:
        _write(json_file, json.dumps(plain(asdict(judgement)), allow_nan=False, indent=1))
    sys.exit(0 if judgement.passed else 1)


@cli.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Default: report.html in the first folder."
)
@click.option(
    "--show-paths", is_flag=True, help="Leave home folders, user and host names as they are; else ~ and HOST."
)
def report(folders: tuple[Path, ...], out: Path | None, show_paths: bool) -> None:
    """Writes records.csv and report.html from run folders."""
    from suite.report import FullDiskError, write_report

    try:
        click.echo(f"report: {write_report(list(folders), page=out, show_paths=show_paths)}")
    except FullDiskError as error:
        _full(str(error))
    except (ValueError, OSError) as error:
        misuse(str(error))


@cli.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="A new run folder.",
)
@click.option(
    "--unlike-environments", is_flag=True, help="Also join runs of machines or packages that differ."
)
def merge(folders: tuple[Path, ...], out: Path, unlike_environments: bool) -> None:
    """Joins the run folders of shards into one, with its report, and says what overlaps and what is missing.

    Exit codes are those of run, for all records together; 1 also where something is missing or
    records contradict each other.
    """
    from suite.records.merge import join
    from suite.records.store import Store, StoreError
    from suite.run import Result, stale_in

    try:
        merged = join(folders, unlike_environments=unlike_environments)
    except (ValueError, OSError) as error:
        misuse(str(error))
    with _holding(out, resume=False, resumable=False):
        try:
            result = Result(
                records=merged.records,
                environment=merged.environment,
                stale=stale_in(merged.records, merged.configuration),
            )
            with contextlib.closing(Store(out)) as store:
                merged.write(store)
        except ValueError as error:
            misuse(str(error))
        except StoreError as error:
            click.echo(str(error), err=True)
            sys.exit(4)
        for line in merged.findings:
            click.echo(line, err=True)
        if result.records:
            _print_summary(result, verbose=False)
            _write_report(out)
    if not merged.whole or merged.contradictions:
        sys.exit(1)
    _finish(result)


@cli.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN]...")
@click.option(
    "--reports",
    type=click.Path(path_type=Path, file_okay=False),
    default="reports",
    show_default=True,
    metavar="DIR",
)
@click.option("--name", metavar="NAME", help="Of the published run. Default: its day and profile.")
@click.option("--replace", is_flag=True, help="Put it in the place of another published run of that name.")
@click.option(
    "--show-paths", is_flag=True, help="Leave home folders, user and host names as they are; else ~ and HOST."
)
def publish(
    folders: tuple[Path, ...], reports: Path, name: str | None, replace: bool, show_paths: bool
) -> None:
    """Copies runs of one environment, as one run, to reports/<machine>/<name>/, and writes the
    pages of all published runs.

    Without RUN it writes the pages alone.
    """
    from suite import publish as publishing
    from suite.records.store import FULL

    if not folders and (name is not None or replace or show_paths):
        misuse("--name, --replace and --show-paths are of a run that is published; name one")
    try:
        if folders:
            folder = publishing.publish(
                folders, reports=reports, name=name, replace=replace, show_paths=show_paths
            )
            click.echo(f"published: {folder}")
        for path in publishing.write_pages(reports):
            click.echo(f"written: {path}")
    except ValueError as error:
        misuse(str(error))
    except OSError as error:
        if error.errno not in FULL:
            misuse(str(error))
        _full(str(error))


@cli.command()
@click.argument("base", type=click.Path(path_type=Path), metavar="BASE")
@click.argument("new", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="NEW...")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html", help="Write the page here."
)
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all rows as CSV."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all rows as JSON."
)
@click.option(
    "--fail-on",
    default="status,accuracy",
    show_default=True,
    metavar="GATES",
    help=(
        "What ends with exit code 1: status (a new failure), accuracy (a meaningfully larger error),"
        " speed:10%; or none."
    ),
)
@click.option("--threshold", default="5%", show_default=True, metavar="P%", help="Of FASTER and SLOWER.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Fail also on errors above this file's.",
)
@click.option(
    "--update-baseline",
    is_flag=True,
    help="Tighten --baseline by the errors of the new runs; it never loosens.",
)
@click.option(
    "--show-paths", is_flag=True, help="Leave home folders, user and host names as they are; else ~ and HOST."
)
def compare(
    base: Path,
    new: tuple[Path, ...],
    out: Path | None,
    csv_file: Path | None,
    json_file: Path | None,
    fail_on: str,
    threshold: str,
    baseline: Path | None,
    update_baseline: bool,
    show_paths: bool,
) -> None:
    """Compares runs: is NEW worse than BASE, and which kernel should be used on which machine?

    Exit code 1 where a gate of --fail-on or the baseline fails, 0 otherwise.
    """
    from suite.report import FullDiskError
    from suite.report import baseline as ratchet
    from suite.report.compare import compare as join
    from suite.report.compare import gate, parse_gates, parse_share, read_runs
    from suite.report.compare_files import check_targets, to_csv, to_json
    from suite.report.compare_page import render
    from suite.report.compare_terminal import print_comparison
    from suite.report.visible import visible

    if update_baseline and baseline is None:
        misuse("--update-baseline tightens the file that --baseline names; name it")
    named = {"--baseline": baseline, "--csv": csv_file, "--json": json_file, "--out": out}
    try:
        check_targets(
            {option: path for option, path in named.items() if path is not None and str(path) != "-"},
            [base, *new],
        )
        gates, share = parse_gates(fail_on), parse_share(threshold)
        best: ratchet.Baseline = {}
        if baseline is not None and (baseline.exists() or not update_baseline):
            best = ratchet.read_baseline(baseline)
        first, *others = read_runs([base, *new])
        joined = [join(first, other, threshold=share) for other in others]
        comparisons = [
            replace(one, reasons=(*gate(one, gates), *ratchet.broken_by(best, one.new))) for one in joined
        ]
        records = [record for other in others for record in other.records]
        if baseline is not None and not update_baseline and not ratchet.covers(best, records):
            raise ValueError(f"baseline {str(baseline)!r} has no entry for any evaluation of these runs")
    except (ValueError, OSError) as error:
        misuse(visible(str(error), lines=False))
    print_comparison(comparisons, show_paths=show_paths)
    if baseline is not None and update_baseline:
        try:
            ratchet.write_baseline(baseline, ratchet.tightened(best, records))
        except FullDiskError as error:
            _full(str(error))
        except ValueError as error:
            misuse(str(error))
    if csv_file is not None:
        _write(csv_file, to_csv(comparisons, show_paths=show_paths).removesuffix("\n"))
    if json_file is not None:
        _write(json_file, json.dumps(to_json(comparisons), allow_nan=False))
    if out is not None:
        asked = f"--fail-on {fail_on}" + (f" --baseline {baseline}" if baseline is not None else "")
        _write(out, render(comparisons, gates=asked, show_paths=show_paths))
        click.echo(f"page: {out}")
    sys.exit(1 if any(one.reasons for one in comparisons) else 0)


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Make references, for elsewhere.",
)
@click.option(
    "--load",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Put those of a file in place.",
)
@click.option("--op", "ops", multiple=True, type=click.Choice(NAMES), help="Only this op; may be repeated.")
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="K",
    help="NAME, FILE.py:FUNC or pkg.mod:FUNC. Default: all own.",
)
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), help="Only this dtype; repeatable."
)
@click.option("--profile", type=click.Choice(PROFILES), help="How much. Default: smoke.")
@click.option("--direction", type=click.Choice((*DIRECTIONS, "both")), help="Default: forward.")
@click.option("--case", "patterns", multiple=True, metavar="PATTERN", help="Only cases whose id matches.")
def references(
    out: Path | None,
    load: Path | None,
    kernels: tuple[str, ...],
    profile: str | None,
    direction: str | None,
    **selected: Any,
) -> None:
    """Makes a file of the costly references that a run of a selection needs, or loads one where
    such a run will be.

    Makes them by running the selection here, on the CPU: its kernels' verdicts do not matter. bench
    needs none of them.
    """
    from suite.oracle import bundle
    from suite.oracle.cache import default_folder

    if (out is None) == (load is None):
        misuse("--out FILE makes a file of references, --load FILE reads one; give one of them")
    if load is not None:
        if kernels or profile or direction or any(selected.values()):
            misuse("--load takes no selection: it loads all that the file has")
        try:
            count = bundle.unpack(load, default_folder())
        except OSError as error:
            misuse(f"--load {str(load)!r}: {error.strerror}")
        except ValueError as error:
            misuse(str(error))
        click.echo(f"{count} references loaded into {default_folder()}")
        return
    assert out is not None
    if not out.absolute().parent.is_dir():
        misuse(f"{str(out)!r} cannot be written: there is no such folder")
    asked = Selection(
        device="cpu",
        direction=direction or "forward",
        strict=False,
        known=(),
        resume=False,
        shard="1/1",
        threads=1,
        isolate="outside",
        timeout=TIMEOUT_SECONDS,
        memory=None,
        **selected,
    )
    with _empty_cache() as folder:
        result = _run(kernels, profile or "smoke", asked, out=None)
        if result.exit_code not in (0, 1):
            _finish(result)
        try:
            count = bundle.pack(folder, out)
        except OSError as error:
            misuse(f"{str(out)!r} cannot be written: {error.strerror}")
    click.echo(f"{out}: {count} references, {out.stat().st_size / 2**20:.1f} MiB")


@contextlib.contextmanager
def _empty_cache() -> Iterator[Path]:
    """A cache folder of its own in the place of the user's: what is in it at the end is what was needed."""
    import tempfile

    before = os.environ.get("SOFTMAX_SUITE_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTMAX_SUITE_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["SOFTMAX_SUITE_CACHE"]
            if before is not None:
                os.environ["SOFTMAX_SUITE_CACHE"] = before


@cli.command()
@click.argument("record", metavar="RECORD")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=RUNS, show_default=True, help="Where run folders are."
)
def reproduce(record: str, runs: Path) -> None:
    """Runs one recorded evaluation again: RECORD is a record id, or FILE:LINE of a records-*.jsonl.

    It runs the kernel that the record names: of a record from a stranger, look at that first.
    """
    import torch

    from suite.case import Case
    from suite.execution.evaluation import evaluate
    from suite.execution.hosts import Hosts
    from suite.oracle import Oracle
    from suite.oracle.cache import default_folder
    from suite.plugin import THREADS, default_known_failures
    from suite.records.record import PASSING
    from suite.records.store import find_record

    try:
        recorded = find_record(record, runs)
        case = Case.from_id(recorded.case, laws=recorded.laws)
        torch.set_num_threads(THREADS)
        with Hosts() as hosts:
            kernel = hosts.load(recorded.kernel, recorded.op, device=recorded.device)[0]
            again = evaluate(
                case,
                kernel,
                dtype=recorded.dtype,
                device=recorded.device,
                host=hosts.of(kernel),
                oracle=Oracle(default_folder()),
                known=default_known_failures(),
                strict=recorded.strict,
            )
    except ValueError as error:
        misuse(str(error))
    click.echo(again.message or f"{again.case} {again.dtype} {again.kernel}: {again.status}")
    same = "the same output bits" if again.digest == recorded.digest else "other output bits"
    if again.kernel_version != recorded.kernel_version:
        same += (
            f"; the kernel's source has changed ({recorded.kernel_version} then, {again.kernel_version} now)"
        )
    click.echo(f"recorded {recorded.status}, now {again.status}; {same}")
    sys.exit(0 if again.status in PASSING else 1)


@cli.command()
@click.option("--op", required=True, type=click.Choice(ROW_OPS))
@click.option(
    "--shape", metavar="ROWSxN", help="Shape of the input, or the length of its rows: 32x8192, 8192."
)
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the output. Default: that of the input file.")
@click.option("--dim", default=-1, show_default=True, help="The reduced dim.")
@click.option("--gap", type=float, help="Every finite logit is at most this far below its row's largest.")
@click.option("--largest", type=float, help="Every finite logit is at most this in magnitude.")
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For x of this file: sharper.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE")
def tolerance(
    op: str,
    shape: str | None,
    dtype: str | None,
    dim: int,
    gap: float | None,
    largest: float | None,
    input_file: Path | None,
    json_file: Path | None,
) -> None:
    """Prints the rtol and atol that theory allows, with a line of assert_close to paste."""
    from dataclasses import asdict

    from suite.inputs.saved_tensors import load, pick
    from suite.records.record import plain
    from suite.studies.tolerance import AGAINST, NoToleranceError
    from suite.studies.tolerance import tolerance as find

    sizes = None
    if shape is not None:
        parts = shape.split("x")
        if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
            misuse(f"--shape {shape!r} must be sizes joined by x, as 32x8192 or 8192")
        sizes = tuple(int(part) for part in parts)
    found = []
    try:
        x = None if input_file is None else pick(load(input_file, dtype=dtype), ("x", "input"), input_file)
        for against in AGAINST:
            try:
                found.append(
                    find(op, sizes, dtype, dim=dim, gap=gap, largest=largest, input=x, against=against)
                )
            except NoToleranceError:
                if not found:
                    raise
    except (ValueError, TypeError) as error:
        misuse(str(error))
    first = found[0]
    click.echo(
        f"{op} {first.dtype}, rows of {first.n}\nholds for  {first.assumptions}\nfrom       {first.basis}"
    )
    for one in found:
        click.echo(
            f"\nagainst {one.against}: rtol {one.rtol:g}, atol {one.atol:g}\n  {one.assert_close}\n "
            f" {one.defaults}"
        )
    for against in AGAINST[len(found) :]:
        click.echo(f"\nagainst {against}: no tolerance says anything")
    click.echo("\none pair for all entries is weaker than judge(), which has a bound for each entry")
    if json_file is not None:
        _write(
            json_file,
            json.dumps({"tolerances": [plain(asdict(one)) for one in found]}, allow_nan=False, indent=1),
        )


@cli.command()
@click.option(
    "--claim", "names", multiple=True, metavar="NAME", help="Only this claim; repeatable. Default: all."
)
@click.option(
    "--exhaustive", is_flag=True, help="On all numbers where a sample is the default: minutes for each."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE")
def claims(names: tuple[str, ...], exhaustive: bool, json_file: Path | None) -> None:
    """Measures published numerical results again, beside what was published."""
    from suite.records.environment import probe
    from suite.studies import claims as published

    try:
        selected = published.select(names)
    except ValueError as error:
        misuse(str(error))
    results = [published.check(one, exhaustive=exhaustive) for one in selected]
    machine = probe()
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    click.echo(
        f"{machine['cpu']}, {machine['machine']}, {machine['libc']}, Python {machine['python']}, {packages}\n"
    )
    click.echo(published.table(results))
    if json_file is not None:
        data = {"environment": machine, "claims": [result.to_dict() for result in results]}
        _write(json_file, json.dumps(data, allow_nan=False, indent=1))


@cli.command()
def schema() -> None:
    """Prints the JSON Schema of records, measurements and what --json writes."""
    from suite.records.record import published

    click.echo(json.dumps(published(), indent=2))


@cli.command("list")
@click.argument("what", type=click.Choice(["ops", "kernels", "cases", "inputs", "laws", "machines"]))
def list_command(what: str) -> None:
    """Lists ops, kernels, cases, inputs, laws or machines."""
    from suite import catalogue

    for line in getattr(catalogue, what)():
        click.echo(line)


@cli.command()
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="K",
    help="Print the profile of this kernel instead; repeatable.",
)
@click.option(
    "--op", default="softmax", show_default=True, type=click.Choice(NAMES), help="The op of --kernel."
)
@click.option(
    "--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), help="Formats of --kernel. Default: all."
)
@click.option("--device", default="cpu", show_default=True, help="Device of --kernel: cpu, cuda, cuda:1, ...")
def doctor(kernels: tuple[str, ...], op: str, dtypes: tuple[str, ...], device: str) -> None:
    """Prints this machine's identity and checks that the judge can still tell right from wrong.

    With --kernel: prints what the arithmetic of a kernel looks like from outside.
    """
    from suite.doctor import examine, profiles

    if kernels:
        try:
            for line in profiles(kernels, op, dtypes or DTYPES, device):
                click.echo(line)
        except ValueError as error:
            misuse(str(error))
        return
    healthy = True
    for line, good in examine():
        healthy &= good
        click.echo(line)
    sys.exit(0 if healthy else 1)


def _run(
    kernels: Sequence[str],
    profile: str,
    selected: Selection,
    *,
    out: Path | None,
    measure: Literal["none", "torch", "all"] = "none",
) -> Result:
    from suite.run import MisuseError, run_cases

    arguments = [f"--profile={profile}"]
    arguments += [
        f"--{name}={getattr(selected, name)}"
        for name in ("device", "direction", "shard", "threads", "isolate", "timeout")
    ]
    arguments += [f"--memory={selected.memory}"] if selected.memory is not None else []
    arguments += ["--resume"] if selected.resume else []
    arguments += [f"--out={out}"] if out is not None else []
    arguments += ["--ignore-declarations"] if selected.strict else []
    for name, values in (
        ("op", selected.ops),
        ("kernel", kernels),
        ("dtype", selected.dtypes),
        ("case", selected.patterns),
        ("known-failures", selected.known),
    ):
        if "--" in map(str, values):
            misuse(f"--{name} '--' names nothing")
        arguments += [f"--{name}={value}" for value in values]
    try:
        return run_cases(arguments, measure=measure)
    except MisuseError as error:
        misuse(str(error))


def _check_input(
    kernels: Sequence[str],
    input_file: Path,
    settings: Sequence[str],
    selected: Selection,
    *,
    out: Path | None,
) -> Result:
    """Judges kernels on the inputs in a file, in the logits' own dtype, or in the dtypes given
    where they hold the values.
    """
    import torch

    from suite.case import Case
    from suite.execution.evaluation import evaluate
    from suite.execution.hosts import Hosts
    from suite.formats import get_format
    from suite.inputs.saved_tensors import load
    from suite.ops import get_op
    from suite.oracle import Oracle
    from suite.oracle.cache import default_folder
    from suite.records.environment import probe
    from suite.records.store import Store, StoreError
    from suite.run import Result
    from suite.tensors import dtype_name, to_numpy

    if selected.patterns or selected.known or selected.resume or selected.shard != "1/1":
        misuse("--input judges one input; it goes with none of --case, --known-failures, --resume, --shard")
    if len(selected.ops) != 1:
        misuse("--input needs exactly one --op")
    ops, dtypes, device = selected.ops, selected.dtypes, selected.device
    closing = contextlib.ExitStack()
    try:
        op, options = get_op(ops[0]), _parse_options(ops[0], settings)
        tensors = _pick_inputs(op.name, load(input_file, dtype=dtypes[0] if dtypes else None), input_file)
        logits = tensors[op.arguments[0]]
        if not logits.is_floating_point():
            raise ValueError(
                f"{input_file}: {op.arguments[0]} has dtype {dtype_name(logits)}; expected such as float32"
            )
        inputs, records = {name: to_numpy(tensor) for name, tensor in tensors.items()}, []
        for dtype in dtypes or (dtype_name(logits),):
            for name, values in inputs.items():
                if tensors[name].is_floating_point() and not op.input_format(name, get_format(dtype)).holds(
                    values
                ):
                    raise ValueError(f"{input_file} has values of {name} that {dtype} cannot hold")
        judged = op.of(inputs)
        judged.problem(
            inputs, judged.resolve_options(options, {name: tuple(x.shape) for name, x in inputs.items()})
        )
        torch.set_num_threads(selected.threads)
        oracle, environment = Oracle(default_folder()), probe(device)
        hosts = closing.enter_context(
            Hosts(isolate=selected.isolate, memory_gibibytes=selected.memory, timeout=selected.timeout)
        )
        store = Store(out) if out is not None else None
        if store is not None:
            store.write_environment(environment)
        for dtype in dtypes or (dtype_name(logits),):
            case = Case(
                op=op.name,
                family="file",
                shape=tuple(logits.shape),
                options=options,
                tensors=_sizes_of(inputs) if op.name == "attention" else {},
                target=(
                    "probabilities"
                    if "target" in tensors and tensors["target"].is_floating_point()
                    else "indices"
                ),
                upstream="file" if "upstream" in tensors else "",
                why=f"the tensors of {input_file.name}",
            )
            for specification in kernels:
                for kernel in hosts.load(specification, ops[0], device=device):
                    record = evaluate(
                        case,
                        kernel,
                        dtype=dtype,
                        device=device,
                        host=hosts.of(kernel),
                        timeout=selected.timeout,
                        oracle=oracle,
                        store=store,
                        strict=selected.strict,
                        env_id=environment["env_id"],
                        inputs=inputs,
                        input_file=str(input_file),
                    )
                    records.append(record)
        if store is not None:
            store.close()
    except ValueError as error:
        misuse(str(error))
    except StoreError as error:
        return Result(records=tuple(records), environment=environment, stopped=str(error))
    finally:
        closing.close()
    return Result(records=tuple(records), environment=environment)


def _sizes_of(inputs: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of attention's tensors that its queries do not tell."""
    _, key_heads, keys, _ = inputs["k"].shape
    return {"keys": keys, "key_heads": key_heads, "value_size": inputs["v"].shape[3]}


def _pick_inputs(op: str, saved: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The op's inputs among the tensors of a file: those of its arguments, where the first may be
    called input too; and the gradients of its outputs, where they are there.
    """
    from suite.inputs.saved_tensors import pick
    from suite.ops import get_op

    first, *others = get_op(op).arguments
    further = {name: saved[name] for name in (*get_op(op).optional, *get_op(op).upstreams) if name in saved}
    return (
        {first: pick(saved, (first, "input"), path)}
        | {name: pick(saved, (name,), path) for name in others}
        | further
    )


def _pick_outputs(
    op: str, inputs: Mapping[str, Any], saved: Mapping[str, Any], options: Mapping[str, Any], path: Path
) -> Any:
    """What a kernel made of these inputs, among the tensors of a file: y, and lse where the op has
    one; of a backward the gradients of its inputs: dx, or dlogits, or dq, dk, dv, ...
    """
    from suite.inputs.saved_tensors import pick
    from suite.ops import UPSTREAM, get_op

    if UPSTREAM in inputs:
        wrt = get_op(op).wanted(inputs)
        found = tuple(pick(saved, (f"d{name}",), path) for name in wrt)
        return found if len(found) > 1 else found[0]
    y = pick(saved, ("y", "output"), path)
    several = op == "merge_states" or options.get("return_lse")
    return (y, pick(saved, ("lse",), path)) if several else y


def _parse_options(op: str, settings: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE texts as options of the op. Raises ValueError for an unknown name, or a value of
    another type.
    """
    from suite.ops import get_op, parse_option

    definition, options = get_op(op), dict[str, Any]()
    defaults = definition.options
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in defaults:
            raise ValueError(
                f"--option {setting!r} names no option of {op}; expected one of {', '.join(defaults)}, as"
                " NAME=VALUE"
            )
        try:
            options[name] = parse_option(definition, name, text)
        except ValueError:
            kind = type(defaults[name])  # one whose default is None takes any text
            raise ValueError(
                f"--option {setting!r}: expected {kind.__name__}, such as {name}={defaults[name]}"
            ) from None
    return options


@contextlib.contextmanager
def _holding(folder: Path | None, *, resume: bool, resumable: bool = True) -> Iterator[None]:
    """Keeps other processes out of the run folder until its report is written; misuse where one is
    in it, or was.

    resumable: the command can go on with a run.
    """
    from suite.records.store import held, refuse_records

    with contextlib.ExitStack() as stack:
        if folder is not None:
            try:
                if folder.is_dir() or not resume:
                    stack.enter_context(held(folder))
                if not resume:
                    refuse_records(folder, resumable=resumable)
            except ValueError as error:
                misuse(str(error))
            except OSError as error:
                misuse(f"--out {str(folder)!r} cannot be made: {error.strerror}")
        yield


def _write_report(folder: Path) -> None:
    """Writes the report of a run folder; a disk that does not take it costs the report, not the
    records or the exit code.
    """
    from suite.report import write_report

    try:
        click.echo(f"report: {write_report([folder])}")
    except ValueError as error:
        click.echo(f"no report: {error}", err=True)


def _finish(result: Result) -> NoReturn:
    if result.stopped:
        click.echo(result.stopped, err=True)
    for line in result.errors[:5]:
        click.echo(f"internal error: {line}", err=True)
    for line in result.stale:
        click.echo(f"known failure that passed: {line}", err=True)
    if result.empty_shard:
        click.echo("nothing to judge in this shard: the cases that were selected are in others", err=True)
    if result.exit_code == 3 and not result.records:
        click.echo("nothing was judged: no case of this profile matches what was selected", err=True)
    elif result.exit_code == 3:
        from suite.report.visible import visible

        reasons = Counter(record.message for record in result.records)
        reason, _ = reasons.most_common(1)[0]
        more = f", and {len(reasons) - 1} other reasons" if len(reasons) > 1 else ""
        click.echo(
            "nothing was judged: no kernel supports what was selected"
            f" ({visible(reason, lines=False)[:300]}{more})",
            err=True,
        )
    sys.exit(result.exit_code)


def summary(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Counts by kernel: passed, failed, unsupported, unjudged, known_failure."""
    from suite.records.record import SUMMARY_CLASSES, summary_class

    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(record.kernel, Counter())[summary_class(record.status)] += 1
    return {kernel: {name: count[name] for name in SUMMARY_CLASSES} for kernel, count in counts.items()}


def _write_json(path: Path | None, result: Result) -> None:
    from suite.records.record import SCHEMA

    if path is None:
        return
    data = {
        "schema": SCHEMA,
        "suite_version": __version__,
        "environment": result.environment,
        "summary": summary(result.records),
        "records": [record.to_dict() for record in result.records],
    }
    _write(path, json.dumps(data, allow_nan=False, indent=1))


def _write(path: Path, text: str) -> None:
    from suite.records.store import FULL

    if str(path) == "-":
        click.echo(text)
        return
    if any(path.match(f"{kind}-*.jsonl{end}") for kind in ("records", "measurements") for end in ("", ".gz")):
        misuse(
            f"{str(path)!r} is the name of a run's records: writing there would lose them; name another file"
        )
    try:
        # Without waiting, so that a named pipe that nobody reads is an error.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.set_blocking(descriptor, True)
            file.write(text + "\n")
    except (OSError, ValueError) as error:
        reason = f"{str(path)!r} cannot be written: {getattr(error, 'strerror', None) or error}"
        if getattr(error, "errno", None) in FULL:
            _full(reason)
        misuse(reason)


def _full(reason: str) -> NoReturn:
    click.echo(f"{reason}; make room and ask again", err=True)
    sys.exit(4)


def _print_summary(result: Result, *, verbose: bool) -> None:
    from suite.report.terminal import print_summary

    print_summary(result.records, verbose=verbose, interrupted=result.interrupted or bool(result.stopped))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: as cli(), but an unexpected error ends with exit code 4 and one line,
    never a traceback.
    """
    given = list(arguments) if arguments is not None else None
    try:
        for word in given or ():
            if "\0" in word:
                misuse(f"{word!r} has a NUL character in it")
        code = cli.main(args=given, prog_name="softmax-suite", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        click.echo(f"internal error: {type(error).__name__}: {error}", err=True)
        sys.exit(4)
    sys.exit(code if isinstance(code, int) else 0)
