"""report/thresholds.py: the chapter of made-up and of measured thresholds."""

import re

import pytest
import torch

from suite.formats import DTYPES, get_format
from suite.kernels import Kernel
from suite.ops import get_op, measured_by
from suite.records.record import Measurement
from suite.report.chapters import Found, chapters
from suite.report.chapters.thresholds import IDEAS, QUANTITIES, _idea, context, explained
from suite.studies import thresholds
from suite.studies.grid import explanations

LENGTHS = (2, 33, 1024, 4096, 151936)


def made(kernel, *, dtype="float16", op="softmax", shift=0.0, overflow=None, device="cpu"):
    """A measurement of rounded thresholds, `shift` above the closed ones; shifted ones agree with nothing."""
    format = get_format(dtype)

    def entries(formulas, value):
        found = []
        for n in LENGTHS:
            closed = formulas(get_op(op).result, format, n)
            measured = value(n)
            names = explanations(closed, measured, 0.01)
            found.append(
                {"n": n, "measured": measured, "spacing": 0.01, "formulas": closed, "agrees_with": names}
            )
        return found

    data = {
        "grid_bits": 11,
        "up_to": format.largest,
        "note": "",
        "overflow": entries(thresholds.overflow_formulas, lambda n: overflow),
        "underflow": entries(thresholds.underflow_formulas, lambda n: format.exp_underflow + shift),
        "saturation": entries(thresholds.saturation_formulas, lambda n: format.saturation_rounded(n) + shift),
        "stagnation": {
            "n": 65536,
            "measured": None,
            "first_wrong": None,
            "largest_error": 0.0,
            "beyond_rounding": None,
            "formulas": {"wide": None},
            "agrees_with": ["wide"],
        },
    }
    return Measurement(kind="thresholds", kernel=kernel, op=op, dtype=dtype, device=device, data=data)


def page(*measurements):
    return chapters()["thresholds"].render(Found(measurements=measurements))


def threshold_context(measurements):
    return context(Found(measurements=measurements))


def test_long_names_of_kernels_leave_room_for_the_chart():
    """matplotlib warns where a legend leaves no room for the axes, and draws them without a width."""
    folder = "/home/somebody/a/long/way/down/to/the/kernels" * 3
    names = [f"{folder}/mine.py:kernel_{k}_{j}" for k in range(6) for j in range(3)]
    assert "mine.py:kernel_5_2" in page(*(made(name, shift=float(name[-3])) for name in names))


def test_no_measurement_makes_no_chapter():
    other = Measurement(kind="exponential", kernel="k", op="softmax", dtype="float32", data={})

    assert page().strip() == ""
    assert page(other).strip() == ""


def test_values_stand_beside_the_formula_that_explains_them():
    [table] = threshold_context([made("k")])["thresholds"]
    [(kernels, cells)] = table["rows"]

    assert kernels == "k"
    assert cells[0] == ("never", "")
    assert cells[2][1] == "zero float16"
    assert cells[4] == ("8.31752", "rounded float16")
    assert cells[6] == ("not up to 65,536", "")


def test_an_unexplained_value_says_between_which_formulas_it_lies():
    [table] = threshold_context([made("k", shift=0.3)])["thresholds"]
    [(_, cells)] = table["rows"]

    assert cells[4] == ("8.61752", "no formula: between rounded float16 and absorbed float32")


def test_kernels_with_the_same_values_share_a_row_and_a_marker():
    [table] = threshold_context([made("b"), made("a"), made("other", shift=0.5)])["thresholds"]

    assert [kernels for kernels, _ in table["rows"]] == ["a, b", "other"]
    assert ">a, b<" in str(table["chart"])


def test_a_kernel_measured_at_fewer_lengths_shares_the_marker():
    short = made("short")
    for quantity in QUANTITIES:
        short.data[quantity] = short.data[quantity][:2]

    [table] = threshold_context([short, made("long")])["thresholds"]

    assert ">long, short<" in str(table["chart"])


def test_a_row_that_fails_at_zero_shows_zero():
    [table] = threshold_context([made("k", overflow=0.0)])["thresholds"]

    assert table["rows"][0][1][0][0] == "0"


def test_reasons_are_shown_and_escaped():
    broken = Measurement(
        kind="thresholds", kernel="k<b>", op="softmax", dtype="float32", data={"reason": "raised <i>"}
    )
    partly = made("partly")
    partly.data["saturation"][0] = {"n": 2, "reason": "odd lengths only"}
    partly.data["stagnation"] = {"n": 2, "reason": "odd lengths only"}
    partly.data["note"] = "declared slow"

    text = page(broken, partly)

    assert "Not measured: k&lt;b&gt; (raised &lt;i&gt;)." in text
    assert text.count("not measured <span") == 2
    assert "Fewer lengths: partly (declared slow)." in text


def test_another_device_is_named():
    [table] = threshold_context([made("k", device="cuda")])["thresholds"]

    assert table["rows"][0][0] == "k (cuda)"


def test_twenty_kernels_stay_readable():
    many = [
        made(f"kernel_{i}", shift=0.0 if i < 10 else 0.05 * i, overflow=None if i < 5 else 2.0 + i)
        for i in range(20)
    ]

    [table] = threshold_context(many)["thresholds"]

    assert len(str(table["chart"])) < 30_000
    assert "more groups" in str(table["chart"])
    assert "and 1 more" in str(table["chart"])
    assert {name for kernels, _ in table["rows"] for name in kernels.split(", ")} == {m.kernel for m in many}


def test_the_chapter_has_no_scripts_and_no_outside_requests():
    text = page(made("k"), made("k", dtype="bfloat16"))

    assert "<svg" in text
    assert not re.search(r"<script|javascript:|<link|<img|@import|(?:src|href)=[\"'](?!#)", text)


@pytest.mark.parametrize("op", measured_by("thresholds"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_formula_has_a_text(op, dtype):
    names = set(thresholds.stagnation_formulas(get_format(dtype), 2**16))
    for n in (1, *LENGTHS):
        names |= set(thresholds.overflow_formulas(get_op(op).result, get_format(dtype), n))
        if n > 1:
            names |= set(thresholds.underflow_formulas(get_op(op).result, get_format(dtype), n))
            names |= set(thresholds.saturation_formulas(get_op(op).result, get_format(dtype), n))

    assert {_idea(name) for name in names} <= IDEAS.keys()


def test_names_of_one_idea_are_joined():
    assert explained(["sum bfloat16", "sum float32"]) == "sum bfloat16 or float32"
    assert explained(["rounded float16", "absorbed float32"]) == "rounded float16 or absorbed float32"
    assert explained(["base 2 float32"]) == "base 2 float32"
    assert explained([]) == ""


def test_measured_thresholds_of_torch_show_its_wide_internals(monkeypatch):
    monkeypatch.setattr(thresholds, "LENGTHS", (2, 4096))
    monkeypatch.setattr(thresholds, "LONGEST_SUM", 512)
    measured = thresholds.measure(Kernel(id="torch", op="softmax", call=torch.softmax), "bfloat16")

    [table] = threshold_context([measured])["thresholds"]

    assert table["rows"][0][1][4:] == (
        ("6.25", "rounded bfloat16"),
        ("14.5625", "rounded bfloat16"),
        ("not up to 512", ""),
    )
