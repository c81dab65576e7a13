"""The page's section on kernel profiles, and figures as inline SVG."""

import functools
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from click.testing import CliRunner

from suite.commands.main import cli
from suite.kernels import Kernel
from suite.records.record import Measurement
from suite.report.chapters import Found, chapters
from suite.report.chapters.exponential import COLUMNS, HEADINGS, context
from suite.report.figures import inline_svg
from suite.studies.exponential import NAMES, measure


def raising(x, dim=-1):
    raise RuntimeError("<no> device")


@functools.cache
def profile(call, dtype):
    """A profile as a reader of a run folder gets it."""
    made = measure(Kernel(id=f"<{call.__name__}>", op="softmax", call=call), dtype)
    return Measurement.from_dict(json.loads(made.to_json()))


def render(measurements):
    return chapters()["exponential"].render(Found(measurements=measurements))


def profile_context(measurements):
    return context(Found(measurements=measurements))["profiles"]


def figure():
    from matplotlib.figure import Figure

    made = Figure(figsize=(2, 1), layout="constrained")
    axes = made.subplots()
    axes.plot([0, 1, 2], [3, 1, 2], label="curve")
    axes.axhline(2, color="black")
    axes.legend()
    return made


def test_a_figure_is_an_element_that_is_the_same_every_time_and_takes_the_colours_of_the_page():
    svg = inline_svg(figure(), title="a < b")

    assert svg == inline_svg(figure(), title="a < b")
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.find("title").text == "a < b"
    assert "currentColor" in svg
    for forbidden in ("http", "<?xml", "<style", "#000000", "#ffffff", "<!--", "date"):
        assert forbidden not in svg


def test_figures_of_different_titles_share_no_id_and_every_reference_is_kept():
    first, second = (inline_svg(figure(), title=title) for title in ("one", "two"))

    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first)) <= {(i, "") for i in ids[0]} | {
        ("", i) for i in ids[0]
    }


def test_figures_need_no_pyplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # to import it raises ImportError

    assert inline_svg(figure(), title="alone").startswith("<svg")


def test_every_finding_has_a_heading_and_a_column():
    assert tuple(HEADINGS) == NAMES
    assert [name for names, _ in COLUMNS for name in names] == list(NAMES)


def test_a_row_tells_findings_in_words_with_their_evidence_and_a_small_curve():
    [row] = profile_context([profile(torch.softmax, "float32")])

    lines = [line for lines, _ in row["cells"] for line in lines]
    assert "base e" in lines
    assert "does not grow" in lines
    assert "same bits" in lines
    assert "103.972, keeps subnormals" in lines
    assert "16.6355, sum in float32" in lines
    assert all(evidence for _, evidence in row["cells"])
    assert 1000 < len(row["curve"]) < 15_000


def test_16_bits_show_a_half_ulp_kernel_as_such_and_no_curve():
    [row] = profile_context([profile(torch.softmax, "bfloat16")])

    assert row["cells"][0][0] == ["0.5-ulp kernel: every result rounded once"]
    assert row["curve"] is None


def test_the_section_escapes_names_and_says_why_nothing_was_measured():
    page = render([profile(torch.softmax, "float32"), profile(raising, "float32")])

    assert "&lt;softmax&gt;" in page
    assert "not measured: raised: RuntimeError: &lt;no&gt; device" in page
    assert "<script" not in page
    assert page.count("<svg") == 1
    assert page.count("<tr>") == page.count("</tr>") == 3


def test_rows_stand_in_the_order_of_kernels_and_formats_and_other_measurements_are_left_out():
    other = Measurement(kind="thresholds", kernel="a", op="softmax", dtype="float32", data={})
    rows = profile_context([profile(torch.softmax, "bfloat16"), other, profile(torch.softmax, "float32")])

    assert [row["format"] for row in rows] == ["float32", "bfloat16"]


def test_without_profiles_there_is_no_section():
    assert render([]).strip() == ""


def test_doctor_prints_the_profile_of_a_kernel():
    result = CliRunner().invoke(cli, ["doctor", "--kernel", "fused", "--dtype", "float32"])

    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "softmax fused float32 on cpu"
    assert len(lines) == 1 + len(NAMES)
    assert "its base            base e: the mean signed error moves by" in result.output


def test_doctor_takes_a_kernel_of_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("def f(x, dim=-1):\n    raise RuntimeError('broken')\n")

    result = CliRunner().invoke(cli, ["doctor", "--kernel", f"{tmp_path}/mine.py:f", "--dtype", "float16"])

    assert result.exit_code == 0
    assert "not measured: raised: RuntimeError: broken" in result.output


@pytest.mark.parametrize("kernel", ["nonsense", "nowhere.py:f"])
def test_doctor_refuses_a_kernel_that_is_not_there(kernel):
    result = CliRunner().invoke(cli, ["doctor", "--kernel", kernel])

    assert result.exit_code == 2
    assert kernel.partition(":")[0] in result.output
