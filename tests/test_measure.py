"""Measurements: taken of every chapter, stored beside the records, read back, shown in the report,
and no verdicts.
"""

import importlib
import json
import math
import os
import re
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

import suite.studies
from suite.commands.main import cli
from suite.execution.host import Outcome
from suite.execution.in_process import InProcess
from suite.kernels import Kernel, own_kernels
from suite.ops import measured_by
from suite.records.record import SCHEMA, Measurement
from suite.records.store import Store, read_run
from suite.session import Request, Result, Session
from suite.studies import CHAPTERS, measure_kernel
from tests.test_store import RECORDS, write

CASE = "softmax/normal/16x33/s0"


def make(**changes):
    given = {
        "kind": "thresholds",
        "kernel": "shifted",
        "op": "softmax",
        "dtype": "float32",
        "data": {"reason": "not tried"},
    }
    return Measurement(**{**given, **changes})


# measure_kernel


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("op", measured_by("exponential"))
def test_every_chapter_measures_a_kernel_of_its_ops(op, dtype):
    kernel = replace(own_kernels(op)["shifted"], slow=True)
    found = list(measure_kernel(kernel, dtype))
    assert [m.kind for m in found] == list(CHAPTERS)
    assert {(m.kernel, m.op, m.dtype, m.device, m.schema) for m in found} == {
        ("shifted", op, dtype, "cpu", SCHEMA)
    }
    assert all("reason" not in m.data for m in found)
    assert all(json.loads(m.to_json())["data"] for m in found)


def test_an_op_that_the_chapters_do_not_know_is_not_measured():
    assert list(measure_kernel(own_kernels("merge_states")["merge"], "float32")) == []


def test_chapters_are_modules_with_a_measure_function():
    for chapter in CHAPTERS:
        assert callable(importlib.import_module(f"suite.studies.{chapter}").measure)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (Kernel(id="raises", op="softmax", call=lambda x, dim=-1: 1 / 0), "division by zero"),
        (
            Kernel(id="narrow", op="softmax", call=torch.softmax, dtypes=("float16",)),
            "declares dtypes float16",
        ),
    ],
)
def test_what_cannot_be_measured_has_a_reason_and_nothing_else(kernel, words):
    for found in measure_kernel(kernel, "float32"):
        assert list(found.data) == ["reason"]
        assert words in found.data["reason"]


def test_the_kernel_is_called_by_the_host_that_is_given():
    class Counting(InProcess):
        calls = 0

        def call(self, *arguments, **options) -> Outcome:
            Counting.calls += 1
            return super().call(*arguments, **options)

    list(measure_kernel(replace(own_kernels("softmax")["shifted"], slow=True), "bfloat16", host=Counting()))
    assert Counting.calls > 10


# The measurement as a line of JSON


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"reason": "it raised"},
        {"curve": [[0.0, 1.5], [math.inf, -math.inf]], "nested": {"a": None, "b": (1, True)}},
    ],
)
def test_a_measurement_is_read_back_from_its_json(data):
    """Infinities as text, tuples as lists: data is what JSON holds."""
    first = Measurement.from_dict(
        json.loads(make(data=data, env_id="e", suite_version="1", device="cuda").to_json())
    )
    assert (first.kind, first.kernel, first.op, first.dtype) == (
        "thresholds",
        "shifted",
        "softmax",
        "float32",
    )
    assert (first.device, first.env_id, first.suite_version) == ("cuda", "e", "1")
    assert Measurement.from_dict(json.loads(first.to_json())) == first
    if "curve" in data:
        assert first.data == {"curve": [[0.0, 1.5], ["inf", "-inf"]], "nested": {"a": None, "b": [1, True]}}


def test_json_has_no_number_that_json_has_not():
    assert json.loads(make(data={"a": math.nan}).to_json(), parse_constant=pytest.fail)["data"] == {
        "a": "nan"
    }


def test_unknown_fields_of_a_later_version_are_kept_out():
    data = {**json.loads(make().to_json()), "colour": "blue"}
    assert Measurement.from_dict(data) == make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "a measurement must be a JSON object, not a list"),
        (None, "a measurement must be a JSON object, not a NoneType"),
        ({"schema": None}, r"schema=None is not one that this version reads \(1 to \d\)"),
        ({"schema": SCHEMA + 1}, f"schema={SCHEMA + 1} is not one that this version reads"),
        ({"schema": 0}, "schema=0 is not one that this version reads"),
        ({"schema": "1"}, "schema='1' is not one that this version reads"),
        ({"kernel": 3}, "kernel=3 must be text"),
        ({"kind": None}, "kind=None must be text"),
        ({"device": ["cpu"]}, r"device=\['cpu'\] must be text"),
        ({"env_id": 1}, "env_id=1 must be text"),
        ({"data": None}, "data must be an object"),
        ({"data": [1]}, "data must be an object"),
    ],
)
def test_misuse_names_what_is_wrong(change, message):
    data = {**json.loads(make().to_json()), **change} if isinstance(change, dict) else change
    with pytest.raises(ValueError, match=message):
        Measurement.from_dict(data)


@pytest.mark.parametrize("name", ["kind", "kernel", "op", "dtype"])
def test_a_measurement_without_a_name_is_incomplete(name):
    data = json.loads(make().to_json())
    del data[name]
    with pytest.raises(ValueError, match=f"incomplete measurement: .*'{name}'"):
        Measurement.from_dict(data)


# The store


MEASUREMENTS = tuple(make(kernel=name, data={"n": n}) for n, name in enumerate("abc"))
LINES = [m.to_json() + "\n" for m in MEASUREMENTS]


def folder_with(folder, content):
    write(folder, RECORDS[0].to_json() + "\n")
    (folder / "env.json").write_text("{}")
    return write(folder, content, "measurements-x-1.jsonl")


def test_measurements_are_on_disk_when_append_returns_and_lie_beside_the_records(tmp_path):
    store = Store(tmp_path)
    store.write_environment({})
    store.append(RECORDS[0])
    for count, measurement in enumerate(MEASUREMENTS, start=1):
        store.append_measurement(measurement)
        assert read_run(tmp_path).measurements == MEASUREMENTS[:count]
    store.append(RECORDS[1])
    store.close()
    assert read_run(tmp_path).records == RECORDS[:2]
    kinds = sorted(path.name.partition("-")[0] for path in tmp_path.glob("*.jsonl"))
    assert kinds == ["measurements", "records"]
    assert all(path.stem.endswith(f"-{os.getpid()}") for path in tmp_path.glob("*.jsonl"))


def test_a_folder_of_records_alone_has_no_measurements_file(tmp_path):
    store = Store(tmp_path)
    store.append(RECORDS[0])
    store.close()
    assert read_run(tmp_path).measurements == ()
    assert not list(tmp_path.glob("measurements-*"))


def test_measurements_alone_are_no_run(tmp_path):
    write(tmp_path, LINES[0], "measurements-x-1.jsonl")
    with pytest.raises(ValueError, match="holds no records"):
        read_run(tmp_path)


def test_a_file_torn_at_any_byte_of_its_last_line_keeps_the_complete_one_and_notes_the_torn(tmp_path):
    content = "".join(LINES[:2])
    for cut in range(len(LINES[0]) - 1, len(content)):
        run = read_run(folder_with(tmp_path, content[:cut]))
        whole = sum(cut >= len("".join(LINES[:k])) - 1 for k in (1, 2))
        assert run.measurements == MEASUREMENTS[:whole], cut
        torn = bool(content[:cut].rpartition("\n")[2]) and cut not in (len(LINES[0]) - 1, len(content) - 1)
        assert len(run.notices) == torn, cut
        assert all("measurements-x-1.jsonl:" in notice for notice in run.notices)
        assert len(run.records) == 1


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "[]",
        "{",
        "1e400",
        '{"schema": 99}',
        LINES[0].replace('"softmax"', "3").strip(),
        "\x00",
        "\ud800",
    ],
)
def test_a_foreign_line_is_noticed_and_the_others_are_read(line, tmp_path):
    content = (LINES[0] + line + "\n\n" + LINES[1]).encode("utf-8", "surrogatepass")
    run = read_run(folder_with(tmp_path, content))
    assert run.measurements == MEASUREMENTS[:2]
    assert len(run.notices) == 1
    assert run.notices[0].startswith("measurements-x-1.jsonl:2 skipped: ")


def test_the_latest_of_the_same_measurement_counts_and_a_torn_file_is_continued_on_a_new_line(tmp_path):
    write(tmp_path, RECORDS[0].to_json() + "\n")
    (tmp_path / "env.json").write_text("{}")
    store = Store(tmp_path)
    store.append_measurement(MEASUREMENTS[0])
    store.close()
    (path,) = tmp_path.glob("measurements-*.jsonl")
    path.write_text(path.read_text() + LINES[1][:20])
    store = Store(tmp_path)
    again = replace(MEASUREMENTS[0], data={"n": "new"})
    store.append_measurement(again)
    store.append_measurement(replace(again, dtype="float16"))
    store.close()
    run = read_run(tmp_path)
    assert run.measurements == (again, replace(again, dtype="float16"))
    assert len(run.notices) == 1


# run --measure


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("kernels") / "mine.py"
    path.write_text(
        "import torch\nfrom suite import kernel\n\n"
        "@kernel('softmax', slow=True)\ndef good(x, dim=-1):\n    return torch.softmax(x, dim)\n\n"
        "@kernel('softmax', slow=True)\ndef overflows(x, dim=-1):\n    e = torch.exp(x.float())\n"
        "    return (e / e.sum(dim, keepdim=True)).to(x.dtype)\n"
    )
    return path


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def run(tmp_path, mine, *arguments):
    out = tmp_path / "run"
    narrow = (
        "--op=softmax",
        "--dtype=float32",
        f"--kernel={mine}:good",
        f"--kernel={mine}:overflows",
        f"--case={CASE}",
    )
    return invoke("run", *narrow, "--out", out, *arguments), out


@pytest.fixture(scope="module")
def measured(tmp_path_factory, mine):
    """The run folder of a real run with measurements."""
    result, out = run(tmp_path_factory.mktemp("measured"), mine, "--measure")
    assert result.exit_code == 0, (result.output, result.exception)
    return out


def test_a_measured_run_stores_every_chapter_of_every_kernel_and_shows_them(measured, mine, tmp_path):
    out = measured
    found = read_run(out)
    assert {(m.kind, m.kernel, m.dtype) for m in found.measurements} == {
        (kind, f"{mine}:{name}", "float32")
        for kind in ("exponential", "thresholds")
        for name in ("good", "overflows")
    }
    assert {m.env_id for m in found.measurements} == {found.environment["env_id"]}
    assert all(m.suite_version for m in found.measurements)
    thresholds = {m.kernel.rpartition(":")[2]: m.data for m in found.measurements if m.kind == "thresholds"}
    level = {name: data["overflow"][0]["measured"] for name, data in thresholds.items()}
    assert level["good"] is None
    assert 87 < level["overflows"] < 89  # ln of the largest float32 is 88.72, and the row has two entries
    page = (out / "report.html").read_text()
    assert "overflows at level" in page
    assert "overflows at level" not in page_of_a_copy(out, tmp_path / "bare", "records-*.jsonl")


def page_of_a_copy(run_folder, copy, *patterns, torn=0):
    """The report of these files of a run alone, `torn` bytes cut off its measurements."""
    copy.mkdir()
    (copy / "env.json").write_bytes((run_folder / "env.json").read_bytes())
    for path in [path for pattern in patterns for path in run_folder.glob(pattern)]:
        content = path.read_bytes()
        (copy / path.name).write_bytes(
            content[: len(content) - torn] if path.name.startswith("measurements") else content
        )
    assert invoke("report", copy).exit_code == 0
    return (copy / "report.html").read_text()


def test_a_report_is_written_from_measurements_with_a_torn_last_line(measured, tmp_path):
    page = page_of_a_copy(measured, tmp_path / "torn", "records-*.jsonl", "measurements-*.jsonl", torn=40)
    assert len(read_run(tmp_path / "torn").measurements) == 3
    assert "overflows at level" in page
    assert re.search(r"measurements-\S+\.jsonl:4 skipped", page)


@pytest.mark.parametrize(
    ("arguments", "measured"),
    [
        ([], "none"),
        (["--profile=quick"], "none"),
        (["--profile=standard"], "all"),
        (["--profile=standard", "--no-measure"], "none"),
        (["--measure"], "all"),
        (["--no-measure"], "none"),
        (["--direction=backward"], "torch"),
        (["--direction=both", "--profile=quick"], "torch"),
        (["--direction=both", "--profile=standard"], "all"),
        (["--direction=backward", "--no-measure"], "none"),
    ],
)
def test_measuring_is_the_default_from_standard_on(arguments, measured, tmp_path, monkeypatch):
    asked = []

    def remembering(session, progress):
        asked.append(session.request.measure)
        return Result(records=(), environment={})

    monkeypatch.setattr(Session, "run", remembering)
    invoke("run", "--out", tmp_path / "run", *arguments)
    assert asked == [measured]


def test_measurements_of_ops_without_chapters_are_none_and_other_ops_and_dtypes_each_have_theirs(
    tmp_path, monkeypatch
):
    asked = []

    def remembering(kernel, dtype, *, device, host, directions):
        assert directions == ("forward",)
        asked.append((kernel.op, kernel.id, dtype, device))
        return iter(())

    monkeypatch.setattr(suite.studies, "measure_kernel", remembering)
    request = Request(
        ops=("softmax", "logsumexp", "cross_entropy"),
        kernels=("shifted",),
        dtypes=("float32", "float16"),
        patterns=("softmax/normal/*",),
        out=tmp_path,
        measure="all",
    )
    with Session(request) as session:
        session.run()
    assert asked == [
        (op, "shifted", dtype, "cpu") for op in ("softmax", "logsumexp") for dtype in ("float32", "float16")
    ]


def test_an_interrupt_while_measuring_keeps_what_there_is_and_exits_with_130(tmp_path, mine, monkeypatch):
    def interrupted(kernel, dtype, **_):
        yield make(kernel=kernel.id, dtype=dtype)
        raise KeyboardInterrupt

    monkeypatch.setattr(suite.studies, "measure_kernel", interrupted)
    result, out = run(tmp_path, mine, "--measure")
    assert result.exit_code == 130, result.output
    assert [m.kernel for m in read_run(out).measurements] == [f"{mine}:good"]
    assert len(read_run(out).records) == 2
    assert (out / "report.html").is_file()
