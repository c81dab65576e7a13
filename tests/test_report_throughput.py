"""report/throughput.py: the chapter of made-up and of measured throughput."""

import json
import math
import re

import pytest
from jinja2 import Environment, PackageLoader, StrictUndefined

from suite import bench
from suite.execution.hosts import Hosts
from suite.kernels import own_kernels
from suite.oracle import Oracle
from suite.records import Measurement
from suite.report import throughput
from suite.report.chapters import sound
from suite.report.throughput import is_sound, pareto_front, throughput_context


@pytest.fixture(autouse=True)
def no_charts(request, monkeypatch):
    """Three charts take a third of a second; only the tests that look at them, by the fixture `charts`, draw them."""
    if "charts" not in request.fixturenames:
        monkeypatch.setattr(throughput, "_charts", lambda title, group, ranked, front: [])


@pytest.fixture
def charts():
    """Charts are drawn."""


def made(kernel, *, op="softmax", dtype="float32", shape=(16, 4096), milliseconds=1.0, options="", device="cpu", **changes):
    """A measurement of a kernel that passes; changes: of its data, `env_id` of itself."""
    second, env_id = milliseconds / 1e3, changes.pop("env_id", "e1")
    data = {
        "status": "passed",
        "ratio": 0.25,
        "max_ulp": 1.5,
        "digest": "0123456789abcdef",
        "direction": "forward",
        "shape": list(shape),
        "length": shape[2] if len(shape) == 4 else shape[-1],
        "bytes": 1_000_000,
        "operations": 4_000_000,
        "clock": "perf_counter",
        "cache": "warm",
        "threads": 1,
        "calls_per_sample": 2,
        "samples_seconds": [second * (0.9 + 0.02 * i) for i in range(11)],
        "median_seconds": second,
        "low_seconds": 0.92 * second,
        "high_seconds": 1.08 * second,
        "peak_bytes": 2_000_000,
        "compile_seconds": 0.01,
        "copy_bytes_per_second": 4e9,
        "matmul_operations_per_second": 8e10,
        "note": "",
    }
    case = f"{op}/normal/{'x'.join(map(str, shape))}{options}/s0"
    return Measurement(
        kind="throughput", kernel=kernel, op=op, dtype=dtype, device=device, case=case, env_id=env_id, data=data | changes
    )


UNTIMED = {"samples_seconds": [], "median_seconds": None, "low_seconds": None, "high_seconds": None}


def wrong(kernel, *, status="inaccurate", note="3 of 4096 entries are wrong", **changes):
    return made(kernel, status=status, ratio=37.0, note=note, **UNTIMED, **changes)


def sections(*measurements):
    return throughput_context(measurements)["throughput"]


def page(*measurements):
    environment = Environment(
        loader=PackageLoader("suite.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("throughput.html").render(**throughput_context(measurements))


def test_no_measurement_makes_no_chapter():
    other = Measurement(kind="thresholds", kernel="k", op="softmax", dtype="float32", data={})

    assert page().strip() == ""
    assert page(other).strip() == ""


# Which kernel.


def test_the_fastest_that_passes_is_named_with_its_error():
    [section] = sections(
        made("slow", milliseconds=3.0), made("quick", milliseconds=1.0, ratio=0.125), made("middle", milliseconds=2.0)
    )

    assert section["best"]["kernel"] == "quick"
    assert section["best"]["input"] == "16x4096"
    assert section["best"]["cell"]["error"] == "0.12 × bound"
    assert [kernel for kernel, _ in section["rows"]] == ["quick", "middle", "slow"]


def test_a_wrong_kernel_is_never_the_fastest_and_shows_no_time():
    """Not even where its measurement holds times, which is_sound() refuses first."""
    liar = made("liar", milliseconds=0.001, status="inaccurate", ratio=37.0, note="wrong in row 3")

    [section] = sections(made("honest"), liar, wrong("other"))
    text = page(made("honest"), liar)

    assert section["best"]["kernel"] == "honest"
    assert section["best"]["wrong"] == "liar (inaccurate), other (inaccurate)"
    assert section["front"] == ["honest"]
    assert dict(section["rows"])["liar"] == [{"kind": "inaccurate", "reason": "wrong in row 3"}]
    assert "1 ms" in text
    assert "1 µs" not in text


def test_only_the_longest_length_decides_the_glance():
    fast_when_short = [made("a", shape=(256, 256), milliseconds=0.1), made("a", milliseconds=9.0)]
    fast_when_long = [made("b", shape=(256, 256), milliseconds=0.2), made("b", milliseconds=5.0)]

    [section] = sections(*fast_when_short, *fast_when_long)

    assert section["inputs"] == ["256x256", "16x4096"]
    assert section["best"]["kernel"] == "b"
    assert {kernel: [cell["best"] for cell in cells] for kernel, cells in section["rows"]} == {
        "a": [True, False],
        "b": [False, True],
    }


def test_kernels_whose_intervals_overlap_are_named_beside_the_fastest():
    [section] = sections(made("a"), made("b", milliseconds=1.1), made("c", milliseconds=2.0))

    assert section["best"]["as_fast"] == "b"


def test_where_none_passes_the_page_says_so():
    [section] = sections(wrong("k"))

    assert section["best"]["kernel"] == ""
    assert section["front"] == []
    assert "none passes with a time" in page(wrong("k"))


def test_a_kernel_that_passes_without_times_says_why():
    untimed = made("jax", note="not timed: arrays cannot be written to", **UNTIMED)

    [section] = sections(made("k"), untimed)

    assert section["best"]["kernel"] == "k"
    assert section["best"]["wrong"] == ""
    assert dict(section["rows"])["jax"] == [{"kind": "not timed", "reason": "not timed: arrays cannot be written to"}]


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(0.5, 10.0)], [0]),
        ([(0.5, 10.0), (0.1, 1.0), (0.6, 9.0), (0.2, 5.0), (0.2, 4.0)], [0, 1, 3]),
        ([(0.5, 10.0), (0.5, 10.0)], [0, 1]),  # equals do not beat each other
        ([(0.5, 10.0), (0.5, 9.0), (0.6, 10.0)], [0]),  # as good in one, worse in the other
        ([(0.0, 1.0), (0.0, 2.0)], [1]),
    ],
)
def test_the_front_is_what_no_other_beats(points, front):
    assert pareto_front(points) == front


def test_the_front_is_named_fastest_first():
    measured = [
        made("exact", ratio=0.01, milliseconds=8.0),
        made("beaten", ratio=0.02, milliseconds=9.0),
        made("quick", ratio=0.5, milliseconds=1.0),
        made("unknown", ratio=None, milliseconds=0.5),
    ]

    [section] = sections(*measured)

    assert section["front"] == ["quick", "exact"]
    assert section["best"]["cell"]["error"] == "?"


# Numbers and their place.


def test_a_cell_has_latency_interval_rates_and_memory():
    [section] = sections(made("k"))
    [(_, [cell])] = section["rows"]

    assert cell["latency"] == "1 ms"
    assert cell["interval"] == "920 µs … 1.08 ms"
    assert (cell["bandwidth"], cell["of_copy"]) == ("1 GB/s", "25 % of copy")
    assert (cell["compute"], cell["of_matmul"]) == ("0.004 TFLOP/s", "5 % of matmul")
    assert cell["peak"] == "2 MB"


def test_what_was_not_measured_is_left_empty():
    [section] = sections(made("k", peak_bytes=None, copy_bytes_per_second=None, matmul_operations_per_second=None))
    [(_, [cell])] = section["rows"]

    assert cell["peak"] == cell["of_copy"] == cell["of_matmul"] == ""
    assert "this machine" not in section["how"]


def test_what_cannot_be_compared_stands_apart():
    different = [
        made("k"),
        made("k", dtype="bfloat16"),
        made("k", direction="backward"),
        made("k", device="cuda"),
        made("k", env_id="e2"),
        made("k", threads=2),
        made("k", cache="flushed"),
        made("k", op="attention", shape=(1, 2, 256, 64)),
        made("k", op="attention", shape=(1, 2, 256, 64), options="/causal=top_left"),
        made("k", op="attention", shape=(1, 2, 256, 128)),
        made("k", op="log_softmax"),
    ]

    titles = [section["title"] for section in sections(*different)]

    assert len(set(titles)) == len(different)
    assert "softmax, bfloat16, forward, environment e1" in titles
    assert "attention, float32, forward, 1x2xLENGTHx64, causal=top_left, environment e1" in titles


def test_lengths_of_one_setting_stand_side_by_side():
    [section] = sections(*(made("k", op="attention", shape=(1, 2, n, 64)) for n in (2048, 256)))

    assert section["inputs"] == ["1x2x256x64", "1x2x2048x64"]


def test_the_later_of_two_measurements_counts():
    [section] = sections(made("k", milliseconds=1.0), made("k", milliseconds=2.0))

    assert section["best"]["cell"]["latency"] == "2 ms"


def test_texts_are_escaped():
    text = page(made("k<b>", note="<i>remark</i>"), wrong("bad", note="<script>alert(1)</script>", options="/scale=<u>"))

    assert "k&lt;b&gt;" in text
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r"<(script|i|u)>|k<b>", text)


# Charts.


def test_a_section_has_three_charts_without_scripts_and_outside_requests(charts):
    measured = [
        made(f"k{i}", shape=shape, milliseconds=1.0 + i, ratio=1 / (1 + i))
        for i in range(9)
        for shape in ((64, 1024), (16, 4096))
    ]

    text = page(*measured)

    assert text.count("<svg") == 3
    assert "Pareto front" in text
    assert ">3 more<" in text  # of the legend: nine kernels, six colours
    assert not re.search(r"<script|javascript:|<link|<img|@import|(?:src|href)=[\"'](?!#)", text)


def test_the_front_alone_has_names_in_the_chart(charts):
    [section] = sections(made("quick"), made("exact", milliseconds=2.0, ratio=0.01), made("beaten", milliseconds=3.0))

    errors = str(section["charts"][0])

    assert ">quick<" in errors
    assert ">exact<" in errors
    assert ">beaten<" not in errors


def test_charts_are_drawn_without_roofs_memory_and_operations(charts):
    bare = dict.fromkeys(("peak_bytes", "copy_bytes_per_second", "matmul_operations_per_second"))

    [section] = sections(made("k", **bare))
    [nothing] = sections(made("k", **bare, operations=0, ratio=0.0))

    assert len(section["charts"]) == 3
    assert "0, or not measured" in str(section["charts"][1])
    assert len(nothing["charts"]) == 1  # no error to set apart, no operations to draw


def test_an_error_of_0_stands_at_the_edge(charts):
    [section] = sections(made("exact", ratio=0.0), made("other", ratio=0.5, milliseconds=0.5))

    assert "0 at the left edge" in str(section["charts"][0])


@pytest.mark.parametrize("value", [5e-324, 1e300])
def test_sound_numbers_of_any_size_are_shown(charts, value):
    """What cannot be drawn leaves no chart, and the table stays."""
    strange = [made("k", ratio=value), made("other", ratio=0.5, bytes=2**62, operations=1), made("$x_", ratio=value)]

    assert all(map(is_sound, strange))
    assert "k</th>" in page(*strange)


def test_the_charts_of_a_page_are_bounded(monkeypatch):
    monkeypatch.setattr(throughput, "CHARTED", 1)

    first, second = sections(made("k"), made("k", dtype="bfloat16"))

    assert (first["charted"], second["charted"]) == (True, False)


# What strangers send.


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "inaccurate"},  # with times
        {"status": "perfect"},
        {"ratio": "inf"},
        {"ratio": "nan"},
        {"ratio": -0.5},
        {"ratio": "0.5"},
        {"direction": "sideways"},
        {"length": 2048},
        {"shape": [4096]},
        {"shape": [2, 16, 4096]},
        {"shape": [16, 0]},
        {"bytes": 0},
        {"bytes": 1e300},
        {"operations": -1},
        {"clock": "sundial"},
        {"cache": "cold"},
        {"threads": 0},
        {"samples_seconds": []},
        {"samples_seconds": [0.001] * 201, "low_seconds": 0.001, "high_seconds": 0.001},
        {"samples_seconds": [0.0, 0.001, 0.002]},
        {"samples_seconds": "0.001"},
        {"median_seconds": None},
        {"median_seconds": 1e-6},
        {"low_seconds": 0.00105},
        {"high_seconds": 5.0},
        {"peak_bytes": -1},
        {"copy_bytes_per_second": 0},
        {"matmul_operations_per_second": "fast"},
        {"note": None},
    ],
    ids=str,
)
def test_planted_bad_data_is_refused(changes):
    bad = made("k", **changes)

    assert not is_sound(bad)
    assert sound([bad]) == ([], ["1 measurements of kind throughput are of no known shape."])


@pytest.mark.parametrize("name", throughput.SHAPE["required"])
def test_a_missing_field_is_refused(name):
    bad = made("k")
    del bad.data[name]

    assert not is_sound(bad)


@pytest.mark.parametrize("bad", [made("k", op="relu"), made("k", dtype="float8_e5m2")], ids=["op", "format"])
def test_an_unknown_op_or_format_is_refused(bad):
    assert not is_sound(bad)


@pytest.mark.parametrize("good", [made("k"), wrong("k"), wrong("k", status="crashed"), made("k", note="later", **UNTIMED)])
def test_what_bench_writes_of_right_and_wrong_kernels_is_sound(good):
    assert is_sound(good)
    assert sound([good]) == ([good], [])


def test_a_measured_kernel_is_sound_after_json_and_shown(monkeypatch):
    case = bench.cases("softmax", bench.PLANS["smoke"], shapes=[(8, 64)])[0]
    point = bench.Point(own_kernels("softmax")["fused"], case, "float32")
    monkeypatch.setattr(bench.Bench, "_best", lambda self, dtype: (1e10, 1e11))  # of a machine that is not measured here

    with Hosts(isolate="never") as hosts:
        _, measured = bench.Bench(device="cpu", hosts=hosts, oracle=Oracle(), budget_seconds=0.0).measure(point)
    read = Measurement.from_dict(json.loads(measured.to_json()))

    assert is_sound(read)
    [section] = sections(read)
    assert section["best"]["kernel"] == "fused"
    assert math.isclose(read.data["ratio"], float(section["best"]["cell"]["error"].split()[0]), rel_tol=0.05)  # two digits
