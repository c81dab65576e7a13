"""Throughput in the terminal: the points and how time grows with length where they are few, then
which kernel to use.

The answer stands last, where a terminal stops. The points of a large bench are in report.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console

from suite.records.record import Measurement, Record
from suite.report.advice_terminal import print_advice
from suite.report.scalings import of_length
from suite.report.tables import by, console_of, rich_table, shown
from suite.report.words import first_line, options_of, shape_and_options, with_direction
from suite.timing.statistics import Scaling

FEW = 40
"""Points up to which all are shown."""
UNTIMED = 8
"""Lines on what has no times."""
NARROW = 130
"""Width of a console below which a table has only ESSENTIAL columns, and no remarks."""
ESSENTIAL = ("latency_us", "of copy")
STYLES = {"passed": None, "known_failure": "yellow"}


def print_bench(measurements: Sequence[Measurement], *, records: Sequence[Record] = ()) -> None:
    """Prints the points, or of many what has no times, and which kernel to use. records: what was
    judged, which says what is safe; without any there is no such answer.
    """
    console = console_of(1000)  # no column is cut in a file
    few = len(measurements) <= FEW
    if few and measurements:
        _print_points(console, measurements)
    elif measurements:
        text = f"{len(measurements):,} points: report.html has them, and how time grows with length"
        console.print(text, style="dim")
    if not few or console.width < NARROW:
        _print_untimed(console, [m for m in measurements if not m.data["samples_seconds"]])
    scalings = list(of_length(measurements)) if few else []
    if scalings:
        _print_scalings(console, scalings)
    if records:
        print_advice(console, measurements, records)


def _print_points(console: Console, measurements: Sequence[Measurement]) -> None:
    wide = console.width >= NARROW
    columns = {name: write for name, write in COLUMNS.items() if wide or name in ESSENTIAL}
    table = rich_table("op", "kernel", "dtype", "shape", numbers=[*columns, "bound"])
    if wide:
        table.add_column("remark", overflow="ellipsis", no_wrap=True, max_width=120)
    for m in measurements:
        timed = m.data["samples_seconds"]
        ratio = m.data["ratio"]
        table.add_row(
            with_direction(m.op, m.data["direction"]),
            shown(m.kernel),
            m.dtype,
            shown(shape_and_options(m.case)),
            *(write(m.data) if timed else "" for write in columns.values()),
            "" if ratio is None else f"{ratio:.2g}",
            *([_remark(m)] if wide else []),
            style=STYLES.get(m.data["status"], "red"),
        )
    console.print(table)
    interval = ", with its 95 % interval" if wide else ""
    more = (
        "; GB/s: the least traffic over it; of matmul: share of what this machine multiplies; peak: beside"
        " inputs and output"
    )
    console.print(
        f"latency: median of a call{interval}{more if wide else ''}; of copy: share of what this machine"
        " copies; bound: the largest error over its bound",
        style="dim",
    )


def _print_untimed(console: Console, measurements: Sequence[Measurement]) -> None:
    """A line for each kernel and status, with the first of its reasons."""
    groups = by(
        measurements, lambda m: (with_direction(m.op, m.data["direction"]), m.kernel, m.data["status"])
    )
    for (op, kernel, status), group in list(groups.items())[:UNTIMED]:
        inputs = f"{len(group):,} inputs" if len(group) > 1 else shown(shape_and_options(group[0].case))
        dtypes = ", ".join(dict.fromkeys(m.dtype for m in group))
        style = "yellow" if status in STYLES else "red"
        console.print(f"{op} {shown(kernel)} {dtypes}, {inputs}: {_remark(group[0])}", style=style)
    if len(groups) > UNTIMED:
        console.print(f"and {len(groups) - UNTIMED:,} more lines like these", style="red")


def _print_scalings(console: Console, scalings: Iterable[tuple[Measurement, Scaling]]) -> None:
    table = rich_table("op", "kernel", "dtype", "lengths", numbers=("exponent", "95 %", "last two"))
    for m, found in scalings:
        exponent, shape = found.exponent, m.data["shape"]
        size = [f"E={shape[3]}"] if len(shape) == 4 else []
        table.add_row(
            with_direction(m.op, m.data["direction"]),
            shown(m.kernel),
            m.dtype,
            " ".join([f"{found.lengths[0]} … {found.lengths[-1]}", *size, *options_of(m.case)]),
            f"{exponent.value:.2f}",
            f"{exponent.low:.2f} … {exponent.high:.2f}",
            f"{found.last:.2f}",
        )
    console.print()
    console.print(table)
    console.print(
        "exponent: of length in the time of a row (attention: of a head), with its 95 % bootstrap interval",
        style="dim",
    )


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-3 else f"{seconds * 1e6:.3g}"


def _share(of: str, work: str) -> Callable[[dict[str, Any]], str]:
    return lambda d: f"{d[work] / d['median_seconds'] / d[of]:.0%}" if d[of] else ""


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "latency_us": lambda d: _microseconds(d["median_seconds"]),
    "95 %": lambda d: f"{_microseconds(d['low_seconds'])} … {_microseconds(d['high_seconds'])}",
    "GB/s": lambda d: f"{d['bytes'] / d['median_seconds'] / 1e9:.3g}",
    "of copy": _share("copy_bytes_per_second", "bytes"),
    "TFLOP/s": lambda d: f"{d['operations'] / d['median_seconds'] / 1e12:.3g}",
    "of matmul": _share("matmul_operations_per_second", "operations"),
    "peak_MB": lambda d: "" if d["peak_bytes"] is None else f"{d['peak_bytes'] / 1e6:.3g}",
}
"""Name of a column with its unit -> what stands there for a point that has times."""


def _remark(m: Measurement) -> str:
    status, note = m.data["status"], str(m.data["note"])
    return shown(first_line(note if status == "passed" else f"{status}: {note}"))
