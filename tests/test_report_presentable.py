"""report/presentable.py: what a page holds of a run's measurements; tests/test_trust.py has what
strangers write.
"""

from pathlib import Path

import pytest

from suite.records.record import Measurement
from suite.records.store import Run
from suite.report import presentable as module
from suite.report.presentable import presentable


def shown(*measurements):
    return presentable(Run(Path("run"), {}, (), (), measurements), show_paths=False)


def made(kind, number, **data):
    return Measurement(kind=kind, kernel=f"k{number}", op="softmax", dtype="float32", data=data)


def test_a_standard_bench_is_shown_whole():
    """It has 4,428 points, both directions together: more than measurements of other kinds may be."""
    points = [made("throughput", n) for n in range(5000)]

    run = shown(*points)

    assert run.measurements == tuple(points)
    assert run.notices == ()


def test_each_kind_has_its_own_limit_and_what_is_cut_is_said(monkeypatch):
    monkeypatch.setattr(module, "ANY", 2)
    monkeypatch.setattr(module, "MEASUREMENTS", {"throughput": 3})
    of_each = [made(kind, n) for n in range(5) for kind in ("throughput", "thresholds")]

    run = shown(*of_each, made("exponential", 0))

    assert [(m.kind, m.kernel) for m in run.measurements] == [
        ("throughput", "k0"), ("thresholds", "k0"), ("throughput", "k1"), ("thresholds", "k1"),
        ("throughput", "k2"), ("exponential", "k0"),
    ]  # fmt: skip
    assert run.notices == (
        "3 measurements of kind thresholds are left out",
        "2 measurements of kind throughput are left out",
    )


@pytest.mark.parametrize(
    ("name", "text"), [("note", "wrong\n  got \\x1b[31m"), ("clock", r"wrong\n  got \x1b[31m")]
)
def test_a_note_keeps_its_lines_and_nothing_that_acts(name, text):
    [m] = shown(made("throughput", 0, **{name: "wrong\n  got \x1b[31m"})).measurements

    assert m.data[name] == text
