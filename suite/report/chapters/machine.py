"""Machine and software of each run, and what was skipped when it was read."""

from __future__ import annotations

from typing import Any

from suite.records.schema import conforms
from suite.records.store import Run
from suite.report.chapters import Found
from suite.report.shapes import COUNT, NUMBER, TEXT, fields

PLACE = 130
LIBM = fields(exp_ulp=NUMBER, log_ulp=NUMBER, points=COUNT, against=TEXT)


def context(found: Found) -> dict[str, Any]:
    """runs: (name, facts as label and value, notices)."""
    return {"runs": [(run.folder.name, _facts(run), run.notices) for run in found.runs]}


def _facts(run: Run) -> list[tuple[str, str]]:
    facts = run.environment
    packages, libm = facts.get("packages"), facts.get("libm")
    found = {
        "device": facts.get("gpu") or facts.get("device", ""),
        "CPU": f"{facts.get('cpu', '?')}, {facts.get('cpu_count', '?')} cores, torch uses"
        f" {facts.get('threads', '?')} threads",
        "CPU capability": facts.get("cpu_capability", ""),
        "system": f"{facts.get('system', '')} {facts.get('machine', '')}, {facts.get('libc', '')}",
        "Python": facts.get("python", ""),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items())
        if isinstance(packages, dict)
        else "",
        "softmax-suite": f"{facts.get('suite_version', '?')}, environment {facts.get('env_id', '?')}",
    }
    if isinstance(libm, dict) and conforms(libm, LIBM):
        found["float64 tier"] = (
            f"exp within {libm['exp_ulp']:.3f} ulp, log within {libm['log_ulp']:.3f} ulp "
            f"on {libm['points']:,} points against {libm['against']}"
        )
    found["started"] = min((r.started for r in run.records if r.started), default="")
    return [(label, str(value)) for label, value in found.items() if str(value).strip()]
