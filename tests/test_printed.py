"""What a process prints is given to the answer that it belongs to, however far ahead the process is."""

import os
import threading

import pytest

from suite.execution.printed import KEPT_BYTES, MARK, Printed


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    printed = Printed(reading)
    yield printed, writing
    printed.close()
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


def test_a_pipe_is_emptied_while_nobody_asks(pipe):
    printed, writing = pipe
    for _ in range(20):
        os.write(writing, b"x" * 50_000)  # would wait for ever where nobody reads
    os.write(writing, MARK)

    assert printed.of_answer(kept_bytes=10).endswith("x" * 10)


def test_closing_ends_the_reader_though_somebody_may_still_write():
    before = threading.active_count()
    reading, writing = os.pipe()
    printed = Printed(reading)
    assert threading.active_count() == before + 1
    printed.close()

    assert threading.active_count() == before
    os.close(reading)
    os.close(writing)


def test_a_reader_has_a_descriptor_of_its_own():
    """The number of one that its owner closed may be another file's at once, whose text is nobody's here."""
    reading, writing = os.pipe()
    printed = Printed(reading)
    os.close(reading)
    other_reading, other_writing = os.pipe()
    os.write(other_writing, b"not ours")
    os.write(writing, b"ours")
    assert other_reading == reading
    assert printed.rest() == "ours"
    printed.close()
    assert os.read(other_reading, 100) == b"not ours"
    for descriptor in (writing, other_reading, other_writing):
        os.close(descriptor)
