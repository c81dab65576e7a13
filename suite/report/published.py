"""The pages about published runs: which there are, what they found, how they compare, and which
kernel is right and fast.

Every number is computed from the records of the runs, and nothing else goes in, neither the day nor
this machine: the same runs give the same text everywhere.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from suite.records.configuration import FILE, read_configuration
from suite.records.record import SUMMARY_CLASSES, Measurement, Record, summary_class
from suite.records.store import Run
from suite.report.advice import torch_kernels
from suite.report.compare import compare, median, read_runs, times_of
from suite.report.summaries import how_bad, times, worst
from suite.report.visible import NAME, visible

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
    """A published run. machine, name: its folders. profile: as asked, "" where it does not say."""

    machine: str
    name: str
    run: Run
    profile: str

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
    """What two published runs have in common.

    joined: evaluations that both have. new_failures, worse: of them, and meaningfully larger
    errors. same_bits: "3 of 4" outputs, "not comparable" between environments. speeds: how many
    times have each verdict.
    """

    base: Published
    new: Published
    joined: int
    new_failures: int
    worse: int
    same_bits: str
    speeds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """All published runs, by machine and day, and what each two share. folder: the name of the
    folder that has them.
    """

    folder: str
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
        bad = f"{_count(failed, 'unexpected failure')}" if failed else "no unexpected failure"
        return (
            f"{_count(len(self.runs), 'run')} on {_count(machines, 'machine')}:"
            f" {_count(evaluations, 'evaluation')}, {bad}."
        )


class Cell(NamedTuple):
    """A kernel in a format. error: the worst, in times of the bound, or in a word. passed: no
    evaluation failed. speed: torch's median time over the kernel's.
    """

    error: str
    passed: bool
    speed: float | None


class Row(NamedTuple):
    """A kernel. failed: "1 of 9" judged evaluations of the forward, known ones among them. cells:
    one for each of FORMATS.
    """

    kernel: str
    is_torch: bool
    failed: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The table of one op on one machine, the fastest first. others: how many more were timed.
    inputs: the shapes that were timed, in words.
    """

    published: Published
    op: str
    rows: tuple[Row, ...]
    others: int
    inputs: str


RUN_COLUMNS = (
    "machine", "run", "day", "versions", "profile", "evaluations", "passed", "failed", "known",
    "unsupported", "timed",
)  # fmt: skip
SHARED_COLUMNS = (
    "base",
    "new",
    "evaluations in both",
    "new failures",
    "meaningfully larger errors",
    "same bits",
    "times",
)
COLUMNS = (
    "op",
    "kernel",
    "failed",
    *(f"{dtype}: {what}" for dtype in FORMATS for what in ("worst error", "speed")),
)


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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("suite.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    machines: dict[str, list[Published]] = {}
    for one in reports.runs:
        machines.setdefault(one.machine, []).append(one)
    tables = kernel_tables(reports, rows=sys.maxsize)
    return environment.get_template("published.html").render(
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
        (
            "A folder has `report.html` to read, and the records to compare: `softmax-suite compare`,"
            " `report` and `merge` take it"
        ),
        (
            "like any run folder. [docs/publishing.md](../docs/publishing.md) says how a run is made and"
            " published."
        ),
    ]
    if reports.runs:
        lines += [
            "",
            *_table(RUN_COLUMNS, [_run_cells(one) for one in reports.runs], numbers=range(5, 11)),
            "",
        ]
        lines += [
            (
                "*known*: failures that are known or declared; the report has the reasons. *timed*: kernels,"
                " by input and format."
            ),
            "",
        ]
    if reports.comparisons:
        lines += ["## What they have in common", ""]
        lines += [
            *_table(SHARED_COLUMNS, [_shared_cells(s) for s in reports.comparisons], numbers=range(2, 5)),
            "",
        ]
        lines += [
            (
                "Bits are compared within one environment alone. The whole comparison of two, from the folder"
                " above this one:"
            ),
            "",
        ]
        lines += ["```", *reports.commands(), "```", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def readme_table(reports: Reports) -> str:
    """The table of a README, without its markers: at most ROWS kernels, and a sentence that says
    what the numbers are.
    """
    tables = kernel_tables(reports, rows=ROWS)
    if not tables:
        return "No published run has times of softmax or attention yet."
    parts = []
    for machine in dict.fromkeys(table.published.machine for table in tables):
        own = [table for table in tables if table.published.machine == machine]
        of = ", ".join(f"{table.op} on {table.inputs}" for table in own)
        runs = {table.published.place: table.published for table in own}.values()
        links = ", ".join(f"[{one.name}]({reports.folder}/{one.place}/report.html)" for one in runs)
        left_out = sum(table.others for table in own)
        more = f"; {_count(left_out, 'slower kernel')} more in it" if left_out else ""
        one, rows = own[0].published, [_row_cells(table.op, row) for table in own for row in table.rows]
        parts += [
            f"{_markdown(one.device)}, {_markdown(one.versions)}: {of}. The whole run: {links}{more}.",
            "",
        ]
        parts += [*_table(COLUMNS, rows, numbers=range(2, len(COLUMNS))), ""]
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
    found: dict[str, Measurement] = {}
    own = [
        m
        for m in run.measurements
        if _is_timed_forward(m, op) and m.kernel == torch_kernels(op)[0] and m.dtype in FORMATS
    ]
    for m in sorted(own, key=lambda m: (m.data["length"], -m.case.count("/"), m.data["shape"])):
        found[m.dtype] = m
    return found


def _is_timed_forward(m: Measurement, op: str) -> bool:
    if m.kind != "throughput" or m.op != op or not isinstance(m.data.get("length"), int):
        return False
    return m.data["direction"] == "forward" and bool(times_of(m))


def _kernels(published: Published, op: str, inputs: dict[str, Measurement], most: int) -> Kernels:
    speeds: dict[str, dict[str, float]] = {}
    for m in published.run.measurements:
        torch = inputs.get(m.dtype)
        if (
            torch is not None
            and _is_timed_forward(m, op)
            and (m.case, m.device) == (torch.case, torch.device)
        ):
            speeds.setdefault(m.kernel, {})[m.dtype] = median(times_of(torch)) / median(times_of(m))
    judged: dict[str, list[Record]] = {kernel: [] for kernel in speeds}
    for r in published.run.records:
        if (
            r.op == op
            and r.direction == "forward"
            and r.status not in ("unsupported", "not_run")
            and r.kernel in judged
        ):
            judged[r.kernel].append(r)
    own = [kernel for kernel, records in judged.items() if records and not any(r.outside for r in records)]
    own.sort(key=lambda kernel: ([-speeds[kernel].get(dtype, 0.0) for dtype in FORMATS], kernel))
    kept = {torch_kernels(op)[0], *[kernel for kernel in own if kernel != torch_kernels(op)[0]][: most - 1]}
    rows = [
        Row(
            kernel=_text(kernel),
            is_torch=kernel == torch_kernels(op)[0],
            failed=f"{sum(r.status != 'passed' for r in judged[kernel]):,} of {len(judged[kernel]):,}",
            cells=tuple(
                _cell([r for r in judged[kernel] if r.dtype == d], speeds[kernel].get(d)) for d in FORMATS
            ),
        )
        for kernel in own
        if kernel in kept
    ]
    shapes = dict.fromkeys(
        "x".join(map(str, inputs[dtype].data["shape"])) for dtype in FORMATS if dtype in inputs
    )
    return Kernels(
        published=published, op=op, rows=tuple(rows), others=len(own) - len(rows), inputs=" and ".join(shapes)
    )


def _cell(records: Sequence[Record], speed: float | None) -> Cell:
    if not records:
        return Cell(ABSENT, True, speed)
    record = worst(records)
    passed = record.status == "passed"
    return Cell(times(record.ratio) if passed else how_bad(record), passed, speed)


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
        count = found.count()
        bits, same = count["bits"], count["bits"]["same"] + count["bits"]["other"]
        speeds = [
            f"{n:,} {verdict}" for verdict, n in sorted(count["speed"].items()) if verdict != "not comparable"
        ]
        yield Shared(
            base=base,
            new=new,
            joined=sum(pair.base is not None and pair.new is not None for pair in found.pairs),
            new_failures=sum(pair.base is not None for pair in found.changes()["new failure"]),
            worse=len(found.worse()),
            same_bits=(
                f"{bits['same']:,} of {same:,}"
                if same
                else "not comparable"
                if bits["not comparable"]
                else ABSENT
            ),
            speeds=", ".join(speeds) or ABSENT,
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
    return (
        s.base.place,
        s.new.place,
        f"{s.joined:,}",
        f"{s.new_failures:,}",
        f"{s.worse:,}",
        s.same_bits,
        s.speeds,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: range) -> list[str]:
    """A table of Markdown; the columns of these numbers stand to the right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _text(value: Any) -> str:
    return visible(str(value), limit=NAME, lines=False)


def _markdown(text: str) -> str:
    """A text as Markdown shows it."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#!~])", r"\\\1", escaped)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
