"""report.html: one self-contained page without scripts or outside requests, light and dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from suite.records.record import SUMMARY_CLASSES, Record, summary_class
from suite.records.schema import conforms
from suite.records.store import Run
from suite.report.answers import answers
from suite.report.attention import attention_context, where
from suite.report.chapters import LIBM, sound
from suite.report.depth import depth_context
from suite.report.gradients import gradient_context, labelled
from suite.report.presentable import bounded, fit, presentable
from suite.report.profile import COLUMNS, profile_context
from suite.report.summaries import (
    ENDED,
    cell,
    counts,
    first_line,
    formats,
    known_reasons,
    times,
    verdict,
    worst_cases,
)
from suite.report.thresholds import threshold_context
from suite.report.throughput import throughput_context
from suite.report.vanishing import vanishing_context

EASY = {"normal", "alike"}
"""The families of what bench times: hard for no kernel."""


def render(runs: Sequence[Run], *, show_paths: bool = False, incomplete: Sequence[str] = ()) -> str:
    """The page of these runs, as text. show_paths: leave home directories, user and host names as
    they are. incomplete: what the page says before all else.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("suite.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(times=times, first_line=first_line, where=where)
    runs = [presentable(run, show_paths=show_paths) for run in runs]
    every = labelled([record for run in runs for record in run.records])
    measurements, notes = sound([measurement for run in runs for measurement in run.measurements])
    # A bench judges the inputs that it times, and nothing hard: what is safe for what is not asked
    # there, but what is fast.
    timed_alone = any(m.kind == "throughput" for m in measurements) and {r.family for r in every} <= EASY
    sentence, record = verdict(every)
    tabled, records, left_out = bounded(every)
    return environment.get_template("report.html").render(
        sentence=sentence,
        worst=record,
        runs=[
            {
                "name": run.folder.name,
                "facts": _identity(run),
                "started": min((r.started for r in run.records if r.started), default=""),
                "notices": run.notices,
            }
            for run in runs
        ],
        incomplete=[fit(line, show_paths=show_paths) for line in incomplete],
        notes=[*left_out, *notes],
        counts=counts(every),
        kernels=_kernels(tabled),
        attention=None if timed_alone else attention_context(tabled),
        timed_alone=timed_alone,
        **gradient_context(tabled),
        matrices=_matrices(records),
        cases=worst_cases(records),
        known=known_reasons(records),
        unsupported=_unsupported(records),
        declared=_declared(records),
        strict=any(r.strict for r in every),
        total=len(every),
        answers=answers(records, measurements),
        laws=_LAWS,
        ended=ENDED,
        same_bits=_same_bits(records),
        profiles=profile_context(measurements),
        profile_columns=COLUMNS,
        **threshold_context(measurements),
        **vanishing_context(measurements),
        **depth_context(measurements),
        **throughput_context(measurements, (record for run in runs for record in run.records)),
    )


def _identity(run: Run) -> list[tuple[str, str]]:
    """What a reader needs to know of the machine and software, as label and value."""
    facts = run.environment
    packages, libm = facts.get("packages"), facts.get("libm") or {}
    packages = packages if isinstance(packages, dict) else {}
    lines = [
        ("device", facts.get("gpu") or facts.get("device", "")),
        (
            "CPU",
            (
                f"{facts.get('cpu', '?')}, {facts.get('cpu_count', '?')} cores, torch uses"
                f" {facts.get('threads', '?')} threads"
            ),
        ),
        ("CPU capability", facts.get("cpu_capability", "")),
        ("system", f"{facts.get('system', '')} {facts.get('machine', '')}, {facts.get('libc', '')}"),
        ("Python", facts.get("python", "")),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages.items())),
        ("softmax-suite", f"{facts.get('suite_version', '?')}, environment {facts.get('env_id', '?')}"),
    ]
    if conforms(libm, LIBM):
        lines.append(
            (
                "float64 tier",
                (
                    f"exp within {libm['exp_ulp']:.3f} ulp, log within {libm['log_ulp']:.3f} ulp "
                    f"on {libm['points']:,} points against {libm['against']}"
                ),
            )
        )
    return [(label, str(value)) for label, value in lines if str(value).strip()]


def _kernels(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each kernel of each op: counts by class, worst ratios, error against torch's."""
    rows = []
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.op, record.kernel), []).append(record)
    for (op, kernel), group in sorted(groups.items(), key=lambda item: item[0]):
        count = dict.fromkeys(SUMMARY_CLASSES, 0)
        for record in group:
            count[summary_class(record.status)] += 1
        statuses = Counter(r.status for r in group)
        passing = [r.ratio for r in group if r.status == "passed" and r.ratio is not None]
        against = sorted(r.torch_ratio for r in group if r.status == "passed" and r.torch_ratio is not None)
        rows.append(
            {
                "op": op,
                "kernel": kernel,
                "count": count,
                "among": [
                    f"{statuses[s]:,} {s.replace('_', ' ')}" for s in (*ENDED, "not_run") if statuses[s]
                ],
                "passing": max(passing, default=None),
                "torch": against[len(against) // 2] if against else None,
                "numerics": group[0].numerics,
            }
        )
    return rows


_LAWS = ("repeat", "replay", "permutation", "shift", "batch", "neighbour", "written", "canaries", "doubled")


def _same_bits(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """For each kernel, law by law, in how many of its evaluations both sides had the same bits; ""
    where none was made.
    """
    rows = []
    for op, kernel in sorted({(r.op, r.kernel) for r in records}):
        found = [r.bitwise for r in records if (r.op, r.kernel) == (op, kernel) and r.bitwise]
        if not found:
            continue
        cells = []
        for law in _LAWS:
            same = [bitwise[law] for bitwise in found if law in bitwise]
            cells.append("" if not same else "all" if all(same) else f"{sum(same)} of {len(same)}")
        rows.append((f"{op} {kernel}", cells))
    return rows


def _matrices(records: Sequence[Record]) -> list[dict[str, Any]]:
    """For each op and format: kernels down, input families across."""
    groups: dict[tuple[str, str], dict[str, dict[str, list[Record]]]] = {}
    for r in records:
        groups.setdefault((r.op, r.dtype), {}).setdefault(r.kernel, {}).setdefault(r.family, []).append(r)
    tables = []
    for op in dict.fromkeys(r.op for r in records):
        for dtype in formats(r for r in records if r.op == op):
            kernels = groups[op, dtype]
            families = list(dict.fromkeys(r.family for r in records if (r.op, r.dtype) == (op, dtype)))
            rows = [
                (kernel, [cell(kernels[kernel].get(family, [])) for family in families])
                for kernel in sorted(kernels)
            ]
            tables.append({"op": op, "dtype": dtype, "families": families, "rows": rows})
    return tables


def _unsupported(records: Sequence[Record]) -> list[tuple[str, str, int]]:
    """(kernel and dtype, reason, how many) of what was not run because a kernel does not support it."""
    found: dict[tuple[str, str], int] = {}
    for record in records:
        if record.status == "unsupported":
            key = (f"{record.op} {record.kernel} {record.dtype}", record.message)
            found[key] = found.get(key, 0) + 1
    return [(who, why, count) for (who, why), count in sorted(found.items())]


def _declared(records: Sequence[Record]) -> list[tuple[str, str]]:
    """The declarations that are weaker than best practice: always shown."""
    return sorted({(f"{r.op} {r.kernel}", r.numerics) for r in records if r.numerics != "best practice"})
