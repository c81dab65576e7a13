"""A finding of a profile: a value, and a sentence of evidence."""

from __future__ import annotations

from typing import Any

Finding = dict[str, Any]
Findings = dict[str, Finding]


def finding(value: Any, text: str) -> Finding:
    return {"value": value, "text": text}


def unmeasured(reason: str) -> Finding:
    return finding(None, f"not measured: {reason}")
