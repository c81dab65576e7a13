"""publish.py and report/published.py: a run is passed on whole and anonymous, and the pages about
it cannot go stale.
"""

import errno
import gzip
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from suite.commands.main import cli
from suite.records.configuration import Configuration
from suite.records.record import Measurement, Record
from suite.records.store import Store, read_run
from suite.report.compare_runs import read
from suite.report.privacy import private
from suite.report.publish import machine_slug, pages, publish, write_pages
from suite.report.published import BEGIN, END, read_published, readme_table, with_table
from tests.records import make_record

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    "env_id": "e1", "cpu": "AMD EPYC", "cpu_count": 2, "device": "cpu", "threads": 1,
    "suite_version": "0.1.0", "packages": {"torch": "2.13.0"}, "python": "3.11.7",
}  # fmt: skip
OTHER = {**ENVIRONMENT, "env_id": "e2", "device": "cuda", "gpu": "NVIDIA H200"}


def record(kernel="online", case="softmax/normal/4x64/s0", **changes):
    given = {
        "suite_version": "0.1.0", "kernel": kernel, "op": case.partition("/")[0], "case": case,
        "family": "normal", "shape": (4, 64), "dtype": "float32", "status": "passed", "ratio": 0.25,
        "digest": "d1", "env_id": "e1", "started": "2026-01-02T00:00:00+00:00", "message": "made up",
    }  # fmt: skip
    return make_record(**{**given, **changes})


def timed(kernel, milliseconds, *, op="softmax", dtype="float32", length=64, status="passed", device="cpu"):
    case, samples = f"{op}/normal/4x{length}/s0", [milliseconds * 1e-3] * 8 if status == "passed" else []
    data = {
        "status": status, "ratio": 0.25, "max_ulp": 1.0, "digest": "d", "direction": "forward",
        "shape": [4, length], "length": length, "bytes": 2048, "operations": 1280, "clock": "perf_counter",
        "cache": "warm", "threads": 1, "calls_per_sample": 10, "samples_seconds": samples,
        "median_seconds": samples[0] if samples else None, "low_seconds": None, "high_seconds": None,
        "peak_bytes": 0, "compile_seconds": None, "copy_bytes_per_second": 1e10,
        "matmul_operations_per_second": 1e11, "note": "",
    }  # fmt: skip
    return Measurement(
        kind="throughput", kernel=kernel, op=op, dtype=dtype, device=device, case=case, data=data
    )


def stored(folder, *held, environment=ENVIRONMENT, configuration=None):
    """A run folder as `run` and `bench` leave it."""
    store = Store(folder)
    store.write_environment(environment)
    if configuration is not None:
        store.write_json("run.json", configuration.to_dict())
    for one in held:
        store.append(one) if isinstance(one, Record) else store.append_measurement(one)
    store.close()
    return folder


def asked(profile="quick", *, planned=1, **changes):
    given = {"profile": profile, "known-failures": {}, "case": []}
    return Configuration(asked={**given, **changes}, kernels={}, code={}, env_id="e1", planned=planned)


def invoke(*words):
    return CliRunner().invoke(cli, list(map(str, words)))


# What is published


@pytest.mark.parametrize(
    ("facts", "slug"),
    [
        ({"device": "cpu", "cpu": "AMD EPYC"}, "cpu-amd-epyc"),
        (
            {"device": "cpu", "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"},
            "cpu-intel-xeon-platinum-8481c",
        ),
        ({"device": "cpu", "cpu": "AMD EPYC 9554 64-Core Processor"}, "cpu-amd-epyc-9554"),
        ({"device": "cuda:1", "cpu": "AMD EPYC", "gpu": "NVIDIA H200"}, "cuda-nvidia-h200"),
        ({"device": "cuda", "gpu": "NVIDIA A100-SXM4-80GB"}, "cuda-nvidia-a100-sxm4-80gb"),
        ({"device": "../..", "cpu": "/etc/passwd"}, "etc-passwd"),
    ],
)
def test_a_machine_is_named_by_the_kind_and_model_of_its_device(facts, slug):
    assert machine_slug(facts) == slug


@pytest.mark.parametrize(
    "facts", [{}, {"device": "cpu"}, {"device": "cpu", "cpu": "..."}, {"device": 3, "cpu": [1]}]
)
def test_an_environment_without_a_model_has_no_machine(facts):
    with pytest.raises(ValueError, match=r"env.json names no device"):
        machine_slug(facts)


def test_a_published_run_has_what_the_run_has(tmp_path):
    records = (record(), record("fused", ratio=float("inf"), status="inaccurate", broken=("inaccurate",)))
    run = stored(tmp_path / "run", *records, timed("online", 2), configuration=asked(planned=2))

    folder = publish([run], reports=tmp_path / "reports")

    assert folder == tmp_path / "reports" / "cpu-amd-epyc" / "2026-01-02-quick"
    assert sorted(path.name for path in folder.iterdir()) == [
        "env.json", "measurements-1.jsonl.gz", "records-1.jsonl.gz", "report.html", "run.json",
    ]  # fmt: skip
    assert replace(read(folder), folder=run) == read(run)
    assert "online" in (folder / "report.html").read_text(encoding="utf-8")


def test_publishing_twice_gives_the_same_bytes(tmp_path):
    """Whatever the processes that recorded it were called."""
    run = stored(
        tmp_path / "run", *(record(f"k{i}", started=f"2026-01-02T00:00:0{i}+00:00") for i in range(4))
    )
    [path] = run.glob("records-*.jsonl")
    first, *others = path.read_text().splitlines(keepends=True)
    again = stored(tmp_path / "again")
    (again / "records-b-2.jsonl").write_text(first)
    (again / "records-a-9.jsonl").write_text("".join(others))

    contents = [
        {
            path.name: path.read_bytes()
            for path in publish([one], reports=tmp_path / one.name / "out", name="x").iterdir()
        }
        for one in (run, again)
    ]

    assert contents[0].keys() == {"env.json", "records-1.jsonl.gz", "report.html"}
    assert contents[0]["records-1.jsonl.gz"][4:8] == bytes(4)
    assert contents[0] == contents[1]


@pytest.fixture
def quokka(monkeypatch):
    """A machine and a user whose names nobody else has."""
    monkeypatch.setattr("platform.node", lambda: "quokka")
    monkeypatch.setattr("getpass.getuser", lambda: "zebra9")
    monkeypatch.setattr("suite.report.privacy._home", lambda: "/home/jane")


@pytest.mark.usefixtures("quokka")
def test_nobody_is_named_in_any_file_unless_asked(tmp_path):
    secret = "/home/jane/k.py:f on quokka by zebra9@quokka"
    run = stored(
        tmp_path / "run",
        record(
            secret,
            outside=True,
            message=secret,
            output=secret,
            warnings=(secret,),
            reproduce=secret,
            known=secret,
        ),
        replace(timed(secret, 1), data=timed(secret, 1).data | {"note": secret, "inner": {secret: [secret]}}),
        environment={**ENVIRONMENT, "libc": secret, "packages": {secret: secret}},
        configuration=asked(**{"known-failures": {secret: "1"}}),
    )

    def texts(folder):
        files = [p for p in folder.iterdir() if p.is_file()]
        return [
            (gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes()).decode() for p in files
        ]

    hidden = texts(publish([run], reports=tmp_path / "hidden"))
    shown = texts(publish([run], reports=tmp_path / "shown", show_paths=True))

    assert len(hidden) == len(shown) == 5
    assert [word for text in hidden for word in ("jane", "quokka", "zebra9") if word in text] == []
    assert all("/home/jane" in text for text in shown)
    assert read(tmp_path / "hidden" / "cpu-amd-epyc" / "2026-01-02-quick").records[0].kernel == private(
        secret
    )


def test_no_kernel_is_lost_under_the_name_of_another(tmp_path):
    run = stored(tmp_path / "run", record("/home/jane/k.py:f"), record("/home/joe/k.py:f"))

    with pytest.raises(
        ValueError, match=r"^/home/jane/k.py:f and /home/joe/k.py:f have one name without private paths"
    ):
        publish([run], reports=tmp_path / "reports")
    assert not (tmp_path / "reports").exists()
    assert len(read(publish([run], reports=tmp_path / "reports", name="x", show_paths=True)).records) == 2


def test_two_kernels_do_not_become_one_where_each_has_its_own_cases(tmp_path):
    """Nothing would be lost, and all would be said of one kernel."""
    one = stored(tmp_path / "one", record("/home/jane/v1/k.py:f"))
    other = stored(tmp_path / "other", record("/home/joe/v1/k.py:f", case="softmax/normal/4x4096/s0"))

    with pytest.raises(
        ValueError, match=r"^/home/jane/v1/k.py:f and /home/joe/v1/k.py:f have one name without private paths"
    ):
        publish([one, other], reports=tmp_path / "reports")


def test_a_run_that_is_named_twice_is_refused_in_words_of_publish(tmp_path):
    run = stored(tmp_path / "run", record())

    with pytest.raises(ValueError, match=r"run' is named twice$"):
        publish([run, run], reports=tmp_path / "reports")


def test_runs_of_one_environment_are_joined(tmp_path):
    judged = stored(
        tmp_path / "judged",
        record(),
        configuration=asked(),
        environment={**ENVIRONMENT, "libm": {"points": 1}},
    )
    bench = stored(tmp_path / "bench", record(case="softmax/normal/4x4096/s0"), timed("online", 2))

    folder = publish([bench, judged], reports=tmp_path / "reports")

    found = read(folder)
    assert folder.name == "2026-01-02-quick"
    assert len(found.records) == 2
    assert len(found.measurements) == 1
    assert found.environment == {**ENVIRONMENT, "libm": {"points": 1}}


def test_runs_of_unlike_environments_are_not_joined(tmp_path):
    one = stored(tmp_path / "one", record())
    other = stored(
        tmp_path / "other", record("fused"), environment={**ENVIRONMENT, "env_id": "e2", "python": "3.12.1"}
    )

    with pytest.raises(
        ValueError, match=r"unlike environments.*publish them one by one.*\n.*python: \"3.11.7\".*\"3.12.1\""
    ):
        publish([one, other], reports=tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


def test_runs_that_contradict_each_other_are_not_joined(tmp_path):
    one = stored(tmp_path / "one", record(digest="d1"))
    other = stored(tmp_path / "other", record(digest="d2", ratio=0.3))
    worse = stored(tmp_path / "worse", record(status="inaccurate", broken=("inaccurate",)))

    assert publish([one, other], reports=tmp_path / "reports", name="alike").is_dir()
    with pytest.raises(
        ValueError, match=r"softmax/normal/4x64/s0 float32 online is passed in one of them and inaccurate in"
    ):
        publish([one, worse], reports=tmp_path / "reports", name="unlike")


def test_verdicts_of_one_version_are_not_joined_with_the_speed_of_another(tmp_path):
    """The evaluations are of other inputs, so that no two of them contradict each other."""
    judged = stored(
        tmp_path / "judged", record("my.py:f", kernel_version="11aa"), record("fused", kernel_version="33cc")
    )
    bench = stored(
        tmp_path / "bench",
        record("my.py:f", case="softmax/normal/4x4096/s0", kernel_version="22bb"),
        timed("my.py:f", 2),
    )

    with pytest.raises(ValueError, match=r"softmax my\.py:f: 11aa in .*judged, 22bb in .*bench$"):
        publish([judged, bench], reports=tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


def test_a_kernel_of_two_ops_has_a_version_for_each(tmp_path):
    one = stored(tmp_path / "one", record(kernel_version="11aa"))
    other = stored(tmp_path / "other", record(case="log_softmax/normal/4x64/s0", kernel_version="22bb"))

    assert len(read(publish([one, other], reports=tmp_path / "reports", name="x")).records) == 2


def test_an_incomplete_run_is_not_published(tmp_path):
    run = stored(tmp_path / "run", record(), configuration=asked(planned=7))

    with pytest.raises(ValueError, match=r"run' has 1 of 7 planned evaluations; go on with it by --resume"):
        publish([run], reports=tmp_path / "reports")


def test_a_run_with_a_changed_line_is_not_published(tmp_path):
    run = stored(tmp_path / "run", record())
    [path] = run.glob("records-*.jsonl")
    path.write_text(path.read_text().replace('"ratio": 0.25', '"ratio": "small"'))

    with pytest.raises(ValueError, match=r"records-.*:1 cannot be read: "):
        publish([run], reports=tmp_path / "reports")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "ä", "a b", "x" * 101])
def test_a_name_that_is_none_of_a_folder_is_refused(tmp_path, name):
    result = invoke(
        "publish", stored(tmp_path / "run", record()), "--reports", tmp_path / "reports", "--name", name
    )

    assert result.exit_code == 2
    assert "--name" in result.stderr
    assert not (tmp_path / "reports").exists()


def test_another_published_run_is_replaced_only_where_asked(tmp_path):
    reports = tmp_path / "reports"
    one, other = (stored(tmp_path / name, record(name)) for name in ("one", "other"))
    folder = publish([one], reports=reports, name="x")

    with pytest.raises(
        ValueError, match=r"x' is there; --replace puts this run in its place, --name gives another"
    ):
        publish([other], reports=reports, name="x")
    assert read(folder).records[0].kernel == "one"

    (folder / "records.csv").write_text("of `report`")
    publish([other], reports=reports, name="x", replace=True)
    assert read(folder).records[0].kernel == "other"
    assert not (folder / "records.csv").exists()
    assert [path.name for path in reports.iterdir()] == ["cpu-amd-epyc"]


def test_what_is_no_published_run_is_not_replaced(tmp_path):
    precious = tmp_path / "reports" / "cpu-amd-epyc" / "x" / "thesis.tex"
    precious.parent.mkdir(parents=True)
    precious.write_text("years")

    with pytest.raises(ValueError, match=r"x' is no published run: it has no env.json"):
        publish([stored(tmp_path / "run", record())], reports=tmp_path / "reports", name="x", replace=True)
    assert precious.read_text() == "years"


# Published runs are run folders


@pytest.fixture
def published(tmp_path):
    """Two versions on one machine, and another machine."""
    reports = tmp_path / "reports"
    for name, environment, digest, kernels in (
        ("a", ENVIRONMENT, "d1", ("online", "fused")),
        ("b", ENVIRONMENT, "d2", ("online", "naive")),
        ("c", OTHER, "d1", ("online", "fused")),
    ):
        device = "cuda" if "gpu" in environment else "cpu"
        held = [record(k, digest=digest, device=device, env_id=environment["env_id"]) for k in kernels]
        held.append(record("same", device=device, env_id=environment["env_id"]))
        held += [timed(k, 1 + i, device=device) for i, k in enumerate(kernels)]
        run = stored(tmp_path / name, *held, environment=environment, configuration=asked(planned=3))
        publish([run], reports=reports, name=name)
    return reports


def test_commands_take_published_runs(published, tmp_path, monkeypatch):
    cpu = published / "cpu-amd-epyc"

    compared = invoke("compare", cpu / "a", cpu / "b", "--fail-on", "none")
    reported = invoke("report", cpu / "a", "--out", tmp_path / "page.html")
    merged = invoke("merge", cpu / "a", "--out", tmp_path / "merged")
    monkeypatch.setattr("suite.commands.list.REPORTS", tmp_path / "reports")
    machines = invoke("list", "machines")

    assert [one.exit_code for one in (compared, reported, merged, machines)] == [0, 0, 0, 0], (
        compared.stderr + merged.stderr
    )
    assert "2 evaluations in both runs" in compared.stdout
    assert "online" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(read_run(tmp_path / "merged").records) == 3
    assert "cuda-nvidia-h200/c: NVIDIA H200" in machines.stdout


@pytest.mark.parametrize(
    "command", [("compare", "{b}", "{a}"), ("report", "{a}"), ("merge", "{a}", "--out", "{out}")]
)
def test_a_torn_published_run_is_named_with_the_reason(published, tmp_path, command):
    a, b = (published / "cpu-amd-epyc" / name for name in "ab")
    path = a / "records-1.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-9])

    result = invoke(*(word.format(a=a, b=b, out=tmp_path / "out") for word in command))

    assert result.exit_code == 2
    assert "records-1.jsonl.gz' cannot be read: it is torn: its end is missing" in re.sub(
        r"\s+", " ", result.stderr
    )


@pytest.mark.parametrize("option", ["--csv", "--json", "--out", "--baseline"])
def test_compare_spoils_no_published_run(published, tmp_path, option):
    a, b = (published / "cpu-amd-epyc" / name for name in "ab")
    (tmp_path / "link").symlink_to(a / "records-1.jsonl.gz")
    before = (a / "records-1.jsonl.gz").read_bytes()

    result = invoke(
        "compare", a, b, option, tmp_path / "link", *(["--update-baseline"] if option == "--baseline" else [])
    )

    assert result.exit_code == 2
    assert "belongs to a run" in re.sub(r"\s+", " ", result.stderr)
    assert (a / "records-1.jsonl.gz").read_bytes() == before


# The pages


def test_the_pages_count_what_the_runs_hold(published):
    [page, table] = pages(published)

    assert [page.name, table.name] == ["index.html", "README.md"]
    html, markdown = pages(published).values()
    assert markdown.startswith("<!-- Written by `softmax-suite publish`;")
    assert "| NVIDIA H200 | [c](cuda-nvidia-h200/c/report.html) | 2026-01-02 |" in markdown
    assert html.count('<th scope="row"><a href="cpu-amd-epyc/a/report.html">a</a></th>') == 1
    for text in (html, markdown):
        assert "softmax-suite compare reports/cpu-amd-epyc/a reports/cpu-amd-epyc/b" in text


def test_bits_are_compared_within_one_environment_alone(published):
    """a and b: "same" has the same bits, "online" has not; c is another machine."""
    shared = {(one.base.name, one.new.name): one for one in read_published(published).comparisons}

    assert {names: (one.joined, one.same_bits) for names, one in shared.items()} == {
        ("a", "b"): (2, "1 of 2"),
        ("a", "c"): (3, "not comparable"),
        ("b", "c"): (2, "not comparable"),
    }


def test_runs_with_nothing_in_common_are_no_comparison(tmp_path):
    for name, kernel in (("a", "online"), ("b", "fused")):
        publish([stored(tmp_path / name, record(kernel))], reports=tmp_path / "reports", name=name)

    assert read_published(tmp_path / "reports").comparisons == ()
    assert all("compare reports" not in text for text in pages(tmp_path / "reports").values())


def test_unexpected_failures_stand_first_on_the_page(tmp_path):
    bad = record("bad", status="inaccurate", broken=("inaccurate",), ratio=9.0)
    known = record("naive", status="known_failure", known="overflows")
    publish([stored(tmp_path / "a", record(), bad, known)], reports=tmp_path / "reports")

    html, markdown = pages(tmp_path / "reports").values()

    assert "1 unexpected failure" in re.search(r'class="verdict">(.*?)</p>', html, re.DOTALL)[1]
    assert "| 3 | 1 | 1 | 1 |" in markdown


def test_texts_of_strangers_are_text(tmp_path):
    """Of a page, and of a table in Markdown."""
    hostile = {
        **ENVIRONMENT,
        "cpu": "<script>alert(1)</script> | **x** [a](javascript:b)",
        "suite_version": "`1`|2\n# x",
    }
    publish([stored(tmp_path / "a", record(), environment=hostile)], reports=tmp_path / "reports", name="a")

    html, markdown = pages(tmp_path / "reports").values()

    assert "<script" not in html + markdown
    assert "](javascript" not in re.sub(r"\\.", "", markdown)
    [row] = [line for line in markdown.splitlines() if "a/report.html" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == len(
        re.findall(r"(?<!\\)\|", markdown.splitlines()[markdown.splitlines().index(row) - 1])
    )


def test_an_empty_folder_has_pages_that_say_so(tmp_path):
    html, markdown = pages(tmp_path).values()

    assert "No published runs" in html
    assert "No published runs" in markdown


def test_a_spoilt_published_run_is_named(published):
    (published / "cpu-amd-epyc" / "a" / "env.json").write_text("{")

    with pytest.raises(ValueError, match=r"a': env.json cannot be read"):
        pages(published)


# The table of the README


BENCHED = (
    *(timed(k, t) for k, t in (("fused", 2), ("online", 4), ("naive", 1))),
    *(timed(k, t, length=32) for k, t in (("fused", 1), ("online", 9))),
    timed("fused", 2, dtype="bfloat16"),
    timed("online", 1, dtype="bfloat16"),
)
JUDGED = (
    record("fused", ratio=0.3),
    record("fused", "softmax/ramp/4x64/s0", ratio=0.4),
    record("fused", dtype="bfloat16", ratio=0.5),
    record("online", ratio=0.9),
    record("online", dtype="bfloat16", ratio=0.1),
    record(
        "online",
        "softmax/normal/4x64/upstream=normal/s0",
        direction="backward",
        ratio=7.0,
        status="known_failure",
        known="x",
    ),
    record("online", dtype="float64", ratio=5.0, status="known_failure", known="x"),
    record("naive", ratio=0.6),
    record(
        "naive",
        "softmax/ramp/4x64/s0",
        status="known_failure",
        overflow=3,
        entries=9,
        broken=("nonfinite",),
        known="x",
    ),
    record("mine.py:f", ratio=0.1, outside=True),
)


def test_the_readme_has_the_worst_error_and_the_speed_beside_torch(tmp_path):
    publish(
        [stored(tmp_path / "a", *JUDGED, *BENCHED, timed("mine.py:f", 0.1))],
        reports=tmp_path / "reports",
        name="a",
    )

    table = readme_table(read_published(tmp_path / "reports"))
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("| softmax")
    ]

    assert rows == [
        ["softmax", "naive", "1 of 2", "overflow", "2.00", "–", "–"],
        ["softmax", "fused (torch)", "0 of 3", "0.4", "1.00", "0.5", "1.00"],
        ["softmax", "online", "1 of 3", "0.9", "0.50", "0.1", "2.00"],
    ]
    assert "AMD EPYC" in table
    assert "4x64" in table
    assert "reports/cpu-amd-epyc/a/report.html" in table


def test_the_table_is_short_and_keeps_torch(tmp_path):
    """Where there are many kernels, the fastest; torch's own is there whatever its place, since all
    are measured by it.
    """
    kernels = [(f"k{i:02}", 1 + i) for i in range(30)] + [("fused", 99)]
    held = [one for name, time in kernels for one in (record(name), timed(name, time))]
    attention = [
        one
        for name, time in (("sdpa_flash", 1), ("online", 2))
        for one in (record(name, "attention/normal/4x64/s0"), timed(name, time, op="attention"))
    ]
    publish([stored(tmp_path / "a", *held, *attention)], reports=tmp_path / "reports", name="a")

    rows = [
        line
        for line in readme_table(read_published(tmp_path / "reports")).splitlines()
        if line.startswith("| ")
    ][2:]

    assert len(rows) <= 15
    assert any("fused (torch)" in row for row in rows)
    assert sum("| attention |" in row for row in rows) == 2


def test_the_newest_run_with_times_makes_the_table(tmp_path):
    for name, day, ratio in (("old", 1, 0.11), ("new", 3, 0.33), ("judged", 5, 0.55)):
        held = [record("fused", ratio=ratio, started=f"2026-01-0{day}T00:00:00+00:00")]
        held += [timed("fused", 1)] if name != "judged" else []
        publish([stored(tmp_path / name, *held)], reports=tmp_path / "reports", name=name)

    table = readme_table(read_published(tmp_path / "reports"))

    assert "0.33" in table
    assert "0.11" not in table
    assert "0.55" not in table


def test_only_what_stands_between_the_markers_is_written(published):
    readme = published.parent / "README.md"
    readme.write_text(f"# mine | x\n\n{BEGIN}\nold\n{END}\n\nmore\n", encoding="utf-8")

    written = write_pages(published)

    text = readme.read_text(encoding="utf-8")
    assert [path.name for path in written] == ["index.html", "README.md", "README.md"]
    assert text.startswith(f"# mine | x\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nmore\n")
    assert "old" not in text
    assert "| softmax | fused (torch) |" in text


def test_a_readme_without_markers_stays_as_it_is(published):
    readme = published.parent / "README.md"
    readme.write_text("# mine\n", encoding="utf-8")
    write_pages(published)

    assert readme.read_text(encoding="utf-8") == "# mine\n"


@pytest.mark.parametrize(
    "text", [f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"]
)
def test_markers_that_are_no_pair_are_refused(text):
    with pytest.raises(
        ValueError, match=r"must have .*published: begin.* and .*published: end.* once, in this order"
    ):
        with_table(text, "table")


def test_without_a_run_the_command_writes_the_pages_alone(published):
    before = sorted(published.rglob("*"))
    result = invoke("publish", "--reports", published)

    assert result.exit_code == 0, result.stderr
    assert {path.name for path in set(published.rglob("*")) - set(before)} == {"index.html", "README.md"}
    assert invoke("publish", "--reports", published, "--name", "x").exit_code == 2


def test_the_command_publishes_and_writes_the_pages(tmp_path):
    run = stored(tmp_path / "run", record(), configuration=asked())
    result = invoke("publish", run, "--reports", tmp_path / "reports")

    assert result.exit_code == 0, result.stderr
    assert "cpu-amd-epyc/2026-01-02-quick" in result.stdout
    assert (tmp_path / "reports" / "index.html").is_file()
    assert invoke("publish", run, "--reports", tmp_path / "reports").exit_code == 2
    assert invoke("publish", tmp_path / "absent", "--reports", tmp_path / "reports").exit_code == 2


def test_a_full_disk_ends_with_4_and_leaves_nothing_half(tmp_path, monkeypatch):
    def full(self, *arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    run = stored(tmp_path / "run", record(), configuration=asked())
    monkeypatch.setattr(Path, "write_bytes", full)
    result = invoke("publish", run, "--reports", tmp_path / "reports")

    assert result.exit_code == 4
    assert "No space left on device" in result.stderr
    assert list((tmp_path / "reports").iterdir()) == []


def test_what_this_repository_publishes_is_what_the_command_would_write():
    """Else: `softmax-suite publish`, and commit what it wrote."""
    stale = [
        str(path)
        for path, text in pages(ROOT / "reports").items()
        if path.read_text(encoding="utf-8") != text
    ]

    assert stale == []
    assert BEGIN in (ROOT / "README.md").read_text(encoding="utf-8")
