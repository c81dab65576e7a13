"""`bench`: times kernels beside their accuracy."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from suite.bench.plan import OPS, PLANS, Plan, check_clock, points
from suite.case import PROFILES
from suite.commands.options import (
    POSITIVE,
    RUNS,
    device_option,
    direction_option,
    dtypes_option,
    kernels_option,
    misuse,
    opened,
    ops_option,
    out_option,
    parse_sizes,
    profile_option,
    threads_option,
)
from suite.commands.output import finish, write_report
from suite.execution.isolation import TIMEOUT_SECONDS
from suite.records.store import ANEW, RESUMING, StoreError
from suite.session import Result, Session

if TYPE_CHECKING:
    from suite.records.record import Measurement


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
    shapes: tuple[str, ...],
    lengths: str | None,
    out: Path | None,
    cache: Literal["warm", "flushed"],
    **asked: Any,
) -> None:
    """Times kernels, beside their accuracy: each is judged first, and one that does not pass gets
    no times.
    """
    if shapes and lengths:
        misuse("--shape and --lengths both say how long rows are; give one")
    sizes = [parse_sizes("--shape", shape, "x", "32x8192") for shape in dict.fromkeys(shapes)]
    row_lengths = tuple(dict.fromkeys(parse_sizes("--lengths", lengths, ",", "256,4096"))) if lengths else ()
    folder = out or RUNS / datetime.datetime.now().strftime("bench-%Y-%m-%d-%H%M%S")
    try:
        check_clock(asked["device"])
    except ValueError as error:
        misuse(str(error))
    plan = PLANS[asked["profile"]]
    asked["ops"], asked["dtypes"] = asked["ops"] or OPS, asked["dtypes"] or plan.dtypes
    with opened(out=folder, resumable=False, **asked) as session:
        result, measurements = _measured(session, plan, sizes, row_lengths, cache)
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


def _measured(
    session: Session,
    plan: Plan,
    shapes: Sequence[tuple[int, ...]],
    lengths: Sequence[int],
    cache: Literal["warm", "flushed"],
) -> tuple[Result, list[Measurement]]:
    """Measures all points, until an interruption or a folder that takes no more. Misuse ends the command."""
    from suite.bench.lock import device_lock
    from suite.bench.points import Bench, sweep

    request, measurements = session.request, list["Measurement"]()
    stopped, interrupted = "", False
    try:
        wanted = [
            point
            for direction in request.directions
            for point in points(
                session.kernels,
                plan,
                dtypes=request.dtypes,
                direction=direction,
                lengths=lengths,
                shapes=shapes,
            )
        ]
        with device_lock(request.device):
            bench = Bench(session, cache=cache, budget_seconds=plan.budget_seconds)
            for _, measurement in sweep(bench, wanted, lambda line: click.echo(line, err=True)):
                measurements += [measurement] if measurement is not None else []
            session.close_store()
    except ValueError as error:
        misuse(str(error))
    except KeyboardInterrupt:
        interrupted = True
    except StoreError as error:
        stopped = str(error).replace(RESUMING, ANEW)
    return Result(
        records=tuple(session.records),
        environment=session.environment,
        interrupted=interrupted,
        stopped=stopped,
    ), measurements
