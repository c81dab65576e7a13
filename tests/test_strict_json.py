"""strict_json.py: the limits of what a stranger's document may be, at their edges."""

import pytest

from suite.strict_json import DEPTH, parse


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


@pytest.mark.parametrize("text", ['"\\ud800"', '"\ud800"', '"\\uDFFF x"', '{"\\ud83d": 1}', '["ä", "\\ud800"]'])
def test_lone_surrogates_are_no_text(text):
    with pytest.raises(ValueError, match=r"lone surrogate"):
        parse(text)


def test_pairs_of_surrogates_and_other_escapes_are_text():
    assert parse('"\\ud83d\\ude00 \\u00e4 \\\\ud800"') == "😀 ä \\ud800"
