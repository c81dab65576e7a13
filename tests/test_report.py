"""report/: pages of made-up records. Nothing is evaluated here."""

import re
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.commands.main import cli
from suite.records.configuration import Configuration
from suite.records.record import STATUSES, Record
from suite.records.store import Run, Store
from suite.report import FullDiskError, write_report
from suite.report.csv import write_csv
from suite.report.html import render
from suite.report.presentable import FAMILIES
from suite.report.summaries import cell, counts, severity, verdict, worst, worst_cases
from suite.report.terminal import print_summary
from suite.report.words import times
from tests.records import make_record

INF, NAN = float("inf"), float("nan")
ALL = (*STATUSES, "known_failure")
VOID = {"meta", "br", "hr", "img", "input", "link", "col"}


def make(**changes):
    given = {
        "suite_version": "1", "kernel": "naive", "op": "softmax", "case": "softmax/normal/4x4/s0",
        "family": "normal", "shape": (4, 4), "dtype": "float32", "status": "passed", "message": "made up",
        "reproduce": "softmax-suite check",
    }  # fmt: skip
    return make_record(**{**given, **changes})


def page(*records, environment=None, notices=()):
    return render([Run(Path("run"), environment or {}, tuple(records), tuple(notices))])


class Page(HTMLParser):
    """Tags with attributes, the text, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.broken = [], [], "", []
        self.feed(text)
        self.close()
        self.broken += self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data):
        self.text += data


def everything():
    """A record of every status, and each field of a failure filled in."""
    failure = {
        "ratio": 37.5, "failed": 3, "entries": 16, "index": (1, 2), "got": "0.5", "expected": "0.25",
        "worst_ulp": 4.0, "torch_ratio": 2.0, "tiles": {"16": "100% of the failures at column = 0 (mod 16)"},
        "first_failing_column": 2, "fits": "shift=none", "numerics": "shift=none", "warnings": ("a", "b"),
        "broken": ("inaccurate", "law_broken"), "known": "rounds twice (https://example.org; known.txt:1)",
        "started": "2026-01-01T00:00:00+00:00", "strict": True,
    }  # fmt: skip
    return [
        make(status=status, kernel=kernel, dtype=dtype, overflow=overflow, **failure)
        for status in ALL
        for kernel, dtype, overflow in (("naive", "float32", 0), ("online", "bfloat16", 5))
    ]


HOSTILE = "<b>&\"'<script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}{% x %}"
HOSTILE_FIELDS = (
    "kernel", "family", "case", "message", "reproduce", "known", "got", "expected", "numerics", "fits", "op",
    "started",
)  # fmt: skip


def check_that_it_runs_nothing_and_asks_nobody(text):
    """No script, no handler, no reference to anything outside the file."""
    parsed = Page(text)
    forbidden = {"script", "iframe", "object", "embed", "link", "base", "form", "img"}
    references = {"src", "href", "srcset", "action", "style"}
    attributes = [(tag, name) for tag, given in parsed.tags for name in given]
    policy = [
        given["content"] for tag, given in parsed.tags if given.get("http-equiv") == "Content-Security-Policy"
    ]

    assert not {tag for tag, _ in parsed.tags} & forbidden
    assert [a for a in attributes if a[1].startswith("on") or a[1] in references] == []
    assert "<script" not in text.lower()
    assert 'http-equiv="refresh"' not in text.lower()
    assert not re.search(r"url\(|@import", text)
    assert [p.split(";")[0] for p in policy] == ["default-src 'none'"]
    assert parsed.broken == []


def test_the_page_runs_nothing_and_asks_nobody():
    check_that_it_runs_nothing_and_asks_nobody(page(*everything(), environment={"cpu": "x"}, notices=("n",)))


def test_every_tag_is_closed():
    for records in ([], everything(), [*everything(), make(status="unsupported", message="why")]):
        assert Page(page(*records, notices=("n",))).broken == []


@pytest.mark.parametrize("field", HOSTILE_FIELDS)
def test_text_from_kernels_and_users_is_escaped(field):
    given = {
        "index": (0, 0),
        "got": "1",
        "expected": "2",
        "known": "k",
        "ratio": 2.0,
        "failed": 1,
        "entries": 4,
        **{field: HOSTILE},
    }
    plain = {**given, field: "plain"}
    statuses = ("inaccurate", "known_failure", "unsupported", "passed")
    hostile, harmless = (
        Page(page(*(make(status=s, **values) for s in statuses))) for values in (given, plain)
    )

    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    assert [sorted(a) for _, a in hostile.tags] == [sorted(a) for _, a in harmless.tags]
    assert hostile.broken == []
    assert "49" not in hostile.text.replace(HOSTILE, "")


@pytest.mark.parametrize("field", ["tiles", "warnings", "bitwise", "broken"])
def test_text_in_nested_fields_is_escaped(field):
    value = (
        {"16": HOSTILE} if field == "tiles" else {HOSTILE: True} if field == "bitwise" else (HOSTILE, HOSTILE)
    )
    text = page(make(status="inaccurate", index=(0,), got="1", ratio=2.0, **{field: value}))

    assert "<img" not in text
    assert "<script" not in text


def test_a_kernel_of_any_name_is_shown_by_that_name():
    parsed = Page(page(make(kernel='<b>&"', status="inaccurate", ratio=3.0)))

    assert parsed.text.count('<b>&"') >= 3
    assert any('<b>&"' in given.get("title", "") for _, given in parsed.tags)


def test_text_of_the_environment_and_of_notices_is_escaped():
    environment = {"cpu": HOSTILE, "device": HOSTILE, "packages": {HOSTILE: HOSTILE}, "python": HOSTILE}
    text = page(make(), environment=environment, notices=(HOSTILE,))

    assert "<img" not in text
    assert Page(text).text.count("alert(1)") >= 10


def test_every_status_is_named_with_its_count():
    records = [
        make(status=status, case=f"softmax/normal/4x4/s{n}")
        for k, status in enumerate(ALL, 1)
        for n in range(k)
    ]
    parsed = re.sub(r"\s+", " ", page(*records))

    for number, status in enumerate(ALL, 1):
        assert f"<b>{number}</b>{status.replace('_', ' ')}</li>" in parsed
    assert f"<b>0</b>{STATUSES[0].replace('_', ' ')}</li>" in page(make())
    assert counts(records) == {status: number for number, status in enumerate(ALL, 1)}
    assert sum(counts(records).values()) == len(records)


def test_an_overflow_is_marked_above_every_larger_ratio():
    overflow = make(status="nonfinite", broken=("nonfinite",), overflow=4, entries=16, ratio=2.0)
    larger = make(status="inaccurate", broken=("inaccurate",), ratio=1e30)
    infinite = make(status="law_broken", broken=("law_broken",), ratio=INF)

    assert worst([larger, overflow, infinite]) is overflow
    shown = cell([larger, overflow, infinite])
    assert (shown.text, shown.kind) == ("overflow 25%", "failed overflow")
    assert verdict([larger, overflow, infinite])[1] is overflow


def test_a_share_of_overflow_that_rounds_to_zero_is_not_shown_as_zero():
    assert cell([make(status="nonfinite", overflow=1, entries=10_000, ratio=1.0)]).text == "overflow"


def test_failures_rank_above_known_failures_above_passes_above_unsupported():
    """Whatever their ratios; overflow only among what failed."""
    ordered = [
        make(status="unsupported", ratio=9e9),
        make(status="passed", ratio=0.9),
        make(status="known_failure", ratio=1e5),
        make(status="inaccurate", ratio=1.5),
        make(status="known_failure", ratio=1.5, overflow=1),
        make(status="nonfinite", ratio=1.5, overflow=1),
    ]

    assert sorted(ordered, key=severity) == ordered


ratios = st.none() | st.sampled_from([0.0, 1.5, 5.0, 1e9, INF, NAN])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(ratios, st.sampled_from(["inaccurate", "passed", "known_failure"])), min_size=1, max_size=4
    )
)
def test_the_worst_record_does_not_depend_on_the_order_of_the_records(given_records):
    records = [
        make(ratio=ratio, status=status, digest=str(n)) for n, (ratio, status) in enumerate(given_records)
    ]
    found = {(str(w.judgement.ratio or 0.0), w.status) for w in map(worst, permutations(records))}

    assert len(found) == 1


@pytest.mark.parametrize(
    ("records", "text", "kind"),
    [
        ([], "–", "absent"),
        ([make(status="unsupported")], "n/a", "absent"),
        ([make(ratio=0.42)], "0.42", "passed"),
        ([make(ratio=0.0)], "0", "passed"),
        ([make(status="unsupported"), make(ratio=0.42)], "0.42", "passed"),
        ([make(status="inaccurate", broken=("inaccurate",), ratio=37.0)], "37", "failed"),
        ([make(status="known_failure", broken=("inaccurate",), ratio=5.0)], "5", "known"),
        ([make(status="known_failure", overflow=1, entries=1)], "overflow 100%", "known overflow"),
        ([make(status="unjudged")], "unjudged", "unjudged"),
        ([make(status="timed_out")], "timed out", "failed ended"),
        (
            [make(status="out_of_memory"), make(status="inaccurate", ratio=9e9)],
            "out of memory",
            "failed ended",
        ),
        (
            [make(status="crashed"), make(status="nonfinite", overflow=4, entries=4)],
            "crashed",
            "failed ended",
        ),
        ([make(status="not_run")], "not run", "set-aside"),
        ([make(status="not_run"), make(status="known_failure", ratio=5.0), make()], "not run", "set-aside"),
        (
            [make(status="not_run"), make(status="inaccurate", broken=("inaccurate",), ratio=37.0)],
            "37",
            "failed",
        ),
        ([make(status="law_broken", broken=("law_broken",), ratio=INF)], "law broken", "failed"),
    ],
)
def test_a_cell_shows_the_worst_of_its_records(records, text, kind):
    assert (cell(records).text, cell(records).kind) == (text, kind)


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.01, 0.5, 1.0, 9.96, 99.4, 99.7, 100.0, 1234.4, 99_999.4])
def test_times_is_short_and_plain_and_right_to_two_digits(ratio):
    """No exponent below 100,000: a reader compares 99.7 with 100 at a glance."""
    text = times(ratio)

    assert len(text) <= 6
    assert "e" not in text
    assert float(text.replace(",", "").lstrip("<")) == pytest.approx(ratio, rel=0.06, abs=0.01)


@pytest.mark.parametrize(
    ("ratio", "text"), [(None, "?"), (INF, "∞"), (NAN, "nan"), (0, "0"), (1e5, "1e+05"), (1e300, "1e+300")]
)
def test_times_of_what_is_no_ordinary_number(ratio, text):
    assert times(ratio) == text


def test_the_verdict_is_one_sentence_that_counts():
    passed = [make(), make(kernel="online")]
    known = make(status="known_failure", ratio=2.0)
    failed = make(status="inaccurate", ratio=2.0, kernel="online")

    assert verdict([])[0] == "Nothing was judged."
    assert verdict([make(status="unsupported")]) == ("Nothing was judged.", None)
    assert verdict(passed) == ("2 kernels passed all of 2 evaluations.", None)
    assert verdict(passed[:1]) == ("1 kernel passed all of 1 evaluation.", None)
    assert verdict([*passed, known]) == (
        "No unexpected failure: 2 kernels, 3 evaluations; 1 failure known or declared, each with its reason.",
        known,
    )
    assert verdict([*passed, known, failed]) == ("1 of 2 kernels failed, on 1 of 4 evaluations.", failed)


def test_the_verdict_says_what_ended_and_what_was_not_run():
    ended = [
        make(status=status, kernel="mine", case=f"c{n}")
        for n, status in enumerate(["crashed", "timed_out", "crashed"])
    ]
    aside = [
        make(status="not_run", kernel="mine", case=f"a{n}", message="set aside: it ended 3 processes")
        for n in range(7)
    ]
    other = make(status="not_run", kernel="other")

    assert verdict([make(), *ended]) == (
        "1 of 2 kernels failed, on 3 of 4 evaluations. Of these 2 crashed, 1 ran out of time.",
        ended[0],
    )
    assert verdict([make(), *aside]) == (
        "1 kernel passed all of 1 evaluation. Not run: 7 evaluations of softmax mine (set aside).",
        aside[0],
    )
    assert (
        verdict([*aside, other])[0]
        == "Nothing was judged. Not run: 8 evaluations of softmax mine and 1 other kernel (set aside)."
    )


def test_a_kernel_that_crashed_or_was_set_aside_is_said_to_be_so_and_nothing_else():
    """Neither inaccurate nor wrong by any number of times."""
    records = [make(status="crashed", broken=("crashed",), message="signal 11 (SIGSEGV)", ratio=None)]
    records += [
        make(
            status="not_run",
            message="set aside: it ended 3 processes in a row",
            case=f"softmax/normal/4x4/s{n}",
        )
        for n in (1, 2)
    ]
    text = re.sub(r"\s+", " ", Page(page(*records)).text)

    assert "Not run: 2 evaluations of softmax naive (set aside)." in text
    assert "– crashed: signal 11 (SIGSEGV)" in text
    assert "1 of 1 cases: normal (crashed)" in text
    assert "not run: 2 cases" in text
    assert "1 crashed2 not run" in text
    assert "wrong by" not in text
    assert "inaccurate, " not in text


def test_the_worst_cases_are_one_of_each_kernel_format_and_status_worst_first():
    small, large = (make(status="inaccurate", ratio=r) for r in (2.0, 9.0))
    other = make(status="inaccurate", ratio=5.0, dtype="float16")

    assert worst_cases([small, make(), large, other, make(status="unsupported")]) == [large, other]
    assert len(worst_cases([make(status="raised", kernel=str(n)) for n in range(99)], limit=7)) == 7


@pytest.mark.parametrize("environment", [{}, {"packages": {}, "libm": None}, {"libm": {}}], ids=repr)
def test_an_environment_that_says_nothing_is_no_error(environment):
    assert "Machine and software" in page(make(status="inaccurate", ratio=2.0), environment=environment)


def test_a_run_without_records_is_a_page():
    text = page(notices=("records-x-1.jsonl:1 skipped: torn",))

    assert "Nothing was judged." in text
    assert "records-x-1.jsonl:1 skipped: torn" in text


NUMBERS = ("ratio", "worst_ulp", "max_ulp", "bias_ulp", "bias_error_ulp", "torch_ratio", "seconds")


@pytest.mark.parametrize("value", [None, NAN, INF, -INF, 0.0, 1e308])
def test_any_number_can_be_shown(value):
    numbers = dict.fromkeys(NUMBERS, value)
    statuses = ("passed", "inaccurate", "known_failure", "unjudged")
    records = [make(status=status, index=(0,), got="nan", **numbers) for status in statuses]
    text = page(*records, make(ratio=0.5), make(status="inaccurate", ratio=3.0))

    assert Page(text).broken == []
    assert "None times" not in Page(text).text


some_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(sorted(make().to_dict())),
    some_json,
    st.sampled_from(["inaccurate", "known_failure", "passed"]),
)
def test_what_from_dict_accepts_can_be_shown(name, value, status):
    """A run folder of another version or of another tool must not break the page."""
    plain = make(status=status, ratio=2.0, index=(0,), got="1", started="2026").to_dict()
    try:
        record = Record.from_dict({**plain, name: value})
    except ValueError:
        return
    assert Page(page(record, make(status="inaccurate", ratio=1.5, started="2025"))).broken == []


def test_twenty_thousand_records_give_a_page_below_one_megabyte():
    records = [
        make(
            op=op, kernel=f"kernel{n % 8}", family=f"family_of_inputs_{n % 18}", dtype=dtype,
            status=ALL[n % len(ALL)], case=f"{op}/family_of_inputs_{n % 18}/{n}x4096/s0", ratio=n / 100,
            message="a message of a failure\n" * 12, known="a reason (https://example.org; known.txt:1)",
            index=(1, 2), got="0.5", reproduce="softmax-suite " * 9,
        )
        for n, (op, dtype) in enumerate(
            [(op, d) for op in ("softmax", "logsumexp") for d in ("float64", "float32", "bfloat16",
                "float16")] * 2_500
        )
    ]  # fmt: skip
    text = page(*records)

    assert len(records) == 20_000
    assert len(text.encode()) < 1_000_000
    assert "All 20,000 records" in text


def test_each_run_shows_its_own_start():
    runs = [
        Run(
            Path(name),
            {},
            (make(started=f"{year}-01-01T00:00:00+00:00", case=f"softmax/normal/4x4/s{year}"),),
            (),
        )
        for name, year in (("old", 2025), ("new", 2026))
    ]
    text = render(runs)

    assert text.count("2025-01-01") == 1
    assert text.count("2026-01-01") == 1


def read_csv(path):
    """As the docstring of report/csv.py says."""
    import pandas

    return pandas.read_csv(path, keep_default_na=False, na_values=[""])


def test_the_csv_has_every_record_and_pandas_reads_it_back(tmp_path):
    records = [
        make(kernel=name, case=f"softmax/normal/4x4/s{n}")
        for n, name in enumerate(["NA", "null", "a,b", 'q"', "l\n2", "ü"])
    ]
    write_csv(records, tmp_path / "records.csv")
    table = read_csv(tmp_path / "records.csv")

    assert list(table["id"]) == [r.id for r in records]
    assert list(table["kernel"]) == [r.kernel for r in records]
    assert list(table["shape"]) == ["[4, 4]"] * len(records)


def test_infinities_survive_the_csv(tmp_path):
    write_csv([make(ratio=r, max_ulp=INF) for r in (INF, 0.5, -INF, None)], tmp_path / "records.csv")
    table = read_csv(tmp_path / "records.csv")

    assert list(table["ratio"][:3]) == [INF, 0.5, -INF]
    assert table["ratio"].isna().tolist() == [False, False, False, True]
    assert list(table["max_ulp"]) == [INF] * 4


def test_ids_of_digits_survive_the_csv(tmp_path):
    """An id begins with a letter: of 3000 ids, hundreds would else be read as numbers."""
    records = [make(case=f"softmax/normal/4x4/s{n}") for n in range(3000)]
    write_csv(records, tmp_path / "records.csv")

    assert list(read_csv(tmp_path / "records.csv")["id"]) == [record.id for record in records]


def test_a_csv_of_no_records_has_its_columns(tmp_path):
    write_csv([make()], tmp_path / "one.csv")
    write_csv([], tmp_path / "none.csv")

    assert list(read_csv(tmp_path / "none.csv").columns) == list(read_csv(tmp_path / "one.csv").columns)


def stored(folder, *records):
    store = Store(folder)
    store.write_environment({})
    for record in records:
        store.append(record)
    store.close()
    return folder


def test_write_report_puts_page_and_table_into_the_first_folder(tmp_path):
    folders = [stored(tmp_path / "a", make()), stored(tmp_path / "b", make(kernel="online"))]

    assert write_report(folders) == tmp_path / "a" / "report.html"
    assert "All 2 records" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert len(read_csv(tmp_path / "a" / "records.csv")) == 2
    assert not (tmp_path / "b" / "records.csv").exists()


def test_write_report_puts_both_where_the_page_is_asked_for(tmp_path):
    target = tmp_path / "page.html"

    assert write_report([stored(tmp_path / "a", make())], page=target) == target
    assert target.is_file()
    assert (tmp_path / "records.csv").is_file()


def planned(folder, count):
    """Gives a run folder a run.json that plans so many records."""
    store = Store(folder)
    store.write_json(
        "run.json", Configuration(asked={}, kernels={}, code={}, env_id="", planned=count).to_dict()
    )
    store.close()
    return folder


def test_the_report_of_a_run_that_was_killed_says_so_first(tmp_path, capsys):
    folder = planned(stored(tmp_path / "a", make(), make(kernel="online")), 30)
    text = write_report([folder]).read_text(encoding="utf-8")
    line = "Incomplete: 2 of 30 planned evaluations are recorded; go on with the same command and --resume."

    assert line in text
    assert text.index(line) < text.index('class="verdict"')
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("count", [1, 2])
def test_the_report_of_a_whole_run_says_nothing_of_the_kind(count, tmp_path, capsys):
    folder = planned(stored(tmp_path / "a", make(), make(kernel="online")), count)

    assert "Incomplete" not in write_report([folder]).read_text(encoding="utf-8")
    assert capsys.readouterr().err == ""


def test_of_several_runs_those_that_are_incomplete_are_named(tmp_path, capsys):
    folders = [planned(stored(tmp_path / name, make()), count) for name, count in (("a", 1), ("b<", 2))]
    text = write_report(folders).read_text(encoding="utf-8")

    assert "Incomplete: 1 of 2 planned evaluations of run b&lt; are recorded;" in text
    assert "of run b< are recorded;" in capsys.readouterr().err


def test_the_table_of_kernels_counts_all_records_whatever_families_are_shown():
    records = [make(family=f"f{n}", case=f"softmax/f{n}/4x4/s0", ratio=0.1) for n in range(FAMILIES + 30)]
    text = Page(page(*records)).text

    assert f"worst of {FAMILIES + 30} families" in text
    table = text[text.index("Kernels") : text.index("Where it breaks: kernels")]
    assert f"\n{FAMILIES + 30}" in table.replace("naive", "naive\n"), table


@pytest.mark.parametrize("name", ["report.html", "records.csv"])
def test_a_full_disk_is_told_from_a_page_that_is_misuse(name, tmp_path):
    folder = stored(tmp_path / "a", make())
    (folder / name).symlink_to("/dev/full")

    with pytest.raises(FullDiskError, match="cannot be written: No space left on device"):
        write_report([folder])


def test_the_command_ends_with_4_where_the_disk_is_full(tmp_path):
    folder = stored(tmp_path / "a", make())
    (folder / "report.html").symlink_to("/dev/full")
    result = CliRunner().invoke(cli, ["report", str(folder)])

    assert result.exit_code == 4
    assert "report.html' cannot be written: No space left on device; make room and ask again" in result.stderr


def test_a_page_that_cannot_be_written_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match=r"absent/page.html' cannot be written: "):
        write_report([stored(tmp_path / "a", make())], page=tmp_path / "absent" / "page.html")
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        write_report([tmp_path / "nowhere"])


@pytest.mark.parametrize("field", ["message", "output", "known"])
def test_text_that_is_no_unicode_does_not_stop_the_report(tmp_path, field):
    """Python keeps undecodable bytes of file names as lone surrogates; a kernel's error may well
    quote one.
    """
    folder = stored(tmp_path / "a", make(status="raised", **{field: "cannot open \udcff"}))

    assert write_report([folder]).is_file()


@pytest.mark.parametrize("verbose", [False, True])
def test_the_terminal_summary_names_each_kernel_and_the_reproduce_command(capsys, verbose):
    records = [*everything(), make(kernel="[red]mine[/red]", status="inaccurate", ratio=4.0)]
    print_summary(records, verbose=verbose, interrupted=True)
    text = capsys.readouterr().out

    assert "naive" in text
    assert "online" in text
    assert "[red]mine[/red]" in text
    assert "reproduce softmax-suite check" in text
    assert "Interrupted. This covers what had run: " in text


@pytest.mark.parametrize("value", [None, NAN, INF])
def test_the_terminal_summary_takes_any_number_and_no_records(capsys, value):
    print_summary(
        [make(ratio=value), make(ratio=value, status="inaccurate")], verbose=True, interrupted=False
    )
    print_summary([], verbose=False, interrupted=False)

    assert "Nothing was judged." in capsys.readouterr().out
