"""The comparison in words: is the new run worse, what differs between the machines, why gates refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from suite.records.store import Run
from suite.report.compare import Comparison, throughput_of
from suite.report.speed import SPEEDS
from suite.report.words import count, digits, joined

FACTS = 64
"""Facts of the environments that are shown, of those that differ and of those that do not."""
NOTICES = 20
"""Notices of a run that are shown."""
DEPTH = 3
"""Levels of nested facts that are spread out."""
ONE_SIDED = {"new": "only in the new one", "gone": "gone", "no verdict now": "unsupported now"}
RATES = (
    ("copy_bytes_per_second", "copies, measured", 1e9, "GB/s"),
    ("matmul_operations_per_second", "matrix products, measured (fastest format)", 1e12, "TFLOP/s"),
)


def run_names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its folder's, with as many of the folders above as make them differ."""
    parts = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-depth:]) for part in parts]
        if len(set(found)) == len(found):
            return found
    return [str(run.folder) for run in runs]


def answer(comparison: Comparison) -> tuple[str, str]:
    """(whether the new run is worse than the base, what else there is to say of the two)."""
    asked, unasked = _worse(comparison)
    words = [joined(asked), f"{joined(unasked)}, which no gate refuses" if unasked else ""]
    verdict = "Not worse: no new failure, no meaningfully larger error."
    if asked or unasked:
        verdict = f"Worse: {'; '.join(filter(None, words))}."
    counts = comparison.count()
    rest = [f"{count(len(comparison.both()), 'evaluation')} in both runs"]
    rest += [f"{n:,} {words}" for name, words in ONE_SIDED.items() if (n := counts["change"][name])]
    times = [f"{n:,} {name}" for name in SPEEDS if (n := counts["speed"][name])]
    times += [f"{n:,} {ONE_SIDED[name]}" for name in ("new", "gone") if (n := counts["timed"][name])]
    return verdict, f"{', '.join(rest)}." + (f" Times: {', '.join(times)}." if times else "")


def _worse(comparison: Comparison) -> tuple[list[str], list[str]]:
    """What is worse: (what a gate refuses, what none does)."""
    counts = comparison.count()
    refused = Counter(reason.gate for reason in comparison.reasons)
    found = [(s.low, s.ratio) for s in comparison.speeds if s.verdict == "SLOWER" and s.low and s.ratio]
    # A gate of speed refuses those whose interval begins above it.
    slower = sorted(found)[: max(len(found) - refused["speed"], 0)]
    most = f"{max((ratio for _, ratio in slower), default=0):.3g} times the time"
    bad = (
        (counts["change"]["new failure"], "new failure", "", refused["status"]),
        (counts["timed"]["new failure"], "new failure", " while timed", refused["status"]),
        (len(comparison.worse()), "meaningfully larger error", "", refused["accuracy"]),
        (refused["speed"], "time", " above the gate of speed", True),
        (refused["baseline"], "evaluation", " against the baseline", True),
        (len(slower), "measurement", f" SLOWER ({'up to ' if len(slower) > 1 else ''}{most})", False),
    )
    words = [(count(number, noun) + rest, bool(gate)) for number, noun, rest, gate in bad if number]
    return [text for text, gate in words if gate], [text for text, gate in words if not gate]


def reasons_of(comparisons: Sequence[Comparison]) -> list[str]:
    """Why gates refuse the new runs, in words, each run named where there are several."""
    names = run_names([comparisons[0].base, *(one.new for one in comparisons)])[1:]
    return [
        f"{name}: {reason}" if len(names) > 1 else str(reason)
        for name, one in zip(names, comparisons, strict=True)
        for reason in one.reasons
    ]


def notices_of(name: str, run: Run) -> list[str]:
    more = len(run.notices) - NOTICES
    notices = [*run.notices[:NOTICES], *([f"{more:,} more notices"] if more > 0 else [])]
    return [f"{name}: {notice}" for notice in notices]


def environments(runs: Sequence[Run]) -> dict[str, Any]:
    """unlike: (fact, its value in each run) of facts that differ; alike: of those that do not;
    left_out: how many facts are not shown.
    """
    # bench does not measure libm, which is no difference.
    hidden = set() if all("libm" in run.environment for run in runs) else {"libm"}
    flat = [
        _flat({fact: value for fact, value in run.environment.items() if fact not in hidden}) | _measured(run)
        for run in runs
    ]
    names = dict.fromkeys(name for facts in flat for name in facts)
    rows = [(name, [facts.get(name, "–") for facts in flat]) for name in names]
    unlike = [row for row in rows if len(set(row[1])) > 1]
    alike = [row for row in rows if len(set(row[1])) == 1]
    left_out = sum(max(len(some) - FACTS, 0) for some in (unlike, alike))
    return {"unlike": unlike[:FACTS], "alike": alike[:FACTS], "left_out": left_out}


def _flat(facts: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in facts.items():
        if isinstance(value, dict) and depth < DEPTH:
            found |= _flat(value, f"{prefix}{key} ", depth + 1)
        else:
            found[f"{prefix}{key}".replace("_", " ")] = str(value)
    return found


def _measured(run: Run) -> dict[str, str]:
    """What a run measured of its machine, and how much it holds."""
    timed = throughput_of(run)
    found = {"evaluations": f"{len(run.records):,}", "throughput measurements": f"{len(timed):,}"}
    for name, words, scale, unit in RATES:
        rates = [m.data[name] for m in timed if m.data.get(name)]
        if rates:
            found[words] = f"{digits(max(rates) / scale)} {unit}"
    return found
