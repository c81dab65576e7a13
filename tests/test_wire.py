"""Tensors through shared memory: values, strides, dtypes and alignment as they were, whichever side
makes the file larger.
"""

import errno
import os

import pytest
import torch

from suite.execution.wire import START, SharedMemory


@pytest.fixture
def sides():
    here = SharedMemory()
    there = SharedMemory(os.dup(here.file_descriptor))
    yield here, there
    here.close()
    there.close()


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(
        a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
    )


BASE = torch.arange(120.0).reshape(8, 15)
TENSORS = {
    "contiguous": BASE,
    "transposed": BASE.T,
    "every second": BASE[:, ::2],
    "off the start of its storage": BASE.reshape(-1)[3:][:60].reshape(6, 10),
    "rows with gaps": BASE[:, 1:9],
    "expanded": BASE[:1].expand(5, 15),
    "no entries": torch.empty(0, 7),
    "no entries, strided": torch.empty_strided((3, 0), (1, 3)),
    "no dims": torch.tensor(2.5),
    "one entry at an odd address": torch.arange(5, dtype=torch.uint8)[3:4],
    "bfloat16": BASE.bfloat16(),
    "float16 at an odd address": BASE.half().reshape(-1)[1:],
    "float64": BASE.double() / 3,
    "float8": BASE.to(torch.float8_e4m3fn),
    "integers": torch.tensor([-(2**62), -100, 3]),
    "booleans": BASE > 7,
    "NaN with a payload": torch.tensor([0x7FC12345, 0x7F800001, -1], dtype=torch.int32).view(torch.float32),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_a_tensor_arrives_as_it_was_down_to_its_alignment(tensor, sides):
    here, there = sides
    descriptions, _ = here.write([tensor])
    [read] = there.read(descriptions)

    assert same_bits(read, tensor)
    assert (read.shape, read.stride()) == (tensor.shape, tensor.stride())
    assert tensor.numel() == 0 or read.data_ptr() % 64 == tensor.data_ptr() % 64


def test_what_was_read_is_of_its_own_memory(sides):
    here, there = sides
    descriptions, _ = here.write([BASE])
    [first] = there.read(descriptions)
    first.zero_()
    [second] = there.read(descriptions)

    assert torch.equal(second, BASE)


def test_several_writes_lie_behind_each_other_and_the_flag_before_them(sides):
    here, there = sides
    first, end = here.write([BASE, BASE.T])
    second, last = here.write([2 * BASE], start=end)
    there.flag = True

    assert here.flag
    assert all(
        torch.equal(a, b) for a, b in zip(there.read(first + second), (BASE, BASE.T, 2 * BASE), strict=True)
    )
    assert START <= first[0]["start"] < first[1]["start"] < second[0]["start"] < last
    here.flag = False
    assert not there.flag


def test_either_side_may_make_the_file_larger(sides):
    here, there = sides
    for round, (writer, reader) in enumerate([(here, there), (there, here), (here, there)], start=1):
        tensor = torch.full((round * 100_000,), float(round))
        descriptions, end = writer.write([tensor])
        assert torch.equal(reader.read(descriptions)[0], tensor)
        assert os.fstat(here.file_descriptor).st_size >= end


def test_tensors_that_do_not_fit_together_are_written_one_behind_the_other(sides):
    here, there = sides
    tensors = [torch.full((50_000,), float(n)) for n in range(10)]
    descriptions, _ = here.write(iter(tensors))

    assert all(torch.equal(a, b) for a, b in zip(there.read(descriptions), tensors, strict=True))


def test_what_does_not_lie_in_the_memory_is_refused_not_made():
    memory = SharedMemory()
    size = os.fstat(memory.file_descriptor).st_size
    with pytest.raises(ValueError, match="beyond the shared memory"):
        memory.read([{"start": 2**40, "lead": 0, "shape": [3], "stride": [1], "dtype": "float32"}])
    assert os.fstat(memory.file_descriptor).st_size == size
    memory.close()


def test_a_side_that_may_not_make_it_larger_asks_the_other(sides):
    here, there = sides
    asked = []

    def refuse(size):
        raise OSError(errno.EFBIG, "File too large")

    def ask(size):
        asked.append(size)
        here.grow(size)

    there.grow = refuse
    there.ask = ask
    descriptions, _ = there.write([torch.ones(100_000)])

    assert len(asked) == 1
    assert torch.equal(here.read(descriptions)[0], torch.ones(100_000))
