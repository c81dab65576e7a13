"""strict_json.py: the limits of what a stranger's document may be, at their edges."""

import gzip
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.records import strict_json
from suite.records.strict_json import CHUNK_BYTES, DEPTH, lines, parse


def test_nesting_is_allowed_up_to_the_limit_and_no_further():
    deepest = "[" * DEPTH + "]" * DEPTH

    assert parse(deepest) == parse(deepest.encode())
    for text in (f"[{deepest}]", '{"a":' * DEPTH + "[]" + "}" * DEPTH):
        with pytest.raises(ValueError, match=r"nested deeper than 64 levels"):
            parse(text)


def test_brackets_in_text_and_side_by_side_nest_nothing():
    text = "[" * 1000

    assert parse(f'["{text}"]') == [text]
    assert parse(f"[{', '.join(['[{}]'] * 100)}]") == [[{}]] * 100


@pytest.mark.parametrize(
    "text", ['"\\ud800"', '"\ud800"', '"\\uDFFF x"', '{"\\ud83d": 1}', '["ä", "\\ud800"]']
)
def test_lone_surrogates_are_no_text(text):
    with pytest.raises(ValueError, match=r"lone surrogate"):
        parse(text)


def test_pairs_of_surrogates_and_other_escapes_are_text():
    assert parse('"\\ud83d\\ude00 \\u00e4 \\\\ud800"') == "😀 ä \\ud800"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """One file for many examples."""
    return tmp_path_factory.mktemp("lines") / "some.jsonl"


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=["a", "\n", " ", "\r", "\t", "ä"], max_size=40), st.integers(1, 9), st.booleans())
def test_lines_are_those_that_a_newline_ends_whatever_is_read_at_once(file, text, chunk, packed):
    """Numbered with the blank ones."""
    path = file.with_name(f"{file.name}.gz") if packed else file
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "CHUNK_BYTES", chunk)
        found = list(lines(path))

    assert found == [
        (number, line) for number, line in enumerate(text.encode().split(b"\n"), start=1) if line.strip()
    ]


@pytest.mark.parametrize("chunk", [7, 10, 11, 12, CHUNK_BYTES])
def test_a_longer_line_is_cut_behind_the_limit_and_the_next_one_is_whole(file, chunk, monkeypatch):
    monkeypatch.setattr(strict_json, "LINE_BYTES", 10)
    monkeypatch.setattr(strict_json, "CHUNK_BYTES", chunk)
    file.write_bytes(b"a" * 10 + b"\n" + b"b" * 11 + b"\n" + b"c" * 95 + b"\nd")

    assert list(lines(file)) == [(1, b"a" * 10), (2, b"b" * 11), (3, b"c" * 11), (4, b"d")]


def test_blank_lines_cost_no_more_than_others(file):
    """A file of nothing but line breaks, as a stranger may pack it, cost most of a second a megabyte."""
    file.write_bytes(b"\n" * 2**21)

    start = time.process_time()
    assert list(lines(file)) == []

    assert time.process_time() - start < 0.1
