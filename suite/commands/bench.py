"""`bench`: times kernels beside their accuracy."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from suite.case import DIRECTIONS, PROFILES
from suite.commands.options import (
    POSITIVE,
    RUNS,
    device_option,
    direction_option,
    dtypes_option,
    kernels_option,
    misuse,
    ops_option,
    out_option,
    parse_sizes,
    profile_option,
    threads_option,
)
from suite.commands.output import finish, holding, write_report
from suite.execution.isolation import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from suite.records.record import Measurement
    from suite.run import Result


@click.command("bench")
@ops_option("Only this op; repeatable. Default: all but merge_states.")
@kernels_option()
@dtypes_option()
@device_option("cpu, cuda, cuda:1, ...")
@direction_option()
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="SHAPE",
    help="Such as 4096x4096, or 1x8x2048x64 of attention.",
)
@click.option("--lengths", metavar="N,N,...", help="In place of the profile's.")
@profile_option("quick", "How much to measure.", choices=PROFILES[:3])
@click.option(
    "--cache", type=click.Choice(["warm", "flushed"]), default="warm", show_default=True, help="Of the CPU."
)
@threads_option("Of torch.")
@click.option(
    "--timeout",
    type=POSITIVE,
    default=TIMEOUT_SECONDS,
    show_default=True,
    metavar="S",
    help="Per case, of a kernel in a process of its own; its timing may take ten times as long.",
)
@out_option("Run folder. Default: runs/bench-<time>.")
def command(
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
    sizes = [parse_sizes("--shape", shape, "x", "32x8192") for shape in dict.fromkeys(shapes)]
    folder = out or RUNS / datetime.datetime.now().strftime("bench-%Y-%m-%d-%H%M%S")
    if kernels:
        from suite.execution.isolation import start_server

        start_server()
    import torch

    torch.set_num_threads(threads)
    result, measurements = _bench(
        kernels,
        sizes,
        tuple(dict.fromkeys(parse_sizes("--lengths", lengths, ",", "256,4096"))) if lengths else (),
        folder,
        **asked,
    )
    if measurements:
        from suite.report.bench_terminal import print_bench

        print_bench(measurements, records=result.records)
    if result.records:
        write_report(folder)
    if result.exit_code in (0, 3) and any(
        one.data["status"] not in ("passed", "known_failure") for one in measurements
    ):
        sys.exit(1)
    finish(result)


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
            holding(folder, resume=False, resumable=False),
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
