"""The pages about published runs: which there are, what they found, how they compare, and which
kernel is right and fast.

Every number is computed from the records of the runs, and nothing else goes in, neither the day nor
this machine: the same runs give the same text everywhere.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from suite.records.configuration import FILE, read_configuration
from suite.records.record import SUMMARY_CLASSES, Measurement, Record, summary_class
from suite.records.store import Run
from suite.report.advice import torch_kernels
from suite.report.compare import compare
from suite.report.compare_runs import read_runs
from suite.report.pages import fill
from suite.report.speed import median, times_of
from suite.report.summaries import how_bad, worst
from suite.report.tables import by, markdown
from suite.report.visible import NAME, visible
from suite.report.words import count, shape_of, times

BEGIN, END = "<!-- published: begin -->", "<!-- published: end -->"
"""What encloses the table in a README."""

OPS = ("softmax", "attention")
"""The ops of the table."""
FORMATS = ("float32", "bfloat16")
ROWS = 15
COMMAND = "softmax-suite publish"
ABSENT = "–"
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a machine and a run may be called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published run."""

    machine: str
    """The folder of its folder."""
    name: str
    """Its folder."""
    run: Run
    profile: str
    """As asked, "" where it does not say."""

    @property
    def place(self) -> str:
        return f"{self.machine}/{self.name}"

    @property
    def device(self) -> str:
        """The model, as a reader knows it."""
        facts = self.run.environment
        return _text(facts.get("gpu") or f"{facts.get('cpu', '?')}, {facts.get('cpu_count', '?')} cores")

    @property
    def day(self) -> str:
        return _text(min((r.started for r in self.run.records if r.started), default="")[:10])

    @property
    def versions(self) -> str:
        packages = self.run.environment.get("packages")
        torch = packages.get("torch", "?") if isinstance(packages, dict) else "?"
        return _text(f"suite {self.run.environment.get('suite_version', '?')}, torch {torch}")

    @property
    def count(self) -> dict[str, int]:
        """How many evaluations there are of each of SUMMARY_CLASSES."""
        found = Counter(summary_class(r.status) for r in self.run.records)
        return {name: found[name] for name in SUMMARY_CLASSES}

    @property
    def timed(self) -> int:
        """How many throughput measurements have times."""
        return sum(m.kind == "throughput" and bool(times_of(m)) for m in self.run.measurements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What two published runs have in common."""

    base: Published
    new: Published
    joined: int
    """Evaluations that both have."""
    new_failures: int
    worse: int
    """Meaningfully larger errors."""
    same_bits: str
    """ "3 of 4" outputs, or "not comparable" between environments."""
    speeds: str
    """How many times have each verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """All published runs, by machine and day, and what each two share."""

    folder: str
    """The name of the folder that has them."""
    runs: tuple[Published, ...]
    comparisons: tuple[Shared, ...]

    def commands(self) -> list[str]:
        """For each comparison the command that shows it, from the folder above."""
        return [
            f"softmax-suite compare {self.folder}/{s.base.place} {self.folder}/{s.new.place}"
            for s in self.comparisons
        ]

    def sentence(self) -> str:
        if not self.runs:
            return "No published runs yet."
        machines = len({one.machine for one in self.runs})
        failed = sum(one.count["failed"] for one in self.runs)
        evaluations = sum(len(one.run.records) for one in self.runs)
        bad = count(failed, "unexpected failure") if failed else "no unexpected failure"
        where = f"{count(len(self.runs), 'run')} on {count(machines, 'machine')}"
        return f"{where}: {count(evaluations, 'evaluation')}, {bad}."


class Cell(NamedTuple):
    """A kernel in a format."""

    error: str
    """The worst, over its bound, or in a word."""
    passed: bool
    """No evaluation failed."""
    speed: float | None
    """torch's median time over the kernel's."""


class Row(NamedTuple):
    """A kernel."""

    kernel: str
    is_torch: bool
    failed: str
    """ "1 of 9" judged evaluations of the forward, known failures among them."""
    cells: tuple[Cell, ...]
    """One for each of FORMATS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The table of one op on one machine, the fastest first."""

    published: Published
    op: str
    rows: tuple[Row, ...]
    others: int
    """How many more kernels were timed."""
    inputs: str
    """The shapes that were timed, in words."""


RUN_COLUMNS = (
    "machine", "run", "day", "versions", "profile", "evaluations", "passed", "failed", "known",
    "unsupported", "timed",
)  # fmt: skip
SHARED_COLUMNS = (
    "base", "new", "evaluations in both", "new failures", "meaningfully larger errors", "same bits", "times",
)  # fmt: skip
COLUMNS = ("op", "kernel", "failed", *(f"{d}: {what}" for d in FORMATS for what in ("worst error", "speed")))


def read_published(reports: Path) -> Reports:
    """The runs of reports/<machine>/<run>/. Raises ValueError, naming the folder, for one that
    compare would refuse.
    """
    folders = sorted(path.parent for path in reports.glob("*/*/env.json"))
    for folder in folders:
        if not (FOLDER.fullmatch(folder.name) and FOLDER.fullmatch(folder.parent.name)):
            raise ValueError(
                f"{str(folder)!r} is no name of a published run: letters, digits, '.', '_' and '-' alone"
            )
    runs = []
    for folder, run in zip(folders, read_runs(folders), strict=True):
        asked = read_configuration(folder).asked if (folder / FILE).exists() else {}
        profile = _text(asked.get("profile", ""))
        runs.append(Published(machine=folder.parent.name, name=folder.name, run=run, profile=profile))
    runs.sort(key=lambda one: (one.machine, one.day, one.name))
    return Reports(folder=reports.resolve().name, runs=tuple(runs), comparisons=tuple(_shared(runs)))


def index_page(reports: Reports) -> str:
    """index.html: one page without scripts or outside requests, like a run's own."""
    machines = by(reports.runs, lambda one: one.machine)
    tables = kernel_tables(reports, rows=sys.maxsize)
    return fill(
        "published.html",
        sentence=reports.sentence(),
        machines=[
            {"runs": runs, "tables": [table for table in tables if table.published.machine == machine]}
            for machine, runs in machines.items()
        ],
        formats=FORMATS,
        comparisons=reports.comparisons,
        commands=reports.commands(),
        command=COMMAND,
    )


def index_table(reports: Reports) -> str:
    """reports/README.md: the same as tables in Markdown."""
    lines = [
        f"<!-- Written by `{COMMAND}`; a change by hand is lost. -->",
        "# Published runs",
        "",
        f"{reports.sentence()} [index.html](index.html) is the same as a page, with tables of kernels.",
        "A folder has `report.html` to read, and the records to compare: `softmax-suite compare`,"
        " `report` and `merge` take it",
        "like any run folder. [docs/publishing.md](../docs/publishing.md) says how a run is made and"
        " published.",
    ]
    if reports.runs:
        runs = markdown(RUN_COLUMNS, [_run_cells(one) for one in reports.runs], numbers=range(5, 11))
        known = (
            "*known*: failures that are known or declared; the report has the reasons. *timed*: kernels,"
            " by input and format."
        )
        lines += ["", *runs, "", known, ""]
    if reports.comparisons:
        shared = markdown(
            SHARED_COLUMNS, [_shared_cells(s) for s in reports.comparisons], numbers=range(2, 5)
        )
        whole = (
            "Bits are compared within one environment alone. The whole comparison of two, from the folder"
            " above this one:"
        )
        lines += [
            "## What they have in common",
            "",
            *shared,
            "",
            whole,
            "",
            "```",
            *reports.commands(),
            "```",
            "",
        ]
    return "\n".join(lines).rstrip("\n") + "\n"


def readme_table(reports: Reports) -> str:
    """The table of a README, without its markers: at most ROWS kernels, and a sentence that says
    what the numbers are.
    """
    tables = kernel_tables(reports, rows=ROWS)
    if not tables:
        return "No published run has times of softmax or attention yet."
    parts = []
    for own in by(tables, lambda table: table.published.machine).values():
        of = ", ".join(f"{table.op} on {table.inputs}" for table in own)
        runs = {table.published.place: table.published for table in own}.values()
        links = ", ".join(f"[{one.name}]({reports.folder}/{one.place}/report.html)" for one in runs)
        left_out = sum(table.others for table in own)
        more = f"; {count(left_out, 'slower kernel')} more in it" if left_out else ""
        one, rows = own[0].published, [_row_cells(table.op, row) for table in own for row in table.rows]
        machine = f"{_markdown(one.device)}, {_markdown(one.versions)}"
        table = markdown(COLUMNS, rows, numbers=range(2, len(COLUMNS)))
        parts += [f"{machine}: {of}. The whole run: {links}{more}.", "", *table, ""]
    return "\n".join(parts).rstrip("\n")


def with_table(text: str, table: str) -> str:
    """A README's text with this table between its markers. Raises ValueError where they are no pair."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise ValueError(f"README.md must have {BEGIN} and {END} once, in this order")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def kernel_tables(reports: Reports, *, rows: int) -> list[Kernels]:
    """For each machine and op of OPS a table, of the newest run with times of torch's kernel.
    rows: of all of them.
    """
    newest = {}
    for one in sorted(reports.runs, key=lambda one: (one.day, one.name)):
        for op in OPS:
            if inputs := _torch_inputs(one.run, op):
                newest[one.machine, op] = (one, inputs)
    most = max(rows // max(len(newest), 1), 1)
    return [
        _kernels(one, op, inputs, most)
        for (_, op), (one, inputs) in sorted(newest.items(), key=lambda item: _order(*item[0]))
    ]


def _order(machine: str, op: str) -> tuple[str, int]:
    return machine, OPS.index(op)


def _torch_inputs(run: Run, op: str) -> dict[str, Measurement]:
    """format -> torch's longest timed forward, of those the plainest case."""
    own = [m for m in _timed_forward(run, op) if m.kernel == torch_kernels(op)[0] and m.dtype in FORMATS]
    own.sort(key=lambda m: (m.data["length"], -m.case.count("/"), m.data["shape"]))
    return {m.dtype: m for m in own}


def _timed_forward(run: Run, op: str) -> Iterator[Measurement]:
    for m in run.measurements:
        known = m.kind == "throughput" and m.op == op and isinstance(m.data.get("length"), int)
        if known and m.data["direction"] == "forward" and times_of(m):
            yield m


def _kernels(published: Published, op: str, inputs: dict[str, Measurement], most: int) -> Kernels:
    speeds: dict[str, dict[str, float]] = {}
    for m in _timed_forward(published.run, op):
        torch = inputs.get(m.dtype)
        if torch is not None and (m.case, m.device) == (torch.case, torch.device):
            speeds.setdefault(m.kernel, {})[m.dtype] = median(times_of(torch)) / median(times_of(m))
    judged = by((r for r in published.run.records if _is_judged_forward(r, op)), lambda r: r.kernel)
    own = [kernel for kernel in speeds if kernel in judged and not any(r.outside for r in judged[kernel])]
    own.sort(key=lambda kernel: ([-speeds[kernel].get(dtype, 0.0) for dtype in FORMATS], kernel))
    kept = {torch_kernels(op)[0], *[kernel for kernel in own if kernel != torch_kernels(op)[0]][: most - 1]}
    rows = tuple(_row(kernel, op, judged[kernel], speeds[kernel]) for kernel in own if kernel in kept)
    shapes = dict.fromkeys(shape_of(inputs[dtype].data["shape"]) for dtype in FORMATS if dtype in inputs)
    return Kernels(
        published=published, op=op, rows=rows, others=len(own) - len(rows), inputs=" and ".join(shapes)
    )


def _is_judged_forward(r: Record, op: str) -> bool:
    return r.op == op and r.direction == "forward" and r.status not in ("unsupported", "not_run")


def _row(kernel: str, op: str, judged: Sequence[Record], speeds: Mapping[str, float]) -> Row:
    return Row(
        kernel=_text(kernel),
        is_torch=kernel == torch_kernels(op)[0],
        failed=f"{sum(r.status != 'passed' for r in judged):,} of {len(judged):,}",
        cells=tuple(_cell([r for r in judged if r.dtype == dtype], speeds.get(dtype)) for dtype in FORMATS),
    )


def _cell(records: Sequence[Record], speed: float | None) -> Cell:
    if not records:
        return Cell(ABSENT, True, speed)
    record = worst(records)
    passed = record.status == "passed"
    return Cell(times(record.judgement.ratio) if passed else how_bad(record), passed, speed)


def _row_cells(op: str, row: Row) -> tuple[str, ...]:
    named = f"{_markdown(row.kernel)} (torch)" if row.is_torch else _markdown(row.kernel)
    speeds = [(cell.error, ABSENT if cell.speed is None else f"{cell.speed:.2f}") for cell in row.cells]
    return (op, named, row.failed, *(text for pair in speeds for text in pair))


def _shared(runs: Sequence[Published]) -> Iterator[Shared]:
    for base, new in combinations(runs, 2):
        try:
            found = compare(base.run, new.run)
        except ValueError:  # nothing in common
            continue
        counts = found.count()
        bits, speeds = counts["bits"], counts["speed"]
        compared = bits["same"] + bits["other"]
        same = f"{bits['same']:,} of {compared:,}"
        yield Shared(
            base=base,
            new=new,
            joined=len(found.both()),
            new_failures=sum(pair.base is not None for pair in found.changes()["new failure"]),
            worse=len(found.worse()),
            same_bits=same if compared else "not comparable" if bits["not comparable"] else ABSENT,
            speeds=", ".join(
                f"{speeds[name]:,} {name}" for name in sorted(speeds) if name != "not comparable"
            )
            or ABSENT,
        )


def _run_cells(one: Published) -> tuple[str, ...]:
    count = one.count
    return (
        _markdown(one.device),
        f"[{one.name}]({one.place}/report.html)",
        one.day,
        _markdown(one.versions),
        _markdown(one.profile) or ABSENT,
        f"{len(one.run.records):,}",
        *(f"{count[name]:,}" for name in ("passed", "failed", "known_failure", "unsupported")),
        f"{one.timed:,}",
    )


def _shared_cells(s: Shared) -> tuple[str, ...]:
    numbers = (f"{number:,}" for number in (s.joined, s.new_failures, s.worse))
    return (s.base.place, s.new.place, *numbers, s.same_bits, s.speeds)


def _text(value: Any) -> str:
    return visible(str(value), limit=NAME, lines=False)


def _markdown(text: str) -> str:
    """A text as Markdown shows it."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#!~])", r"\\\1", escaped)
