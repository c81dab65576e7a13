"""Throughput in the terminal: the points and how time grows with length where they are few, then
which kernel to use.

The answer stands last, where a terminal stops. Of a large bench report.html has the points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from suite.records.record import Measurement, Record
from suite.report.advice_terminal import print_advice
from suite.report.scalings import of_length
from suite.report.visible import NAME, visible
from suite.timing.statistics import Scaling

FEW, UNTIMED = 40, 8
"""Points up to which all are shown; lines on what has no times."""
NARROW, ESSENTIAL = 130, ("latency_us", "of copy")
"""Width of a console below which a table has only these of COLUMNS, and no remarks."""


def print_bench(measurements: Sequence[Measurement], *, records: Sequence[Record] = ()) -> None:
    """Prints the points, or of many what has no times, and which kernel to use. records: what was
    judged, which says what is safe; without any there is no such answer.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # no column is cut in a file
    few = len(measurements) <= FEW
    if few and measurements:
        _print_points(console, measurements)
    elif measurements:
        console.print(
            f"{len(measurements):,} points: report.html has them, and how time grows with length", style="dim"
        )
    if not few or console.width < NARROW:
        _print_untimed(console, [m for m in measurements if not m.data["samples_seconds"]])
    scalings = list(of_length(measurements)) if few else []
    if scalings:
        console.print()
        console.print(_scaling_table(scalings))
        console.print(
            "exponent: of length in the time of a row (attention: of a head), with its 95 % bootstrap"
            " interval",
            style="dim",
        )
    if records:
        print_advice(console, measurements, records)


def _print_points(console: Console, measurements: Sequence[Measurement]) -> None:
    wide = console.width >= NARROW
    columns = {name: write for name, write in COLUMNS.items() if wide or name in ESSENTIAL}
    table = _table("op", "kernel", "dtype", "shape", numbers=[*columns, "bound"])
    if wide:
        table.add_column("remark", overflow="ellipsis", no_wrap=True, max_width=120)
    for one in measurements:
        table.add_row(
            _label(one),
            _shown(one.kernel),
            one.dtype,
            _case_text(one),
            *(write(one.data) if one.data["samples_seconds"] else "" for write in columns.values()),
            times(one.data["ratio"]),
            *([_remark(one)] if wide else []),
            style=(
                None
                if one.data["status"] == "passed"
                else "yellow"
                if one.data["status"] == "known_failure"
                else "red"
            ),
        )
    console.print(table)
    words = (
        "latency: median of a call{}; of copy: share of what this machine copies; bound: worst error in times"
        " of the bound"
    )
    more = (
        "; GB/s: the least traffic over it; of matmul: share of what this machine multiplies; peak: beside"
        " inputs and output"
    )
    console.print(words.format(f", with its 95 % interval{more}" if wide else ""), style="dim")


def _print_untimed(console: Console, measurements: Sequence[Measurement]) -> None:
    """A line for each kernel and status, with the first of its reasons."""
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for m in measurements:
        groups.setdefault((_label(m), m.kernel, m.data["status"]), []).append(m)
    for (label, kernel, status), group in list(groups.items())[:UNTIMED]:
        inputs = f"{len(group):,} inputs" if len(group) > 1 else _case_text(group[0])
        dtypes = ", ".join(dict.fromkeys(m.dtype for m in group))
        style = "yellow" if status in ("passed", "known_failure") else "red"
        console.print(f"{label} {_shown(kernel)} {dtypes}, {inputs}: {_remark(group[0])}", style=style)
    if len(groups) > UNTIMED:
        console.print(f"and {len(groups) - UNTIMED:,} more lines like these", style="red")


def _table(*names: str, numbers: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-3 else f"{seconds * 1e6:.3g}"


def _share(of: str, work: str) -> Callable[[dict[str, Any]], str]:
    def write(data: dict[str, Any]) -> str:
        best = data[of]
        return f"{data[work] / data['median_seconds'] / best:.0%}" if best else ""

    return write


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


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2g}"


def _label(one: Measurement) -> str:
    return one.op + (" backward" if one.data["direction"] == "backward" else "")


def _case_text(one: Measurement) -> str:
    """The case less what other columns say: shape, and the options that it has."""
    settings = one.case.split("/")[2:-1]
    return _shown(" ".join(s for s in settings if not s.startswith(("upstream=", "reduction="))))


def _remark(one: Measurement) -> str:
    status, note = one.data["status"], str(one.data["note"])
    text = note if status == "passed" else f"{status}: {note}"
    return _shown(text.split("\n")[0])


def _shown(text: str) -> str:
    return escape(visible(text, limit=NAME, lines=False))


def _scaling_table(scalings: Iterable[tuple[Measurement, Scaling]]) -> Table:
    table = _table("op", "kernel", "dtype", "lengths", numbers=("exponent", "95 %", "last two"))
    for one, found in scalings:
        exponent = found.exponent
        options = "".join(
            f" {s}" for s in one.case.split("/")[3:-1] if not s.startswith(("upstream=", "reduction="))
        )
        size = f" E={one.data['shape'][3]}" if len(one.data["shape"]) == 4 else ""
        table.add_row(
            _label(one),
            _shown(one.kernel),
            one.dtype,
            f"{found.lengths[0]} … {found.lengths[-1]}{size}{options}",
            f"{exponent.value:.2f}",
            f"{exponent.low:.2f} … {exponent.high:.2f}",
            f"{found.last:.2f}",
        )
    return table
