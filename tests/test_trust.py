"""Records come from strangers: what is refused, what a page, a table and a terminal make of it, and
whose names it keeps.
"""

import ast
import copy
import csv
import functools
import gzip
import io
import json
import os
import platform
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.kernels import Kernel
from suite.records import schema
from suite.records.flat import changed, columns, flat
from suite.records.record import PASSING, STATUSES, Measurement, Record, published
from suite.records.regular_files import open_regular
from suite.records.store import Run
from suite.records.strict_json import DEPTH, LINE_BYTES, lines, parse
from suite.report import privacy, write_report
from suite.report.csv import write_csv
from suite.report.html import render
from suite.report.presentable import KERNELS, NOTICES
from suite.report.privacy import private
from suite.report.terminal import print_summary
from suite.report.visible import visible
from tests.test_report import Page, make, read_csv, stored
from tests.test_report_thresholds import made as made_thresholds

ROOT = Path(__file__).parent.parent
SUPERUSER = "root"
VALIDATORS = {
    name: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": published()["$defs"]})
    for name in ("record", "measurement", "result")
}


# The published schema


def test_the_published_schema_is_the_one_that_the_code_makes():
    """make it again: softmax-suite schema > docs/records.schema.json"""
    from suite.commands.main import cli

    text = (ROOT / "docs" / "records.schema.json").read_text(encoding="utf-8")

    assert json.loads(text) == published()
    assert CliRunner().invoke(cli, ["schema"]).output == text
    jsonschema.Draft202012Validator.check_schema(published())


def wrong_shape(x, dim=-1):
    return x[..., :1]


def raising(x, dim=-1):
    raise RuntimeError("no \udcff")


KERNELS_OF_EVERY_KIND = {
    "passed": Kernel(id="right", op="softmax", call=torch.softmax),
    "inaccurate": Kernel(id="wrong", op="softmax", call=lambda x, dim=-1: torch.softmax(x, dim) * 2),
    "nonfinite": Kernel(
        id="naive", op="softmax", call=lambda x, dim=-1: torch.softmax(x, dim) * float("nan")
    ),
    "raised": Kernel(id="raises", op="softmax", call=raising),
    "wrong_shape": Kernel(id="short", op="softmax", call=wrong_shape),
    "unsupported": Kernel(id="narrow", op="softmax", call=torch.softmax, dtypes=("float16",)),
}


@pytest.mark.parametrize("status", KERNELS_OF_EVERY_KIND)
def test_every_record_that_evaluate_makes_is_valid_and_is_read_back(status):
    record = evaluate(Case.from_id("softmax/normal/4x5/s0"), KERNELS_OF_EVERY_KIND[status])
    data = parse(record.to_json())

    assert record.status == status
    assert list(VALIDATORS["record"].iter_errors(data)) == []
    assert Record.from_dict(data).to_json() == record.to_json()


def test_what_check_writes_as_json_is_valid(tmp_path):
    from suite.commands.main import cli

    file = tmp_path / "r.json"
    CliRunner().invoke(
        cli,
        ["check", "--op", "softmax", "--kernel", "naive", "--dtype", "float32", "--case",
            "softmax/normal_small/8x257/s0",
              "--profile", "smoke", "--json", str(file)],
    )  # fmt: skip

    assert list(VALIDATORS["result"].iter_errors(parse(file.read_bytes()))) == []


some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["inf", "-inf", "nan", "passed", "crashed", 10**400, -1, 2**63, 2**63 - 1, 1e308, 1.0,
        10**308, 2**1024]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
NAMES = list(columns(Record))
mutations = st.lists(
    st.tuples(st.sampled_from([*NAMES, "id", "of a later version"]), some_json | st.just("delete")),
    max_size=4,
)


def mutated(data, changes):
    data = copy.deepcopy(data)
    for name, value in changes:
        if value == "delete":
            data.pop(name, None)
        else:
            data[name] = value
    return parse(json.dumps(data))


@settings(deadline=None, max_examples=150)
@given(mutations, st.sampled_from([*STATUSES, "known_failure"]))
def test_from_dict_and_the_schema_refuse_and_accept_the_same_records(changes, status):
    try:
        data = mutated(make(status=status, ratio=0.5, index=(1, 2), tiles={"16": "all"}).to_dict(), changes)
    except ValueError:  # NaN and numbers of more digits than Python reads are no JSON for us
        return
    try:
        record = Record.from_dict(data)
    except ValueError:
        assert not VALIDATORS["record"].is_valid(data)
        return
    assert list(VALIDATORS["record"].iter_errors(data)) == []
    assert VALIDATORS["record"].is_valid(parse(record.to_json()))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*(f.name for f in fields(Measurement)), "new"]), some_json | st.just("delete")
        ),
        max_size=3,
    )
)
def test_from_dict_and_the_schema_refuse_and_accept_the_same_measurements(changes):
    whole = Measurement(kind="thresholds", kernel="k", op="softmax", dtype="float32", data={})
    try:
        data = mutated(json.loads(whole.to_json()), changes)
    except ValueError:
        return
    try:
        Measurement.from_dict(data)
    except ValueError:
        assert not VALIDATORS["measurement"].is_valid(data)
        return
    assert VALIDATORS["measurement"].is_valid(data)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**400, -(10**400), True, "1.5", [1.0]], ids=lambda v: f"{v!r:.12}"
)
def test_a_real_number_is_a_finite_one_or_one_of_three_words(value):
    with pytest.raises(ValueError, match=r"bias_ulp=.* must be a number or one of inf, -inf, nan or null"):
        Record.from_dict({**make().to_dict(), "bias_ulp": value})


def test_a_type_without_a_schema_is_refused():
    with pytest.raises(TypeError, match="has no schema"):
        schema.of_type(set[int])


# Strict JSON


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' stands twice in one object"),
        ("[" * 200_000, f"nested deeper than {DEPTH} levels"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), f"nested deeper than {DEPTH} levels"),
        (r'{"a": "\udcff"}', "a lone surrogate, which is no text"),
        (r'{"\ud800": 1}', "a lone surrogate, which is no text"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7 is 0xff"),
        ('{"a": "\0"}', "control character"),
        ("\0", "Expecting value"),
        ("9" * 5000, "digits"),
        ("", "Expecting value"),
        ("{}{}", "Extra data"),
    ],
    ids=lambda v: f"{v!r:.16}",
)
def test_what_is_no_strict_json_is_a_value_error_that_says_why(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_a_document_longer_than_a_line_may_be_is_refused_unread():
    with pytest.raises(ValueError, match=f"longer than {LINE_BYTES:,} bytes"):
        parse(b'"' + b"a" * LINE_BYTES + b'"')


def test_what_other_tools_write_is_read():
    """A byte order mark, CRLF, escaped pairs of surrogates, as deep as we go."""
    assert parse(b'\xef\xbb\xbf{"a": 1}\r') == {"a": 1}
    assert parse(r'"\ud83d\ude00"') == "\N{GRINNING FACE}"
    assert parse("[" * DEPTH + "]" * DEPTH)[0] is not None


def test_only_a_line_feed_ends_a_line_and_a_long_line_is_not_kept(tmp_path):
    long = b"x" * (2 * LINE_BYTES + 5)
    path = tmp_path / "f"
    path.write_bytes(b"one\r\n\n" + "t\u2028wo\x0b\x0c\n".encode() + long + b"\nend")

    found = list(lines(path))

    assert [number for number, _ in found] == [1, 3, 4, 5]
    assert found[1][1].decode() == "t\u2028wo\x0b\x0c"
    assert len(found[2][1]) == LINE_BYTES + 1
    assert found[3][1] == b"end"


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    expected = {
        "pipe": "a named pipe, not a file",
        ".": "a folder, not a file",
        "loop": "cannot be opened: ",
        "no": "does not exist",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=message):
            open_regular(tmp_path / name)
    with pytest.raises(ValueError, match="a device, not a file"):
        open_regular(Path("/dev/zero"))
    with pytest.raises(ValueError, match=r"cannot be opened: .*null"):
        open_regular(Path("a\0b"))


# The page

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": "\"><img src=x onerror=alert(1)>' onmouseover='alert(1)",
    "cdata": "]]><svg onload=alert(1)><!-- --></style></title></pre></svg>",
    "template": "{{ 7*7 }}{% for x in y %}{# #}",
    "bidi": "\u202egnp.exe\u2066\u200b\ufeff",
    "control": "a\0b\x1b[31mred\x07\x7f\x9b",
    "url": "javascript:alert(1) https://example.org/\"onclick=alert(1) data:text/html,x",
    "mathtext": r"$\frac{1$ _x $\badcommand$ \$",
    "lines": "a\r\nb\u2028c\u2029d",
    "emoji": "😀𝔘漢",
}  # fmt: skip
FREE = [name for name, one in columns(Record).items() if str(one.field.type).startswith("str")]


def hostile_run(text):
    """A run with the text wherever a stranger can put one, records of every status."""
    texts = dict.fromkeys(FREE, text)
    nested = {
        "tiles": {text: text},
        "warnings": (text, text),
        "laws": (text,),
        "options": {text: text},
        "bitwise": {text: True},
    }
    failed = {
        "ratio": 3.0,
        "failed": 1,
        "entries": 4,
        "index": (0, 1),
        "worst_ulp": 4.0,
        "first_failing_column": 1,
    }
    records = [
        make(**{**failed, **texts, **nested, "status": status}) for status in (*STATUSES, "known_failure")
    ]
    records += [changed(record, index=None, dtype="float16", op="softmax") for record in records]
    environment = {"cpu": text, "packages": {text: text}, "libm": {text: text}, "device": [text], text: text}
    thresholds = replace(made_thresholds(text), data={**made_thresholds(text).data, "note": text})
    for entry in thresholds.data["saturation"]:
        entry["agrees_with"], entry["formulas"] = [text], {text: entry["measured"]}
    curve = {"gap": [1.0, 2.0], "exp_ulp": [0.5, 1.0], "allowed_u": [8.0, 9.0]}
    profile = Measurement(
        kind="exponential", kernel=text, op="softmax", dtype="float32", device=text,
        data={"findings": {"base": {"value": text, "text": text}}, "curve": curve},
    )  # fmt: skip
    reasons = [
        Measurement(
            kind=kind, kernel=text, op="softmax", dtype="float16", data={"reason": text}, device="cpu"
        )
        for kind in ("exponential", "thresholds")
    ]
    return Run(
        Path(text.replace("/", "_").replace("\0", "")),
        environment,
        tuple(records),
        (text,),
        (thresholds, profile, *reasons),
    )


@functools.cache
def harmless():
    return Page(render([hostile_run("plain"), hostile_run("other")]))


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_that_a_stranger_writes_becomes_a_tag_or_an_attribute(kind):
    text = render([hostile_run(HOSTILE[kind]), hostile_run("other")])
    parsed = Page(text)

    assert {tag for tag, _ in parsed.tags} <= {tag for tag, _ in harmless().tags}
    assert {(tag, name) for tag, given in parsed.tags for name in given} <= {
        (tag, name) for tag, given in harmless().tags for name in given
    }
    assert parsed.broken == []
    assert not {
        name
        for _, given in parsed.tags
        for name in given
        if name.startswith("on") or name in ("src", "action")
    }
    assert {given["href"][0] for _, given in parsed.tags if "href" in given} <= {"#"}
    assert "49" not in parsed.text.replace("149", "") or kind != "template"
    assert [c for c in set(text) if not c.isprintable() and c not in "\n\t"] == []


def test_the_policy_allows_nothing_but_the_pages_own_style():
    [policy] = [
        given["content"]
        for tag, given in harmless().tags
        if given.get("http-equiv") == "Content-Security-Policy"
    ]

    assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert {tag for tag, _ in harmless().tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
    )


def test_texts_of_a_megabyte_are_shortened_and_it_is_said():
    text = render([hostile_run("long " * 200_000)])

    assert len(text) < 500_000
    assert "998,001 characters left out" in text


def test_thousands_of_kernels_families_and_notices_leave_a_page_of_bounded_size():
    records = [
        make(kernel=f"k{n}", family=f"f{n}", dtype=f"d{n % 50}", case=f"softmax/f{n}/4x4/s0",
            numerics=f"n{n}",
             status=("inaccurate", "unsupported", "known_failure", "passed")[n % 4], known=f"why {n}",
             ratio=float(n))
        for n in range(3000)
    ]  # fmt: skip
    text = render([Run(Path("r"), {}, tuple(records), tuple(map(str, range(10_000))))])

    assert len(text) < 3_000_000
    assert (
        f"The tables show the {KERNELS} worst of 3,000 kernels; the records beside this page have them all."
        in text
    )
    assert f"{10_000 - NOTICES:,} more notices" in text
    assert "All 3,000 records" in text


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["exponential", "thresholds"]), st.data())
def test_measurements_of_any_content_are_shown_or_left_out_with_a_word(kind, data):
    whole = hostile_run("k").measurements[0 if kind == "thresholds" else 1]
    content = copy.deepcopy(whole.data)
    places = [content]
    for place in places:
        places += [
            inner
            for inner in (place.values() if isinstance(place, dict) else place)
            if isinstance(inner, dict | list)
        ]
    place = data.draw(st.sampled_from(places))
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    if keys:
        place[data.draw(st.sampled_from(keys))] = data.draw(some_json)
    measurement = Measurement.from_dict(json.loads(replace(whole, data=content).to_json()))

    assert Page(render([Run(Path("r"), {}, (make(),), (), (measurement,))])).broken == []


@settings(deadline=None, max_examples=20)
@given(
    st.dictionaries(
        st.sampled_from(["cpu", "packages", "libm", "gpu", "threads", "suite_version"]), some_json, max_size=3
    )
)
def test_any_environment_can_be_shown(environment):
    assert Page(render([Run(Path("r"), environment, (make(),), ())])).broken == []


# The table and the terminal


@pytest.mark.parametrize("start", [*"=+-@\t\r\n＝＋－＠", "'"])
def test_cells_of_text_that_begin_a_formula_get_an_apostrophe_and_are_read_back(tmp_path, start):
    text = f"{start}cmd|' /C calc'!A0"
    record = make(status="inaccurate", **dict.fromkeys([n for n in FREE if n != "status"], text))
    write_csv([record], tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as stream:
        [row] = csv.DictReader(stream)
    [again] = read_csv(tmp_path / "r.csv").to_dict("records")

    for name in FREE:
        assert not row[name].startswith(tuple("=+-@\t\r\n＝＋－＠"))
        assert row[name].removeprefix("'") == flat(record)[name]
        assert again[name].removeprefix("'") == flat(record)[name]


def test_numbers_stay_numbers(tmp_path):
    record = make(ratio=float("-inf"), bias_ulp=-0.5, seed=-3, got="-1.5e-300", expected="-inf", index=(0,))
    write_csv([record, make(got="-1+2", expected="-")], tmp_path / "r.csv")
    table = read_csv(tmp_path / "r.csv")

    assert table["ratio"][0] == float("-inf")
    assert (table["bias_ulp"][0], table["seed"][0]) == (-0.5, -3)
    assert (table["got"][0], table["expected"][0]) == ("-1.5e-300", "-inf")
    assert (table["got"][1], table["expected"][1]) == ("'-1+2", "'-")


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=8), st.text(max_size=8))
def test_no_text_makes_another_row_or_another_column(tmp_path_factory, kernel, message):
    path = tmp_path_factory.mktemp("c") / "r.csv"
    write_csv([make(kernel=kernel, message=message), make()], path)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))

    assert [len(row) for row in rows] == [len(columns(Record)) + 1] * 3
    assert rows[1][5].removeprefix("'") == kernel.replace("\0", "\\0")


@pytest.mark.parametrize("verbose", [False, True])
def test_no_control_character_reaches_the_terminal(capsys, verbose):
    text = "\x1b[2J\x1b]0;owned\x07\x9b1A\r\u202e\0"
    records = [
        make(
            status="crashed",
            **dict.fromkeys([n for n in FREE if n not in ("status", "op")], text),
            warnings=(text,),
        )
    ]
    print_summary(records, verbose=verbose, interrupted=False)
    shown = capsys.readouterr().out

    assert r"\x1b[2J\x1b]0;owned\x07\x9b1A\r\u202e\x00" in shown
    assert [c for c in shown if not c.isprintable() and c != "\n"] == []


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=30), st.integers(3, 20))
def test_visible_text_is_printable_and_bounded_and_printable_text_is_untouched(text, limit):
    shown = visible(text, limit=limit, lines=False)

    assert shown.isprintable()
    assert len(shown) <= 10 * limit + 50
    assert shown == text or len(text) > limit or not text.isprintable()


# Whose names


@pytest.fixture
def quokka(monkeypatch):
    """A machine called zebra9.example.com whose user quokka lives in /srv/people/quokka."""
    monkeypatch.setattr(platform, "node", lambda: "zebra9.example.com")
    monkeypatch.setattr(privacy, "_home", lambda: "/srv/people/quokka")
    monkeypatch.setattr(privacy.getpass, "getuser", lambda: "quokka")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "softmax-suite check --kernel /home/jane/k.py:f --op softmax",
            "softmax-suite check --kernel ~/k.py:f --op softmax",
        ),
        ("--input '/home/jane/my data/x.npz'", "--input '~/my data/x.npz'"),
        ("at /Users/jane.doe/k.py:3", "at ~/k.py:3"),
        (r"C:\Users\Jane Doe\k.py", r"~\k.py"),
        (r"'C:\\Users\\jane\\k.py'", r"'~\\k.py'"),
        ("c:/Users/jane", "~"),
        ("/mnt/c/Users/jane/k.py", "~/k.py"),
        ("/var/home/jane/k.py, /export/home/jane", "~/k.py, ~"),
        ("file:///home/jane/k.py", "file:~/k.py"),
        (f"/{SUPERUSER}/k.py and /{SUPERUSER}", "~/k.py and ~"),
        ("//home//jane/x", "~/x"),
        ("/srv/people/quokka/k.py", "~/k.py"),
        ("/scratch/quokka/k.py", "/scratch/USER/k.py"),
        ("/scratch/quokka", "/scratch/USER"),
        ("in /scratch/quokka, or /scratch/quokka.", "in /scratch/USER, or /scratch/USER."),
        (r"D:\scratch\quokka\k.py", r"D:\scratch\USER\k.py"),
        ("/scratch/quokka.py /scratch/quokka-2", "/scratch/quokka.py /scratch/quokka-2"),
        (r"\\nas\home\bob\k.py", r"~\k.py"),
        (r"'\\\\nas\\Users\\bob\\k.py'", r"'~\\k.py'"),
        ("/data/a/b/c/d/e/home/bob/k.py", "~/k.py"),
        ("see https://h/x,/home/bob/secret", "see https://h/x,~/secret"),
        ("see https://h/x;/home/bob (https://h/a,b/home/bob)", "see https://h/x;~ (https://h/a,b/home/bob)"),
        ("/home/o'brien/x and '/home/jane' and '/home/jane', '/x'", "~/x and '~' and '~', '/x'"),
        ("quokka@zebra9: no space", "USER@HOST: no space"),
        ("zebra9.example.com, ZEBRA9", "HOST, HOST"),
        ("src/home/layout.py:f", "src/home/layout.py:f"),
        ("https://example.org/home/page (known.txt:1)", "https://example.org/home/page (known.txt:1)"),
        (
            f"square root of a row, /rooted/x, data/{SUPERUSER}/x",
            f"square root of a row, /rooted/x, data/{SUPERUSER}/x",
        ),
        ("a quokka, zebra99 and zebra9-b", "a quokka, zebra99 and zebra9-b"),
        ("softmax/normal/4x4/s0", "softmax/normal/4x4/s0"),
    ],
)
@pytest.mark.usefixtures("quokka")
def test_home_directories_users_and_hosts_are_not_shown(text, shown):
    assert private(text) == shown
    assert private(shown) == shown


@pytest.mark.parametrize("host", ["localhost", "", "ab", "softmax", "CPU"])
def test_a_host_name_that_tells_nothing_is_left_in_the_text(monkeypatch, host):
    monkeypatch.setattr(platform, "node", lambda: host)

    assert private(f"softmax on the {host} ab cpu") == f"softmax on the {host} ab cpu"


SECRET = "/home/jane/k.py and quokka@zebra9 in /srv/people/quokka/x"


@pytest.mark.usefixtures("quokka")
def test_a_report_names_nobody_unless_asked(tmp_path):
    """In no field, no nested one, no figure, no notice, no fact of the machine; and what is asked
    for is all there.
    """
    whole = hostile_run(SECRET)
    assert "jane" in render([whole], show_paths=True)
    for word in ("jane", "quokka", "zebra9"):
        assert word not in render([whole])
    folder = stored(tmp_path / "a", *whole.records)
    write_report([folder])
    written = [(folder / name).read_text(encoding="utf-8") for name in ("report.html", "records.csv")]
    write_report([folder], show_paths=True)
    asked = [(folder / name).read_text(encoding="utf-8") for name in ("report.html", "records.csv")]

    assert [word for text in written for word in ("jane", "quokka", "zebra9") if word in text] == []
    assert [word for text in asked for word in ("jane", "quokka", "zebra9") if word not in text] == []
    assert "jane" in next(folder.glob("records-*.jsonl")).read_text(encoding="utf-8")


@pytest.mark.usefixtures("quokka")
def test_the_command_shows_paths_only_when_asked(tmp_path):
    from suite.commands.main import cli

    folder = stored(tmp_path / "a", make(kernel="/home/jane/k.py:f", status="crashed"))

    assert CliRunner().invoke(cli, ["report", str(folder)]).exit_code == 0
    assert "jane" not in (folder / "report.html").read_text(encoding="utf-8")
    assert CliRunner().invoke(cli, ["report", str(folder), "--show-paths"]).exit_code == 0
    assert "/home/jane/k.py:f" in (folder / "report.html").read_text(encoding="utf-8")


PUBLISHED = sorted(path for path in (ROOT / "reports").rglob("*") if path.is_file())


@pytest.mark.share(of=4)
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_published_reports_name_nobody(path):
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = content.decode("utf-8")

    assert private(text) == text


# No code in data


def test_no_module_loads_code_out_of_data():
    """No pickle in any of its dresses, no evaluation of text; numpy's loader only with its pickle
    switched off.
    """
    forbidden = {
        "pickle",
        "_pickle",
        "cPickle",
        "cloudpickle",
        "dill",
        "joblib",
        "marshal",
        "shelve",
        "yaml",
        "jsonpickle",
    }
    found = []
    for path in sorted((ROOT / "suite").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                safe = any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords)
                if called in (
                    "eval",
                    "exec",
                    "builtins.eval",
                    "builtins.exec",
                    "torch.load",
                    "torch.jit.load",
                ) or (called in ("np.load", "numpy.load") and not safe):
                    names = ["eval"]
            found += [f"{path}:{node.lineno}" for name in names if name in {*forbidden, "eval"}]
    assert found == []


def test_a_status_that_is_no_pass_is_never_shown_as_one():
    for status in STATUSES:
        text = Page(render([Run(Path("r"), {}, (make(status=status),), ())])).text
        assert ("passed all of" in text) == (status == "passed"), status
    assert "passed" in PASSING


def test_a_stream_of_records_is_no_formula(tmp_path):
    """The header has no cell that begins one either."""
    write_csv([], tmp_path / "r.csv")
    [header] = csv.reader(io.StringIO((tmp_path / "r.csv").read_text(encoding="utf-8")))

    assert [name for name in header if not name.isidentifier()] == []
