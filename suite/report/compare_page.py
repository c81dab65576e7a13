"""The page of `compare`: one self-contained file without scripts or outside requests, light and dark.

It answers two questions: is the new version worse, and which kernel should be used here? Every text
of strangers passes shown() once, when the page's context is whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from suite.records.record import Measurement, Record
from suite.records.store import Run
from suite.report.advice import Advice, Group, Standing, Subject, advise, grouped, ranked, standings
from suite.report.compare import (
    CHANGES,
    SPEEDS,
    Comparison,
    Pair,
    Speed,
    median,
    throughput_of,
    times_of,
    told,
)
from suite.report.privacy import private
from suite.report.summaries import first_line, times
from suite.report.visible import NAME, visible

ROWS = 200
"""Rows of a table that are shown; the file of --csv has them all."""
FACTS, NOTICES, REASONS = 64, 20, 12
PREFIXES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
WIDTH, OCTAVE = 180, 85
"""Of the drawing of an interval: pixels in all, and for a factor of 2."""


def render(comparisons: Sequence[Comparison], *, gates: str = "", show_paths: bool = False) -> str:
    """The page of these comparisons, which share their base, as text.

    gates: what --fail-on and --baseline asked, in words. show_paths: leave home directories, user
    and host names as they are.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("suite.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = [comparisons[0].base, *(one.new for one in comparisons)]
    names = run_names(runs)
    reasons, best = reasons_of(comparisons), best_kernels(runs)
    context = {
        "names": names,
        "answers": [
            {"name": name, "verdict": answer(one)[0], "rest": answer(one)[1]}
            for name, one in zip(names[1:], comparisons, strict=True)
        ],
        "gates": gates,
        "reasons": reasons[:REASONS],
        "more_reasons": max(len(reasons) - REASONS, 0),
        "environments": environments(runs),
        "best": best,
        "base_alone": base_alone(best, names[0]),
        "comparisons": [_chapter(name, one) for name, one in zip(names[1:], comparisons, strict=True)],
        "notices": [
            f"{name}: {notice}"
            for name, run in zip(names, runs, strict=True)
            for notice in first_notices(run)
        ],
    }
    return environment.get_template("compare.html").render(shown(context, show_paths=show_paths))


def shown(value: Any, *, show_paths: bool = False) -> Any:
    """The value with each text in it private and visible; the keys of dictionaries are ours and stay."""
    known: dict[str, str] = {}

    def text(raw: str) -> str:
        if raw not in known:
            known[raw] = visible(raw if show_paths else private(raw), limit=2 * NAME, lines=False)
        return known[raw]

    def change(item: Any) -> Any:
        if isinstance(item, Markup) or not isinstance(item, str | dict | list | tuple):
            return item
        if isinstance(item, str):
            return text(item)
        if isinstance(item, dict):
            return {key: change(inner) for key, inner in item.items()}
        return [change(inner) for inner in item]

    return change(value)


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
    counts = comparison.count()
    refused = Counter(reason.gate for reason in comparison.reasons)
    slower = sorted(
        (s.low, s.ratio) for s in comparison.speeds if s.verdict == "SLOWER" and s.low and s.ratio
    )
    let_pass = slower[
        : max(len(slower) - refused["speed"], 0)
    ]  # a gate of speed refuses those whose interval begins above it
    most = (
        f"{'up to ' if len(let_pass) > 1 else ''}{max((ratio for _, ratio in let_pass), default=0):.3g} times"
        " the time"
    )
    bad = [
        (_count(number, noun) + rest, is_refused)
        for number, noun, rest, is_refused in (
            (counts["change"]["new failure"], "new failure", "", bool(refused["status"])),
            (counts["timed"]["new failure"], "new failure", " while timed", bool(refused["status"])),
            (len(comparison.worse()), "meaningfully larger error", "", bool(refused["accuracy"])),
            (refused["speed"], "time", " above the gate of speed", True),
            (refused["baseline"], "evaluation", " against the baseline", True),
            (len(let_pass), "measurement", f" SLOWER ({most})", False),
        )
        if number
    ]
    asked, unasked = (_listed([words for words, one in bad if one is wanted]) for wanted in (True, False))
    words = "; ".join(filter(None, (asked, unasked and f"{unasked}, which no gate refuses")))
    verdict = f"Worse: {words}." if bad else "Not worse: no new failure, no meaningfully larger error."
    joined = sum(pair.base is not None and pair.new is not None for pair in comparison.pairs)
    rest = [f"{_count(joined, 'evaluation')} in both runs"]
    rest += [
        f"{counts['change'][name]:,} {words}" for name, words in ONE_SIDED.items() if counts["change"][name]
    ]
    found = [f"{counts['speed'][name]:,} {name}" for name in SPEEDS if counts["speed"][name]]
    found += [
        f"{counts['timed'][name]:,} {ONE_SIDED[name]}" for name in ("new", "gone") if counts["timed"][name]
    ]
    text = ", ".join(rest) + "." + (f" Times: {', '.join(found)}." if found else "")
    return verdict, text


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def reasons_of(comparisons: Sequence[Comparison]) -> list[str]:
    """Why gates refuse the new runs, in words, each run named where there are several."""
    names = run_names([comparisons[0].base, *(one.new for one in comparisons)])[1:]
    return [
        f"{name}: {reason}" if len(names) > 1 else str(reason)
        for name, one in zip(names, comparisons, strict=True)
        for reason in one.reasons
    ]


ONE_SIDED = {"new": "only in the new one", "gone": "gone", "no verdict now": "unsupported now"}


def environments(runs: Sequence[Run]) -> dict[str, Any]:
    """{"unlike": rows of facts that differ, "alike": rows of those that do not}; a row is the fact
    and its value by run.
    """
    shared = all(
        "libm" in run.environment for run in runs
    )  # bench does not measure it, which is no difference
    flat = [
        _flat({fact: value for fact, value in run.environment.items() if shared or fact != "libm"})
        | _measured(run)
        for run in runs
    ]
    names = list(dict.fromkeys(name for facts in flat for name in facts))
    rows = [{"fact": name, "values": [facts.get(name, "–") for facts in flat]} for name in names]
    unlike = [row for row in rows if len(set(row["values"])) > 1]
    alike = [row for row in rows if len(set(row["values"])) == 1]
    return {
        "unlike": unlike[:FACTS],
        "alike": alike[:FACTS],
        "left_out": sum(max(len(r) - FACTS, 0) for r in (unlike, alike)),
    }


def best_kernels(runs: Sequence[Run]) -> dict[str, Any]:
    """The rows of "which kernel": what a new run has timed, and by run, the base first, the kernel
    to use, its time and error.

    base_alone: how many inputs the base alone has timed.
    """
    found: dict[tuple[str, ...], dict[int, list[tuple[Group, list[Measurement], dict[str, Any]]]]] = {}
    for number, run in enumerate(runs):
        timed = throughput_of(run)
        standing = standings(run.records, timed)
        for group, measurements in sorted(grouped(timed).items()):
            cell = _best_cell(group, advise(ranked(measurements), standing), standing)
            key = (group.op, group.direction, group.dtype, group.case)
            found.setdefault(key, {}).setdefault(number, []).append((group, measurements, cell))
    rows = [
        {
            "op": op,
            "direction": direction,
            "dtype": dtype,
            "input": input_of(case),
            "cells": [[cell for _, _, cell in by_run.get(number, ())] for number in range(len(runs))],
        }
        for (op, direction, dtype, case), by_run in sorted(
            found.items(), key=lambda item: _order(item[0], item[1])
        )
        if any(by_run.keys() - {0})
    ]
    return {"rows": rows[:ROWS], "left_out": max(len(rows) - ROWS, 0), "base_alone": len(found) - len(rows)}


def base_alone(best: Mapping[str, Any], base: str) -> str:
    """A sentence about the inputs that only the base has timed, "" where there are none."""
    number = best["base_alone"]
    return (
        f"{_count(number, 'input')} that {base} alone has timed {'is' if number == 1 else 'are'} left out."
        if number
        else ""
    )


def _order(
    key: tuple[str, ...], by_run: Mapping[int, list[tuple[Group, list[Measurement], dict[str, Any]]]]
) -> tuple[Any, ...]:
    _, [first, *_], _ = next(iter(by_run.values()))[0]
    return (*key[:3], tuple(first.data["shape"]), key[3])


def _best_cell(group: Group, advice: Advice, standing: Mapping[Subject, Standing]) -> dict[str, Any]:
    use = advice.use
    return {
        "kernel": "" if use is None else use.kernel,
        "device": group.device,
        "time": "" if use is None else seconds(median(times_of(use))),
        "rate": "" if use is None else rate(use),
        "error": "" if use is None else _of_bound(use.data.get("ratio")),
        "declares": "" if use is None else standing[Subject.of(use)].declares,
        "notes": [m.kernel for m in advice.as_fast[:3]],
        "faster": [
            f"{m.kernel} ({reason}, {seconds(median(times_of(m)))})" for m, reason in advice.unsafe[:2]
        ],
    }


def seconds(value: float) -> str:
    """A time with three digits, in the unit that suits it."""
    scale, unit = next(((scale, unit) for scale, unit in PREFIXES if value >= scale), PREFIXES[-1])
    return f"{_digits(value / scale)} {unit}"


def rate(m: Measurement) -> str:
    """GB/s of the least traffic, and TFLOP/s where the operations take longer on this machine than
    the traffic; with the share of what this machine reaches, where that was measured.
    """
    second = median(times_of(m))
    found = []
    for amount, peak, scale, unit in (
        ("bytes", "copy_bytes_per_second", 1e9, "GB/s"),
        ("operations", "matmul_operations_per_second", 1e12, "TFLOP/s"),
    ):
        done, most = m.data.get(amount), m.data.get(peak)
        if done:
            share = done / second / most if most else 0.0
            found.append(
                (share, f"{_digits(done / second / scale)} {unit}" + (f", {share:.0%}" if most else ""))
            )
    return max(found)[1] if found and max(found)[0] else (found[0][1] if found else "")


def error(m: Measurement | Record) -> str:
    """The error of a judged output: times of the bound, and ulps."""
    ratio, ulp = (
        (m.ratio, m.max_ulp) if isinstance(m, Record) else (m.data.get("ratio"), m.data.get("max_ulp"))
    )
    return _of_bound(ratio) + (f", {_digits(_number(ulp))} ulp" if ulp is not None else "")


def _of_bound(ratio: Any) -> str:
    return f"{times(_number(ratio))} × bound"


def input_of(case: str) -> str:
    """A case id without its op and a seed of 0."""
    return case.partition("/")[2].removesuffix("/s0") or case


def _chapter(name: str, comparison: Comparison) -> dict[str, Any]:
    changes, counts = comparison.changes(), comparison.count()
    speeds, worse = speed_rows(comparison), error_rows(comparison.worse())
    better = error_rows([pair for pair in comparison.pairs if pair.accuracy == ("better", True)])
    return {
        "name": name,
        "titles": [
            (title, count)
            for change in CHANGES
            for title, count in (
                (change, counts["change"][change]),
                (
                    f"times {change}" if change in ("new", "gone") else f"{change} while timed",
                    counts["timed"][change],
                ),
            )
            if count
        ],
        "verdicts": [(verdict, count) for verdict in SPEEDS if (count := counts["speed"][verdict])],
        "same_environment": comparison.same_environment,
        "threshold": f"{100 * comparison.threshold:g} %",
        "changes": [
            {"title": title, "rows": status_rows(comparison, title)[:ROWS], "count": len(changes[title])}
            for title in ("new failure", "no verdict now", "mended", "other verdict")
            if changes[title]
        ],
        "one_sided": [
            {"title": title, "kernels": _by_kernel(changes[title])}
            for title in ("new", "gone")
            if changes[title]
        ],
        "speeds": speeds[:ROWS],
        "more_speeds": max(len(speeds) - ROWS, 0),
        "accuracy": _accuracy_rows(comparison.pairs),
        "worse": worse[:ROWS],
        "more_worse": max(len(worse) - ROWS, 0),
        "better": better[:ROWS],
        "more_better": max(len(better) - ROWS, 0),
    }


def status_rows(comparison: Comparison, change: str) -> list[dict[str, Any]]:
    """Of the evaluations and measurements with this change what was run, the verdict before and
    now, and why.
    """
    return [_status_row(one) for one in comparison.changes()[change]]


def speed_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The measurements that both runs have, SLOWER first, the furthest from 1 first."""
    both = [speed for speed in comparison.speeds if speed.verdict]
    failures = Counter(
        (row.op, row.kernel, row.dtype) for row, _, _ in map(told, comparison.changes()["new failure"])
    )
    rows = []
    for speed in sorted(both, key=lambda s: (SPEEDS.index(s.verdict), -_far(s))):
        m = speed.measurement
        rows.append(_speed_row(speed, failures[m.op, m.kernel, m.dtype] if speed.verdict == "FASTER" else 0))
    return rows


def error_rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Of each of these evaluations what was run, and its error before and now."""
    return [_error_row(pair) for pair in pairs]


def _status_row(one: Pair | Speed) -> dict[str, Any]:
    row, before, now = told(one)
    return {
        "op": row.op,
        "kernel": row.kernel,
        "dtype": row.dtype,
        "case": row.case,
        "before": (before or "–").replace("_", " "),
        "now": (now or "–").replace("_", " "),
        "timed": "while timed" if isinstance(row, Measurement) else "",
        "message": first_line(row.message if isinstance(row, Record) else row.data.get("note", "")),
        "reproduce": row.reproduce if isinstance(row, Record) and one.change == "new failure" else "",
    }


def _by_kernel(changes: Sequence[Pair | Speed]) -> list[dict[str, Any]]:
    """For each kernel how many evaluations, and how many measurements of time."""
    evaluations, timed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for one in changes:
        row, _, _ = told(one)
        (evaluations if isinstance(row, Record) else timed)[row.op, row.kernel] += 1
    rows = [
        {"op": key[0], "kernel": key[1], "evaluations": evaluations[key], "times": timed[key]}
        for key in sorted({*evaluations, *timed})
    ]
    return rows[:ROWS]


def _speed_row(speed: Speed, failures: int) -> dict[str, Any]:
    """failures: new ones of that kernel and format, with which it is no gain that it is FASTER."""
    assert speed.base is not None
    assert speed.new is not None
    m = speed.new
    before, after = ([times_of(one)] if times_of(one) else [] for one in (speed.base, speed.new))
    return {
        "verdict": speed.verdict,
        "kind": "" if failures else speed.verdict.lower().replace(" ", "-"),
        "op": m.op,
        "kernel": m.kernel,
        "dtype": m.dtype,
        "direction": m.data["direction"],
        "input": input_of(m.case),
        "before": seconds(median(before[0])) if before else "",
        "after": seconds(median(after[0])) if after else "",
        "ratio": "" if speed.ratio is None else _factor(speed.ratio),
        "interval": (
            ""
            if speed.low is None or speed.high is None
            else f"{_factor(speed.low)} to {_factor(speed.high)}"
        ),
        "drawn": _drawn(speed),
        "note": _but(failures) or speed.note,
    }


def _drawn(speed: Speed) -> Markup:
    """The interval on an axis of factors, 1 in the middle, the threshold as a band."""
    if speed.low is None or speed.high is None or speed.ratio is None:
        return Markup("")

    def at(ratio: float) -> float:
        return round(min(max(WIDTH / 2 + OCTAVE * math.log2(ratio), 3), WIDTH - 3), 1)

    low, high, middle = at(speed.low), at(speed.high), at(speed.ratio)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} 16" width="{WIDTH}" height="16" aria-hidden="true">'
        f'<line class="axis" x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="0" y2="16"/>'
        f'<line class="range" x1="{low}" x2="{max(high, low + 1.5)}" y1="8" y2="8"/>'
        f'<circle class="middle" cx="{middle}" cy="8" r="3.2"/></svg>'
    )


def _but(failures: int) -> str:
    """What stands beside a gain of a kernel that newly fails."""
    return f"but {_count(failures, 'new failure')}" if failures else ""


def _accuracy_rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """A row for each op, kernel and format: the worst passing errors, how the errors changed, and
    the bits.
    """
    groups: dict[tuple[str, str, str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.accuracy.change:
            r = pair.record
            groups.setdefault((r.op, r.kernel, r.direction, r.dtype), []).append(pair)
    failures = Counter(
        (r.op, r.kernel, r.direction, r.dtype)
        for r in (pair.record for pair in pairs if pair.change == "new failure")
    )
    rows: list[dict[str, Any]] = []
    for (op, kernel, direction, dtype), group in sorted(groups.items()):
        passing = [
            max(
                (
                    _number(r.ratio)
                    for r in side
                    if r is not None and r.status == "passed" and r.ratio is not None
                ),
                default=None,
            )
            for side in ([p.base for p in group], [p.new for p in group])
        ]
        rows.append(
            {
                "op": op if direction == "forward" else f"{op} backward",
                "kernel": kernel,
                "dtype": dtype,
                "versions": " → ".join(
                    dict.fromkeys(r.kernel_version for r in (group[0].base, group[0].new) if r is not None)
                ),
                "before": "" if passing[0] is None else times(passing[0]),
                "after": "" if passing[1] is None else times(passing[1]),
                "but": _but(failures[op, kernel, direction, dtype]),
                **{
                    name: sum(p.accuracy.change == name for p in group)
                    for name in ("equal", "better", "worse")
                },
                "much_worse": sum(p.accuracy == ("worse", True) for p in group),
                "much_better": sum(p.accuracy == ("better", True) for p in group),
                **{
                    f"bits_{name.partition(' ')[0]}": sum(p.bits == name for p in group)
                    for name in ("same", "other")
                },
                "bits_not": sum(p.bits == "not comparable" for p in group),
            }
        )
    return sorted(rows, key=lambda row: (not row["but"], -row["much_worse"]))[:ROWS]


def _error_row(pair: Pair) -> dict[str, Any]:
    assert pair.base is not None
    assert pair.new is not None
    r = pair.new
    return {
        "op": r.op,
        "kernel": r.kernel,
        "dtype": r.dtype,
        "case": r.case,
        "before": error(pair.base),
        "after": error(r),
        "now": "" if r.status == "passed" else r.status.replace("_", " "),
    }


def _flat(facts: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in facts.items():
        if isinstance(value, dict) and depth < 3:
            found |= _flat(value, f"{prefix}{key} ", depth + 1)
        else:
            found[f"{prefix}{key}".replace("_", " ")] = str(value)
    return found


def _measured(run: Run) -> dict[str, str]:
    """What a run measured of its machine, and how much it holds."""
    timed = throughput_of(run)
    found = {"evaluations": f"{len(run.records):,}", "throughput measurements": f"{len(timed):,}"}
    for name, words, scale, unit in (
        ("copy_bytes_per_second", "copies, measured", 1e9, "GB/s"),
        ("matmul_operations_per_second", "matrix products, measured (fastest format)", 1e12, "TFLOP/s"),
    ):
        rates = [m.data[name] for m in timed if m.data.get(name)]
        if rates:
            found[words] = f"{_digits(max(rates) / scale)} {unit}"
    return found


def first_notices(run: Run) -> list[str]:
    more = len(run.notices) - NOTICES
    return [*run.notices[:NOTICES], *([f"{more:,} more notices"] if more > 0 else [])]


def _far(speed: Speed) -> float:
    """How far from 1 the ratio is, as a factor; 0 without one."""
    return 0.0 if speed.ratio is None else abs(math.log(speed.ratio))


def _digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def _factor(value: float) -> str:
    return f"{value:.3f}" if 0.1 <= value < 10 else f"{value:.3g}"


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
