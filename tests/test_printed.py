"""What a process prints is given to the answer that it belongs to, however far ahead the process is."""

import os

import pytest

from suite.execution.printed import KEPT_BYTES, MARK, Printed


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield Printed(reading), writing
    os.close(reading)
    os.close(writing)


def test_each_answer_has_its_own_words_and_the_last_ones_are_nobodys(pipe):
    printed, writing = pipe
    os.write(writing, b"first" + MARK + MARK + b"third" + MARK + b"Fatal")

    assert [printed.of_answer(kept_bytes=100) for _ in range(3)] == ["first", "", "third"]
    assert printed.rest() == "Fatal"


def test_words_of_a_call_that_came_back_too_late_are_last_words(pipe):
    printed, writing = pipe
    os.write(writing, b"where it was" + MARK + b"more")

    assert printed.rest() == "where it was" + "more"


def test_a_mark_that_arrives_in_two_parts_is_one(pipe):
    printed, writing = pipe
    os.write(writing, b"a" + MARK[:7])
    printed.drain()
    os.write(writing, MARK[7:] + b"b")

    assert printed.of_answer(kept_bytes=100) == "a"
    assert printed.rest() == "b"


def test_of_a_flood_the_end_is_kept_and_the_rest_counted(pipe):
    printed, writing = pipe
    for _ in range(4):
        os.write(writing, b"x" * 10_000)
        assert printed.drain()
    os.write(writing, b"end" + MARK)

    assert printed.of_answer(kept_bytes=10) == f"[{40_003 - 10} bytes before this] xxxxxxxend"
    assert KEPT_BYTES < 10_000
