"""report/vanishing.py: the chapter of made-up and of measured vanishing gradients."""

import copy
import math
import re

import pytest
import torch

from suite.formats import DTYPES, get_format
from suite.kernels import Kernel
from suite.ops import measured_by
from suite.records.record import Measurement
from suite.report.chapters import Found, chapters, vanishing
from suite.report.chapters.vanishing import is_sound
from suite.report.words import share
from suite.studies import vanishing as measuring
from suite.studies.vanishing.mitigations import MITIGATIONS


@pytest.fixture(autouse=True)
def no_charts(request, monkeypatch):
    """A chart takes a third of a second; only the tests that look at one, by the fixture `charts`,
    draw it.
    """
    if "charts" not in request.fixturenames:
        monkeypatch.setattr(vanishing, "chart", lambda op, dtype, group: None)
        monkeypatch.setattr(vanishing, "entropy_chart", lambda data: None)


@pytest.fixture
def charts():
    """Charts are drawn."""


def curve(places, *, share=0.0, **fixed):
    columns = {name: [share] * len(places) for name in vanishing.COLUMNS}
    return {"at": places, "theory": {"underflow": 6.0, "rounded": 25.0}, **columns, **fixed}


def made(kernel, *, op="softmax", dtype="float16", gap=8.32, share=0.0, note="", device="cpu"):
    def entries(value, name):
        return [
            {"n": n, "measured": value, "spacing": 0.01, "formulas": {}, "agrees_with": [name]}
            for n in (2, 4096)
        ]

    counts = dict.fromkeys((*vanishing.COUNTS, *measuring.FLOORS), share)
    data = {
        "note": note,
        "scale": curve([0.25, 1.0, 4.0, 16.0, 64.0], share=share, n=256),
        "length": curve([2.0, 32.0, 512.0], share=share, scale=4.0),
        "gap": curve([0.5, 2.0, 8.0, 20.0], share=share, n=2),
        "saturation": [] if op == "logsumexp" else entries(gap, f"rounded {dtype}"),
        "lost": entries(17.34, f"zero {dtype}"),
        "mitigations": [{"name": name, **counts} for name in MITIGATIONS],
    }
    return Measurement(kind="vanishing", kernel=kernel, op=op, dtype=dtype, device=device, data=data)


def page(*measurements):
    return chapters()["vanishing"].render(Found(measurements=measurements))


def vanishing_context(measurements):
    return vanishing.context(Found(measurements=measurements))


def test_no_measurement_makes_no_chapter():
    other = Measurement(kind="thresholds", kernel="k", op="softmax", dtype="float32", data={})

    assert page().strip() == ""
    assert page(other).strip() == ""


def test_the_page_names_the_columns_that_are_measured():
    assert vanishing.COUNTS == measuring.COUNTS
    assert vanishing.COLUMNS == measuring.COLUMNS


def test_thresholds_stand_beside_theory():
    [section] = vanishing_context([made("k")])["vanishing"]
    [found] = section["formats"]
    [(kernels, cells)] = found["rows"]

    assert kernels == "k"
    assert cells[0] == ("8.32", "rounded float16")
    assert cells[2] == ("17.34", "zero float16")
    assert found["theory"][0] == ("7.6246 to 8.3175", "p ln 2 to rounded once")
    assert found["theory"][2] == ("17.329", "(p − e_min) ln 2")


def test_the_glance_says_who_is_gone_first_and_last():
    [(dtype, sentences)] = vanishing_context(
        [made("early", gap=7.63), made("late", gap=17.3), made("also", gap=7.63)]
    )["glance"]

    assert dtype == "float16"
    assert "exactly 0 from a gap of 7.63 on in softmax also, softmax early (theory: 7.625" in sentences[0]
    assert "last in softmax late, from 17.3 on." in sentences[0]
    assert (
        sentences[1]
        == "Up to logit scale 64, no kernel has half of its entries at 0 (theory: half of them at 6)."
    )
    assert sentences[2] == "No row is dead up to logit scale 64."


def test_the_glance_names_the_scale_from_which_half_is_gone():
    lossy = made("lossy")
    lossy.data["scale"]["zero"] = [0.0, 0.1, 0.6, 0.9, 1.0]
    lossy.data["scale"]["dead"] = [0.0, 0.0, 0.0, 0.02, 0.3]

    [(_, sentences)] = vanishing_context([made("good"), lossy])["glance"]

    assert sentences[1].startswith(
        "Half of all entries are 0 from logit scale 4 on (theory: half of them at 6), n = 256"
    )
    assert sentences[2] == "Rows are dead from logit scale 16 on, first in softmax lossy."


def test_the_framework_s_own_kernels_are_named_first():
    names = [*(f"a{i}" for i in range(6)), "fused"]

    [(_, sentences)] = vanishing_context([made(name) for name in names])["glance"]

    assert "on in softmax fused, softmax a0, softmax a1, softmax a2 and 3 more (theory" in sentences[0]


def test_a_gradient_that_never_saturates_says_so():
    [section] = vanishing_context([made("k", op="logsumexp")])["vanishing"]

    assert section["formats"][0]["rows"][0][1][0] == ("never", "the gradient is p itself")
    assert section["formats"][0]["theory"][0] == ("never", "")


def test_kernels_with_the_same_values_share_a_row_and_a_line(charts):
    [section] = vanishing_context([made("b"), made("a"), made("other", gap=7.0, share=0.5)])["vanishing"]
    [found] = section["formats"]

    assert [kernels for kernels, _ in found["rows"]] == ["a, b", "other"]
    assert ">a, b<" in str(found["chart"])


def test_twenty_different_kernels_stay_readable(charts):
    many = [made(f"kernel_{i}", share=0.04 * i) for i in range(20)]

    [section] = vanishing_context(many)["vanishing"]

    assert "14 more groups" in str(section["formats"][0]["chart"])
    assert len(str(section["formats"][0]["chart"])) < 120_000
    assert len(section["formats"][0]["rows"]) == 20


def test_a_closed_threshold_is_drawn_where_the_axis_reaches_it(charts):
    """The places of theory are vertical lines; one that lies beyond the axis is not drawn."""
    inside, beyond = made("k", share=0.3), made("k", share=0.3)
    for axis in vanishing.AXES:
        beyond.data[axis]["theory"] = {"underflow": 1e6, "rounded": 1e6}

    with_lines, without = (
        str(vanishing_context([m])["vanishing"][0]["formats"][0]["chart"]).count("stroke-dasharray")
        for m in (inside, beyond)
    )

    assert with_lines >= without + 10  # five panels that show theory, two axes and more that reach it


def test_reasons_and_notes_are_shown_and_escaped():
    broken = Measurement(
        kind="vanishing", kernel="k<b>", op="softmax", dtype="float32", data={"reason": "raised <i>"}
    )
    partly = made("partly", note="declared slow")
    partly.data["saturation"][0] = {"n": 2, "reason": "odd lengths only"}

    text = page(broken, partly)

    assert "Not measured: k&lt;b&gt; (raised &lt;i&gt;)." in text
    assert "not measured <span" in text
    assert "Measured at fewer points: partly (declared slow)." in text


def test_an_op_without_any_gradient_has_its_reason_alone():
    broken = Measurement(
        kind="vanishing", kernel="k", op="attention", dtype="float32", data={"reason": "no backward"}
    )

    text = page(broken)

    assert "Not measured: k (no backward)." in text
    assert "<svg" not in text


def test_another_device_is_named():
    [section] = vanishing_context([made("k", device="cuda")])["vanishing"]

    assert section["formats"][0]["rows"][0][0] == "k (cuda)"


def test_what_is_not_a_number_is_a_dash():
    nothing = made("k")
    for one in nothing.data["mitigations"]:
        one["defect"], one["gain"] = None, None
    nothing.data["scale"]["defect"] = [None] * 5

    assert '<td class="n">–</td>' in page(nothing)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0005, "< 0.1 %"), (0.114, "11.4 %"), (0.9999, "> 99.9 %"), (1.0, "100 %"), (None, "–")],
)
def test_shares_are_never_rounded_to_none_or_to_all(value, text):
    assert share(value) == text


def test_the_chapter_has_no_scripts_and_no_outside_requests(charts):
    text = page(made("k", share=0.3), made("k", dtype="bfloat16"))

    assert text.count("<svg") == 3  # a chart of each format, and the entropy
    assert not re.search(r"<script|javascript:|<link|<img|@import|(?:src|href)=[\"'](?!#)", text)


# What strangers send.


def without(m, *path):
    data = copy.deepcopy(m.data)
    inner = data
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return Measurement(kind="vanishing", kernel=m.kernel, op=m.op, dtype=m.dtype, data=data)


def changed(m, value, *path):
    data = copy.deepcopy(m.data)
    inner = data
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return Measurement(kind="vanishing", kernel=m.kernel, op=m.op, dtype=m.dtype, data=data)


@pytest.mark.parametrize(
    "measurement",
    [
        without(made("k"), "scale"),
        without(made("k"), "gap", "zero"),
        without(made("k"), "mitigations", 0, "gain"),
        changed(made("k"), [1.0], "scale", "zero"),
        changed(made("k"), [0.25, 1.0, 1.0, 16.0, 64.0], "scale", "at"),
        changed(made("k"), [], "length", "at"),
        changed(made("k"), "1", "scale", "n"),
        changed(made("k"), 1e300, "gap", "theory", "underflow"),
        changed(made("k"), ["0", 0, 0, 0, 0], "scale", "dead"),
        changed(made("k"), [{"n": 2}], "lost"),
        Measurement(kind="vanishing", kernel="k", op="merge_states", dtype="float16", data={"reason": "no"}),
        Measurement(kind="vanishing", kernel="k", op="softmax", dtype="float8_e5m2", data={"reason": "no"}),
        Measurement(kind="vanishing", kernel="k", op="softmax", dtype="float16", data={}),
    ],
)
def test_other_shapes_are_not_sound(measurement):
    assert not is_sound(measurement)


@pytest.mark.parametrize("value", [1e300, -1e300, 5e-324])
def test_sound_numbers_of_any_size_are_shown(charts, value):
    """No axis may overflow: what cannot be drawn leaves no chart, and the table stays."""
    strange = made("k")
    for name in vanishing.COLUMNS:
        strange.data["scale"][name] = [value] * 5

    assert is_sound(strange)
    assert "k</th>" in page(strange)


@pytest.mark.parametrize("op", measured_by("vanishing"))
def test_what_is_measured_is_sound_and_shown(monkeypatch, op):
    monkeypatch.setattr(measuring, "LENGTHS", (2, 32))
    monkeypatch.setattr(measuring, "THRESHOLD_LENGTHS", (2, 33))
    call = {
        "softmax": torch.softmax,
        "log_softmax": torch.log_softmax,
        "logsumexp": torch.logsumexp,
        "cross_entropy": torch.nn.functional.cross_entropy,
        "attention": torch.nn.functional.scaled_dot_product_attention,
    }[op]
    declared = {
        "parameters": frozenset(
            {"reduction", "scale", "dim"} & {"reduction": {"reduction"}, "scale": {"scale"}}.keys()
        )
    }
    kernel = Kernel(
        id="torch", op=op, call=call, **(declared if op in ("cross_entropy", "attention") else {})
    )
    measured = measuring.measure(kernel, "bfloat16")

    assert "reason" not in measured.data
    assert is_sound(measured)
    text = page(measured)
    assert "92.882" in text


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_theory_line_is_the_format_s_own(dtype):
    [section] = vanishing_context([made("k", dtype=dtype)])["vanishing"]
    low, _, high = section["formats"][0]["theory"][0][0].partition(" to ")

    assert math.isclose(float(low), get_format(dtype).saturation_in_format, rel_tol=1e-4)
    assert math.isclose(float(high), get_format(dtype).saturation_rounded(2), rel_tol=1e-4)
