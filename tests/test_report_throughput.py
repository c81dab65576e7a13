"""report/chapters/throughput.py: the chapter of made-up and of measured throughput."""

import json
import math
import re
from dataclasses import replace

import pytest

from suite.bench import points as bench
from suite.bench.plan import PLANS, Point, cases
from suite.kernels import own_kernels
from suite.records.record import Measurement
from suite.records.store import Run
from suite.report.chapters import Found, chapters, sound, throughput
from suite.report.chapters.throughput import is_sound
from suite.report.html import render
from suite.report.throughput_sections import pareto_front
from suite.session import Request, Session
from tests.records import make_record


@pytest.fixture(autouse=True)
def no_charts(request, monkeypatch):
    """Three charts take a third of a second; only the tests that look at them, by the fixture
    `charts`, draw them.
    """
    if "charts" not in request.fixturenames:
        monkeypatch.setattr(throughput, "charts", lambda *given, **named: [])


@pytest.fixture
def charts():
    """Charts are drawn."""


def made(
    kernel,
    *,
    op="softmax",
    dtype="float32",
    shape=(16, 4096),
    milliseconds=1.0,
    options="",
    device="cpu",
    **changes,
):
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
        kind="throughput",
        kernel=kernel,
        op=op,
        dtype=dtype,
        device=device,
        case=case,
        env_id=env_id,
        data=data | changes,
    )


UNTIMED = {"samples_seconds": [], "median_seconds": None, "low_seconds": None, "high_seconds": None}


def wrong(kernel, *, status="inaccurate", note="3 of 4096 entries are wrong", **changes):
    return made(kernel, status=status, ratio=37.0, note=note, **UNTIMED, **changes)


def verdicts(*measurements, **changes):
    """The records that bench leaves beside measurements. changes: of each."""
    about = {"suite_version": "1", "family": "normal", "message": "why", "env_id": "e1"}
    return [
        make_record(
            **about | {"kernel": m.kernel, "op": m.op, "case": m.case, "dtype": m.dtype, "device": m.device}
            | {"shape": tuple(m.data["shape"]), "direction": m.data["direction"],
                "status": m.data["status"]} | changes
        )
        for m in measurements
        if m.kind == "throughput"
    ]  # fmt: skip


def sections(*measurements):
    return throughput_context(measurements, verdicts(*measurements))["sections"]


def advised(*measurements, others=()):
    """The tables of which kernel to use. others: records besides those of the points."""
    return throughput_context(measurements, [*verdicts(*measurements), *others])["advised"]


def page(*measurements, others=()):
    found = Found(measurements=measurements, judged=[*verdicts(*measurements), *others])
    return chapters()["throughput"].render(found)


def throughput_context(measurements, records):
    return throughput.context(Found(measurements=measurements, judged=records))


def test_no_measurement_makes_no_chapter():
    other = Measurement(kind="thresholds", kernel="k", op="softmax", dtype="float32", data={})

    assert page().strip() == ""
    assert page(other).strip() == ""


# Which kernel.


def test_the_fastest_is_named_with_its_error():
    measured = (
        made("slow", milliseconds=3.0),
        made("quick", milliseconds=1.0, ratio=0.125),
        made("middle", milliseconds=2.0),
    )

    [table], [section] = advised(*measured), sections(*measured)

    assert inputs(table) == ["16x4096"]
    [[label, cell]] = table["table"].rows
    assert label == "float32"
    assert (cell.text, cell.small) == ("quick", ["1 ms", "0.12 × bound"])
    assert list(cells(section)) == ["quick", "middle", "slow"]


def test_a_wrong_kernel_is_never_named_and_shows_no_time():
    """Not even where its measurement holds times, which is_sound() refuses first."""
    liar = made("liar", milliseconds=0.001, status="inaccurate", ratio=37.0, note="wrong in row 3")

    [section] = sections(made("honest"), liar, wrong("other"))
    text = page(made("honest"), liar)

    assert section["use"] == "honest"
    assert section["front"] == "honest"
    assert [(c.text, c.chip, c.small) for c in cells(section)["liar"]] == [
        ("inaccurate", "failed", ["wrong in row 3"])
    ]
    assert "1 ms" in text
    assert "1 µs" not in text


def cells(section):
    return {row[0].text: row[1:] for row in section["table"].rows}


def inputs(shown):
    """The columns of inputs."""
    return [column.heading for column in shown["table"].columns[1:]]


def test_each_input_has_its_answer():
    fast_when_short = [made("a", shape=(256, 256), milliseconds=0.1), made("a", milliseconds=9.0)]
    fast_when_long = [made("b", shape=(256, 256), milliseconds=0.2), made("b", milliseconds=5.0)]

    [table], [section] = (show(*fast_when_short, *fast_when_long) for show in (advised, sections))

    assert inputs(table) == inputs(section) == ["256x256", "16x4096"]
    assert [cell.text for cell in table["table"].rows[0][1:]] == ["a", "b"]
    assert section["use"] == "b"
    assert {kernel: [cell.bold for cell in row] for kernel, row in cells(section).items()} == {
        "a": [True, False],
        "b": [False, True],
    }


def test_kernels_whose_intervals_overlap_are_named_beside_the_fastest():
    [table] = advised(made("a"), made("b", milliseconds=1.1), made("c", milliseconds=2.0))

    assert table["table"].rows[0][1].small[-1] == "as fast: b"


def test_a_faster_kernel_that_is_declared_unsafe_is_a_baseline():
    naive, online = made("naive", ratio=0.01), made("online", milliseconds=2.0)
    records = [*verdicts(naive, numerics="probabilities=input, shift=none, domain"), *verdicts(online)]

    shown = throughput_context([naive, online], records)

    [table], [section] = shown["advised"], shown["sections"]
    [[_, cell]] = table["table"].rows
    assert (cell.text, cell.small[-1]) == ("online", "not safe: naive 2 ×")
    assert table["against"] == [("naive", "declares probabilities=input, shift=none, a domain", "float32")]
    assert section["front"] == "online"
    assert section["table"].rows[0][0].small == [
        "not safe: declares probabilities=input, shift=none, a domain"
    ]
    assert cells(section)["naive"][0].bold is False


def test_a_kernel_that_fails_on_other_inputs_is_not_named():
    elsewhere = verdicts(made("quick"), status="nonfinite", family="huge")

    [table] = advised(made("quick"), made("slow", milliseconds=2.0), others=elsewhere)

    [[_, cell]] = table["table"].rows
    assert (cell.text, cell.small[-1]) == ("slow", "not safe: quick 2 ×")
    assert table["against"] == [("quick", "passes 1 of 2", "float32")]


def test_where_none_is_safe_the_page_says_so_and_names_the_fastest():
    naive = made("naive")
    text = page(naive, others=verdicts(naive, status="known_failure", family="huge"))

    assert "none is safe" in text
    assert "not safe: naive" in text
    assert "passes 1 of 2" in text
    assert "none is safe" in page(wrong("k"))


def test_the_answer_says_how_much_faster_than_torch():
    ours, torch = made("online"), made("fused", milliseconds=4.0)

    [[_, cell]] = advised(ours, torch)[0]["table"].rows
    [[_, own]] = advised(torch)[0]["table"].rows
    [[_, alone]] = advised(ours)[0]["table"].rows

    assert re.fullmatch(r"4 × fused \(3\.[5-9]\d* … 4\.[0-5]\d*\)", cell.small[1])
    assert own.small[1] == "torch’s own"
    assert alone.small == ["1 ms", "0.25 × bound"]


def test_the_page_says_where_only_easy_inputs_were_judged():
    k = made("k")
    hard = verdicts(k, family="huge")

    assert "Only the inputs that were timed were judged" in page(k)
    assert "Only the inputs that were timed were judged" not in page(k, others=hard)
    assert "passed at least 2 evaluations; 2 families" in page(k, others=hard)


def test_a_kernel_that_passes_without_times_says_why():
    untimed = made("jax", note="not timed: arrays cannot be written to", **UNTIMED)

    [section] = sections(made("k"), untimed)

    assert section["use"] == "k"
    assert [(c.text, c.chip) for c in cells(section)["jax"]] == [
        ("not timed: arrays cannot be written to", "")
    ]


def test_what_has_no_times_is_listed_with_its_note_those_of_one_reason_together():
    note = "wrong in row 3\n  got \\x1b[31m<b>"
    measured = [
        made("k"),
        wrong("bad", note=note),
        wrong("bad", note=note, dtype="bfloat16"),
        made("jax", note="later", **UNTIMED),
    ]

    shown = throughput_context(measured, verdicts(*measured))["untimed"]

    assert [(*row[:3], row[3].text, row[4]) for row in shown.rows] == [
        ("softmax bad", "float32, bfloat16", "16x4096", "inaccurate", note),
        ("softmax jax", "float32", "16x4096", "not timed", "later"),
    ]
    assert r"got \x1b[31m&lt;b&gt;</td>" in page(*measured)
    assert "<b>Without times</b>: softmax bad (inaccurate), softmax jax (not timed)</summary>" in page(
        *measured
    )
    assert "Without times" not in page(made("k"))


@pytest.mark.parametrize(
    ("compile_seconds", "milliseconds", "listed"),
    [
        (0.2, 1.0, True),
        (0.2, 500.0, True),
        (0.05, 1.0, True),
        (0.05, 10.0, False),
        (0.0005, 0.01, False),
        (None, 1.0, False),
    ],
)
def test_slow_first_calls_are_listed(compile_seconds, milliseconds, listed):
    measured = [
        made("k", compile_seconds=compile_seconds, milliseconds=milliseconds),
        made("other", compile_seconds=0.0),
    ]

    shown = throughput_context(measured, verdicts(*measured))["starts"]

    assert [row[0] for row in shown.rows] == ["softmax k"] * listed


def test_a_slow_first_call_is_shown_where_it_took_longest():
    measured = [
        made("k", shape=(1, n), compile_seconds=seconds)
        for n, seconds in ((256, 0.5), (512, 2.0), (1024, 0.0))
    ]

    [shown] = throughput_context(measured, verdicts(*measured))["starts"].rows

    assert shown[1:] == ["2 s", "2,000", "float32 1x512", "2 of 3"]


def test_the_time_of_a_row_has_an_exponent_in_length():
    # Fewer rows, each slower: quadratic.
    lengths = [made("k", shape=(4096 // n, n), milliseconds=n / 64) for n in (64, 256, 1024)]

    [section], [table] = sections(*lengths), advised(*lengths)

    exponent = section["table"].rows[0][-1]
    assert (exponent.text, exponent.small[-1]) == ("2.00", "last two 2.00")
    assert table["exponents"] == ("2.00", "2.00", 1)
    assert "1 is linear, 2 quadratic" in page(*lengths)
    assert "1 is linear, 2 quadratic" not in page(made("k"))


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

    [section], [table] = sections(*measured), advised(*measured)

    assert section["front"] == "quick, exact"
    assert "? × bound" in table["table"].rows[0][1].small


# Numbers and their place.


def test_a_cell_has_latency_interval_rates_and_memory():
    [section] = sections(made("k"))
    [[cell]] = cells(section).values()

    assert cell.text == "1 ms"
    assert cell.small == [
        "920 µs … 1.08 ms",
        "1 GB/s, 25 % of copy",
        "0.004 TFLOP/s, 5 % of matmul, 2 MB",
        "0.25 × bound",
    ]


def test_what_was_not_measured_is_left_empty():
    [section] = sections(
        made("k", peak_bytes=None, copy_bytes_per_second=None, matmul_operations_per_second=None)
    )
    [[cell]] = cells(section).values()

    assert cell.small[1:3] == ["1 GB/s", "0.004 TFLOP/s"]
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

    assert inputs(section) == ["1x2x256x64", "1x2x2048x64"]


def test_the_later_of_two_measurements_counts():
    [section] = sections(made("k", milliseconds=1.0), made("k", milliseconds=2.0))

    assert cells(section)["k"][0].text == "2 ms"


def test_texts_are_escaped():
    text = page(
        made("k<b>", note="<i>remark</i>"),
        wrong("bad", note="<script>alert(1)</script>", options="/scale=<u>"),
    )

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


def test_of_many_kernels_the_answer_torch_and_the_front_have_names(charts):
    many = [made(f"k{i:02}", milliseconds=2.0 + i / 10, ratio=0.5) for i in range(24)]

    [section] = sections(
        made("quick"), made("exact", milliseconds=9.0, ratio=0.01), made("fused", milliseconds=8.0), *many
    )

    for chart in map(str, section["charts"]):
        assert all(f">{name}<" in chart for name in ("quick", "fused", "exact", "21 more"))
        assert ">k20<" not in chart


def test_an_unsafe_kernel_is_drawn_open_and_said_to_be(charts):
    naive, online = made("naive", ratio=0.01), made("online", milliseconds=2.0)
    records = [*verdicts(naive, numerics="shift=none"), *verdicts(online)]

    [section] = throughput_context([naive, online], records)["sections"]

    assert all(">naive (not safe)<" in str(chart) and ">online<" in str(chart) for chart in section["charts"])
    open_marker = re.compile("<use [^>]*fill-opacity: 0;")
    assert open_marker.search(str(section["charts"][0]))
    assert not open_marker.search(str(sections(online)[0]["charts"][0]))


def test_charts_are_of_each_op_and_direction_first(monkeypatch):
    monkeypatch.setattr(throughput, "CHARTED", 3)
    measured = [
        made("k", op=op, dtype=dtype, direction=direction)
        for op in ("softmax", "log_softmax")
        for direction in ("forward", "backward")
        for dtype in ("float32", "bfloat16")
        if (op, direction) != ("log_softmax", "backward")
    ]

    shown = throughput_context(measured, verdicts(*measured))

    assert [section["title"] for section in shown["sections"] if section["charted"]] == [
        "softmax, float32, forward",
        "softmax, float32, backward",
        "log_softmax, float32, forward",
    ]
    assert "Charts are drawn of 3 of 6 sections" in page(*measured)


def test_the_tables_of_a_page_are_bounded():
    """A stranger's measurements, each of a length of its own, make a line of cells and no square."""
    strange = [made(f"k{n}", shape=(1, n), compile_seconds=0.5) for n in range(1, 201)]
    strange += [wrong(f"k{n}", shape=(1, n), note=f"reason {n}") for n in range(201, 351)]

    [section], [table], text = sections(*strange), advised(*strange), page(*strange)

    assert inputs(section)[-1] == "1x350"
    assert (len(inputs(section)), section["left_out"]) == (throughput.INPUTS, 350 - throughput.INPUTS)
    assert (len(inputs(table)), table["left_out"]) == (throughput.ANSWERED, 350 - throughput.ANSWERED)
    assert "And 50 more" in text
    assert "reason 301" not in text.partition("What was measured")[0]


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
    strange = [
        made("k", ratio=value),
        made("other", ratio=0.5, bytes=2**62, operations=1),
        made("$x_", ratio=value),
    ]

    assert all(map(is_sound, strange))
    assert "k</th>" in page(*strange)


def test_the_charts_of_a_page_are_bounded(monkeypatch):
    monkeypatch.setattr(throughput, "CHARTED", 1)

    first, second = sections(made("k"), made("k", dtype="bfloat16"))

    assert (first["charted"], second["charted"]) == (True, False)


def test_the_sections_of_a_page_are_bounded_and_what_is_left_out_is_said(monkeypatch):
    monkeypatch.setattr(throughput, "SECTIONS", 2)
    measured = [made("k", options=f"/scale={n}") for n in range(5)]

    assert [section["title"] for section in sections(*measured)] == [
        f"softmax, float32, forward, scale={n}" for n in (0, 1)
    ]
    assert "3 more sections are left out" in page(*measured)
    assert "left out" not in page(made("k"))


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
        {"compile_seconds": -0.1},
        {"compile_seconds": "soon"},
        {"copy_bytes_per_second": 0},
        {"matmul_operations_per_second": "fast"},
        {"note": None},
    ],
    ids=str,
)
def test_bad_data_is_refused(changes):
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


@pytest.mark.parametrize(
    "good", [made("k"), wrong("k"), wrong("k", status="crashed"), made("k", note="later", **UNTIMED)]
)
def test_what_bench_writes_of_right_and_wrong_kernels_is_sound(good):
    assert is_sound(good)
    assert sound([good]) == ([good], [])


def test_a_measured_kernel_is_sound_after_json_and_shown(monkeypatch):
    case = cases("softmax", PLANS["smoke"], shapes=[(8, 64)])[0]
    point = Point(own_kernels("softmax")["fused"], case, "float32")
    # Of a machine that is not measured here.
    monkeypatch.setattr(bench.Bench, "_best", lambda self, dtype: (1e10, 1e11))

    with Session(Request(ops=(), isolate="never")) as session:
        _, measured = bench.Bench(session, budget_seconds=0.0).measure(point)
    read = Measurement.from_dict(json.loads(measured.to_json()))

    assert is_sound(read)
    [section] = sections(read)
    assert section["use"] == "fused"
    # Two digits.
    assert math.isclose(
        read.data["ratio"], float(cells(section)["fused"][0].small[-1].split()[0]), rel_tol=0.05
    )


def test_a_bench_alone_begins_with_speed_and_says_nothing_of_what_is_safe(tmp_path):
    """naive is no safe attention because it is right on normal inputs; a hard one makes the page
    that of a run.
    """
    fast = made("naive", op="attention", shape=(1, 2, 16, 8))
    [easy] = verdicts(fast, numerics="shift=none")
    hard = replace(easy, family="overflow_ladder", case="attention/overflow_ladder/1x2x16x8/s0")

    alone, joined = (render([Run(tmp_path, {}, records, (), (fast,))]) for records in ((easy,), (easy, hard)))

    assert "which kernel is safe for what" not in alone
    assert "which kernel is safe for what" in joined
    assert alone.index("Speed beside accuracy") < alone.index("<h2>Kernels</h2>")
    assert joined.index("Speed beside accuracy") > joined.index("<h2>Kernels</h2>")
