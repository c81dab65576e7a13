"""report/bench_terminal.py and advice_terminal.py: what bench prints; tests/test_bench.py has the
table of points.
"""

from dataclasses import replace

import pytest
from rich.console import Console

from suite.records.record import Measurement
from suite.report import bench_terminal
from suite.report.bench_terminal import print_bench
from tests.records import make_record

FORMATS = ("float32", "bfloat16", "float16")


def made(kernel, milliseconds=1.0, *, op="softmax", dtype="float32", shape=(16, 4096), options="", **changes):
    second = milliseconds / 1e3
    data = {
        "status": "passed",
        "ratio": 0.25,
        "direction": "forward",
        "shape": list(shape),
        "length": shape[2 if len(shape) == 4 else 1],
        "bytes": 10**6,
        "operations": 4 * 10**6,
        "samples_seconds": [second] * 6,
        "median_seconds": second,
        "low_seconds": second,
        "high_seconds": second,
        "peak_bytes": 10**6,
        "copy_bytes_per_second": 4e9,
        "matmul_operations_per_second": 8e10,
        "note": "",
    }
    case = f"{op}/normal/{'x'.join(map(str, shape))}{options}/s0"
    return Measurement(kind="throughput", kernel=kernel, op=op, dtype=dtype, case=case, data=data | changes)


def untimed(kernel, **changes):
    return made(
        kernel, status="raised", note="why\nand more", samples_seconds=[], median_seconds=None, **changes
    )


def verdicts(measurements, **numerics):
    """What bench records of points; numerics: by kernel."""
    return [
        make_record(
            suite_version="1", kernel=m.kernel, op=m.op, case=m.case, family="normal", shape=(1,),
            dtype=m.dtype, message="why", status=m.data["status"],
            numerics=numerics.get(m.kernel, "best practice"),
        )
        for m in measurements
    ]  # fmt: skip


@pytest.fixture
def printed(monkeypatch, capsys):
    """print_bench on a terminal of so many columns, as lines."""

    def lines(columns, measurements, **numerics):
        terminal = Console(highlight=False, force_terminal=True, color_system=None, width=columns)
        monkeypatch.setattr(bench_terminal, "console_of", lambda width: terminal)
        print_bench(measurements, records=verdicts(measurements, **numerics))
        found = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert max(map(len, found)) <= columns
        return found

    return lines


STANDARD = [
    made(f"kernel_{k:02}", 1.0 + k, op=op, dtype=dtype, shape=shape, options=options)
    for op, shapes, settings in (
        ("softmax", [(2**20 // n, n) for n in (256, 1024, 4096, 16384, 65536)], [""]),
        (
            "attention",
            [(1, 2, n, size) for size in (64, 128) for n in (256, 512, 1024, 2048, 4096)],
            ["", "/causal=top_left"],
        ),
    )
    for dtype in FORMATS
    for options in settings
    for shape in shapes
    for k in range(24)
]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_large_bench_is_answered_on_one_screen(printed, columns):
    lines = printed(columns, STANDARD)

    assert len(lines) <= 40
    assert lines[0] == "1,800 points: report.html has them, and how time grows with length"
    rows = [line.split() for line in lines if "kernel_00" in line]
    assert rows[0] == ["float32", "16x65536", "kernel_00", "1", "ms", "0.25"]
    assert len(rows) == 3 + 3 * 2 * 2, "one for each setting, at its longest input"


def test_few_inputs_have_an_answer_each(printed):
    lines = printed(80, [made("k", shape=(2**20 // n, n)) for n in (256, 1024)])

    assert [line.split()[1:3] for line in lines if line.endswith("ms         0.25") or "0.25" in line][
        -2:
    ] == [
        ["4096x256", "k"],
        ["1024x1024", "k"],
    ]


def test_the_answer_names_no_unsafe_kernel_and_says_why(printed):
    points = [made("naive"), made("online", 2.0), made("fused", 4.0)]

    lines = printed(80, points, naive="shift=none, domain", online="shift=lse")

    [row] = [line.split() for line in lines if "(shift=lse)" in line]
    assert row == ["float32", "16x4096", "online", "(shift=lse)", "2", "ms", "2", "0.25"]
    assert "not safe: naive in float32 (declares shift=none, a domain)" in lines


def test_it_says_that_only_easy_inputs_were_judged(printed, capsys):
    k = made("k")

    assert any("softmax-suite run judges hard inputs" in line for line in printed(200, [k]))
    print_bench([k], records=[*verdicts([k]), replace(verdicts([k])[0], family="huge")])
    assert "hard inputs" not in capsys.readouterr().out


def test_where_none_is_safe_or_passes_it_says_so(printed):
    lines = printed(80, [made("naive"), untimed("broken", dtype="float16")], naive="shift=none")

    assert [line.split()[2:] for line in lines if "16x4096  none" in line] == [
        ["none", "is", "safe"],
        ["none", "passes"],
    ]


def test_what_has_no_times_is_said_in_a_line_for_each_kernel_and_status(printed):
    points = [untimed(f"k{k:02}", dtype=dtype) for k in range(20) for dtype in FORMATS]

    lines = printed(80, [*points, made("good")])

    assert "softmax k00 float32, bfloat16, float16, 3 inputs: raised: why" in lines
    assert "and 12 more lines like these" in lines
    assert not any("and more" in line for line in lines if "like these" not in line)


@pytest.mark.parametrize(("columns", "shown"), [(80, False), (140, True)])
def test_a_narrow_table_has_fewer_columns_and_says_remarks_below(printed, columns, shown):
    lines = printed(columns, [made("k"), untimed("broken")])

    assert ("of matmul" in lines[0]) is ("remark" in lines[0]) is shown
    assert ("softmax broken float32, 16x4096: raised: why" in lines) is not shown


def test_control_characters_are_shown_and_markup_is_text(printed):
    lines = printed(140, [made("[red]\x1b[31mk")])

    assert any(r"[red]\x1b[31mk" in line for line in lines)


def test_without_records_there_is_no_answer(capsys):
    print_bench([made("k")])

    assert "which kernel" not in capsys.readouterr().out
