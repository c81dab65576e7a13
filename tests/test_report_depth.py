"""report/depth.py: the chapter of made-up and of measured numbers."""

import dataclasses
import json
import re

import pytest

from suite.formats import float16, float64
from suite.records.record import Measurement
from suite.report.chapters import Found, chapters
from suite.report.chapters.depth import MOST, SHAPES, context, is_sound
from suite.studies import depth

STACK = {
    "depths": [1, 2],
    "gain": [0.5, 0.25],
    "error": [0.001, None],
    "false_zeros": [0.0, 0.125],
    "layers": [0.25, 0.5],
    "query": [0.1, 0.0],
    "overflow": None,
    "one_hot": 0.5,
    "check": 2e-16,
}
SHARES = [0.0, 0.25, 0.5]
DATA = {
    "transformer_stack": STACK,
    "rank_collapse": {"smallest": [1.0, 0.0], "median": [1.0, 1e-3], "largest": [1.0, None]},
    "rank_collapse_exact": {"log10": [-0.5, -1.5]},
    "lipschitz": {"lengths": [2, 3], "infinity": [0.5, 0.5], "two": [0.5, 0.49]},
    "attention_softmax": {
        "scales": [1.0, 4.0, 16.0],
        "gain": [0.1, 0.01, 0.001],
        **dict.fromkeys(("tiny", "zeros", "false_zeros", "dead", "lost", "saturated"), SHARES),
    },
}


def made(op, *, kernel="k", dtype="float16", **changes):
    return Measurement(kind="depth", kernel=kernel, op=op, dtype=dtype, data={**DATA[op], **changes})


def page(*measurements):
    return chapters()["depth"].render(Found(measurements=measurements))


def depth_context(measurements):
    return context(Found(measurements=measurements))


@pytest.fixture
def without_charts(monkeypatch):
    """Charts take most of the time."""
    monkeypatch.setattr("suite.report.chapters.depth.drawn", lambda *arguments: None)


def test_no_measurement_makes_no_chapter():
    other = Measurement(kind="thresholds", kernel="k", op="softmax", dtype="float32", data={})

    assert page().strip() == ""
    assert page(other).strip() == ""


@pytest.mark.usefixtures("without_charts")
@pytest.mark.parametrize("op", DATA)
def test_each_op_makes_its_section_and_only_that(op):
    sections = (depth_context([made(op)]) or {"depth": []})["depth"]

    assert [section["op"] for section in sections] == ([] if op == "rank_collapse_exact" else [op])
    assert page(made("lipschitz"), made(op)).count("<h3>") == 1 + (
        op not in ("lipschitz", "rank_collapse_exact")
    )


def test_what_is_measured_is_sound_and_survives_json():
    """One small measurement of each op, by the functions that measure."""
    measured = {
        "transformer_stack": depth.gradients_through("attention", [float16], depths=(1, 2)),
        "rank_collapse": depth.rank_collapse("attention", [float16], draws=1),
        "rank_collapse_exact": {"float64": {"log10": depth.exact_residuals(2)}},
        "lipschitz": depth.lipschitz([float64]),
        "attention_softmax": depth.vanishing("softmax", [float16], scales=(1.0, 64.0)),
    }
    assert measured.keys() == SHAPES.keys()
    rows = [
        Measurement(kind="depth", kernel="k", op=op, dtype=dtype, data=data)
        for op, of in measured.items()
        for dtype, data in of.items()
    ]
    read = [Measurement.from_dict(json.loads(m.to_json())) for m in rows]

    assert all(is_sound(m) for m in read)
    assert page(*read).count("<svg") == 3


@pytest.mark.parametrize(
    "broken",
    [
        made("transformer_stack", gain=[0.5]),
        made("transformer_stack", depths=[]),
        made("transformer_stack", check="small"),
        made("transformer_stack", layers=["1"]),
        made("attention_softmax", zeros=[0.0, 0.0, 1.5]),
        made("lipschitz", lengths=[2, -3]),
        made("rank_collapse", median=[]),
        made("rank_collapse", dtype="float7"),
        dataclasses.replace(made("lipschitz"), op="softmax"),
        dataclasses.replace(made("lipschitz"), data={"reason": "no torch"}),
    ],
)
def test_a_measurement_of_another_shape_is_not_sound(broken):
    assert not is_sound(broken)
    assert is_sound(made("transformer_stack"))


@pytest.mark.usefixtures("without_charts")
def test_values_stand_in_the_tables():
    [section] = depth_context([made("transformer_stack", overflow=20)])["depth"]
    [(_, _, gains), (caption, heads, errors)] = section["tables"]

    assert gains == [("k", ["0.5", "0.25"])]
    assert heads == ["layers", 1, 2]
    assert caption == "Relative error of the input’s gradient in float16 against the float64 run"
    assert errors == [("k", ["0.001", "not finite"])]
    assert section["notes"] == [
        "The float64 run agrees with the exact gradient of a small stack within 2.0e-16.",
        "The forward pass itself is not finite: k in float16 from layer 20 on.",
    ]


@pytest.mark.usefixtures("without_charts")
def test_shares_stand_for_the_two_largest_scales_of_each_format():
    [section] = depth_context(
        [made("attention_softmax"), made("attention_softmax", dtype="float32", kernel="other")]
    )["depth"]
    caption, heads, rows = section["tables"][0]

    assert caption == "Share of gradients that are 0"
    assert heads == ["logits times", "4, float32", "16, float32", "4, float16", "16, float16"]
    assert rows == [("k", ["", "", "25.0 %", "50.0 %"]), ("other", ["25.0 %", "50.0 %", "", ""])]


@pytest.mark.usefixtures("without_charts")
def test_the_exact_residuals_stand_below_the_collapse():
    [section] = depth_context([made("rank_collapse"), made("rank_collapse_exact", dtype="float64")])["depth"]

    assert section["notes"] == ["Exactly, for 8 tokens (k): 10 to the power of -0.5, -1.5."]


@pytest.mark.usefixtures("without_charts")
def test_what_does_not_fit_into_the_columns_is_counted():
    [section] = depth_context(
        [made("transformer_stack"), made("transformer_stack", kernel="deep", depths=[1, 8])]
    )["depth"]

    assert section["tables"][0][2] == [("k", ["0.5", "0.25"])]
    assert (
        section["notes"][-1] == f"Not shown: 1 measurements of other columns or of more than {MOST} modules."
    )


@pytest.mark.usefixtures("without_charts")
def test_many_modules_are_bounded():
    text = page(*(made("transformer_stack", kernel=f"module {n}") for n in range(3 * MOST)))

    assert text.count('<th scope="row">') == 2 * MOST
    assert f"Not shown: {2 * MOST} measurements" in text


def test_numbers_beyond_the_axes_leave_the_tables():
    huge = made("transformer_stack", layers=[1e308, 1e-308], query=[1e308, 1.0])

    assert "0.25" in page(huge)


def test_names_are_escaped_and_the_chapter_asks_for_nothing_outside():
    text = page(*(made(op, kernel="k<b>$x$") for op in DATA))

    assert "k&lt;b&gt;" in text
    assert "<b>" not in text
    assert "<svg" in text
    assert not re.search(r"<script|javascript:|<link|<img|@import|(?:src|href)=[\"'](?!#)", text)
