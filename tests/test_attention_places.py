"""Where attention is wrong: the words for heads, queries and blocks of keys, and the call with
marked values behind them.
"""

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.kernels import Kernel
from suite.ops import get_op
from suite.ops.attention import places
from suite.oracle import Oracle
from tests.attention_kernels import Attention, online, shifted

ORACLE = Oracle(remembered=100)
ATTENTION = get_op("attention")


def record_of(kernel, *, shape=(1, 2, 20, 16), dtype="float32", family="normal", options=None, **tensors):
    case = Case(op="attention", family=family, shape=shape, tensors=tensors, options=options or {})
    return evaluate(case, Kernel(id="k", op="attention", call=kernel), dtype=dtype, oracle=ORACLE)


# keys, by a marked call


def scores_doubled_from(first, last=None):
    """Keys first to last have twice their score."""

    def kernel(q, k, v, **given):
        changed = k.clone()
        changed[:, :, first:last] *= 2
        return shifted(q, changed, v, **given)

    return kernel


def without_keys(first, last):
    """Keys first to last are not seen."""

    def kernel(q, k, v, **given):
        seen = torch.ones(k.shape[2], dtype=torch.bool)
        seen[first:last] = False
        return shifted(q, k, v, mask=seen[None], **given)

    return kernel


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_errors_begin_at_the_key_that_the_kernel_is_wrong_from(dtype):
    """Behind key 128 values are in the wrong order; the sum of weights is right, so those before it
    are too.
    """

    def kernel(q, k, v, **given):
        order = torch.arange(k.shape[2])
        order[128:] = order[128:].flip(0)
        return shifted(q, k, v[:, :, order], **given)

    record = record_of(kernel, dtype=dtype, keys=300)
    assert record.status == "inaccurate"
    assert record.judgement.tiles["key"].startswith("errors begin at key 128: ")
    assert f"  in keys   {record.judgement.tiles['key']}" in record.message.splitlines()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_that_are_wrong_from_key_128_on_are_found(dtype):
    record = record_of(scores_doubled_from(128), keys=256, shape=(1, 1, 6, 16), dtype=dtype)
    assert record.judgement.tiles["key"].startswith("errors begin at key 128")


def test_a_lost_block_of_keys_is_found():
    record = record_of(without_keys(64, 128), keys=256, shape=(1, 1, 6, 16))
    assert record.judgement.tiles["key"].startswith(
        "errors begin at key 64: 4 of 16 blocks of 16 keys have wrong weights, keys 64..79"
    )


def test_the_blocks_that_are_wrong_are_counted_and_named():
    def swapped(q, k, v, **given):
        order = torch.arange(k.shape[2])
        order[[20, 70, 120]] = order[[70, 120, 20]]
        return shifted(q, k, v[:, :, order], **given)

    record = record_of(swapped, keys=250)
    assert (
        record.judgement.tiles["key"]
        == "errors begin at key 16: 3 of 16 blocks of 16 keys have wrong weights, keys 16..31, 64..79,"
        " 112..127"
    )
    assert f"  in keys   {record.judgement.tiles['key']}" in record.message.splitlines()


def test_a_fault_that_every_weight_shares_is_in_all_blocks():
    record = record_of(lambda q, k, v, **given: 1.01 * shifted(q, k, v, **given), keys=250)
    assert record.judgement.tiles["key"] == "all 16 blocks of 16 keys have wrong weights"


def test_a_fault_of_the_values_alone_is_said_to_be_one():
    """Right for values of 0 and 1: those of 8 bits."""

    def coarse(q, k, v, **given):
        return shifted(q, k, v.to(torch.float8_e4m3fn).float(), **given)

    record = record_of(coarse, keys=250)
    assert record.status == "inaccurate"
    assert (
        record.judgement.tiles["key"]
        == "every block of keys has the right weight: what is wrong lies in the values, or in how they are"
        " summed"
    )


def test_a_kernel_that_passes_is_not_asked_once_more():
    calls = []

    def kernel(q, k, v, **given):
        calls.append(v)
        return shifted(q, k, v, **given)

    record = record_of(kernel)
    assert record.status == "passed"
    assert "key" not in record.judgement.tiles
    assert len(calls) == 1


def test_a_kernel_that_fails_is_asked_once_more_with_all_else_as_it_was():
    calls = []

    def kernel(q, k, v, **given):
        calls.append((q, k, v, given))
        return 2 * shifted(q, k, v, **given)

    record_of(
        kernel, options={"causal": "bottom_right", "softcap": 4.0}, mask="random", sink="normal", keys=40
    )
    (q, k, v, given), (q_marked, k_marked, v_marked, given_marked) = calls
    assert torch.equal(q, q_marked)
    assert torch.equal(k, k_marked)
    assert torch.equal(given["mask"], given_marked["mask"])
    assert torch.equal(given["sink"], given_marked["sink"])
    assert (given["causal"], given["softcap"]) == (given_marked["causal"], given_marked["softcap"])
    assert v_marked.shape == v.shape
    assert torch.equal(v_marked.sum(-1), torch.ones(1, 2, 40))
    assert torch.equal(v_marked.argmax(-1)[0, 0], torch.arange(40) // 16)


@pytest.mark.parametrize("error", [NotImplementedError, RuntimeError])
def test_a_kernel_that_does_not_answer_the_marked_call_keeps_its_verdict(error):
    calls = []

    def kernel(q, k, v, **given):
        calls.append(v)
        if len(calls) > 1:
            raise error("enough")
        return 2 * shifted(q, k, v, **given)

    record = record_of(kernel)
    assert record.status == "inaccurate"
    assert len(calls) == 2
    assert "key" not in record.judgement.tiles
    assert "in keys" not in record.message


def test_nan_in_the_marked_call_is_wrong_where_it_is():
    def kernel(q, k, v, **given):
        output = 2 * shifted(q, k, v, **given)
        return torch.where(
            v.max() == 1, shifted(q, k, v, **given).masked_fill(torch.arange(16) == 3, torch.nan), output
        )

    assert (
        record_of(kernel, keys=100).judgement.tiles["key"].startswith("errors begin at key 48: 1 of 7 blocks")
    )


def test_a_wrong_log_sum_exp_beside_a_right_output_is_not_blamed_on_the_values():
    def kernel(q, k, v, **given):
        output, lse = shifted(q, k, v, **given)
        return output, 1.01 * lse

    record = record_of(kernel, options={"return_lse": True})
    assert record.status == "inaccurate"
    assert "lies in the values" not in record.message


@pytest.mark.parametrize(
    ("keys", "columns", "width"),
    [(1, 1, 16), (16, 1, 16), (17, 1, 32), (300, 16, 32), (256, 16, 16), (4097, 64, 128)],
)
def test_blocks_are_the_narrowest_that_the_columns_can_tell_apart(keys, columns, width):
    marked, found = places.blocks(np.zeros((2, 3, keys, columns)))

    assert found == width
    assert marked.shape == (2, 3, keys, columns)
    assert np.array_equal(marked.sum(axis=3), np.ones((2, 3, keys)))
    assert np.array_equal(marked[1, 2].argmax(axis=1), np.arange(keys) // width)


def test_the_words_of_a_call_whose_last_block_is_incomplete():
    failed = np.zeros((5, 16), dtype=bool)
    failed[3, 6] = True
    assert (
        places.keys(failed, np.ones((5, 16)), np.ones((5, 16)), 16, 100)
        == "errors begin at key 96: 1 of 7 blocks of 16 keys have wrong weights, keys 96..99"
    )
    failed[:, 7:] = True  # columns that mark no key
    assert places.keys(failed, np.ones((5, 16)), np.ones((5, 16)), 16, 100).startswith(
        "errors begin at key 96: 1 of 7 blocks"
    )


# heads and queries, from the output


def in_words(wrong, *, shape=(2, 3, 40, 8), keys=9):
    """What the judge says of an output [B, H, L] of which these queries fail."""
    batches, heads, length, size = shape
    inputs = {
        "q": np.zeros(shape),
        "k": np.zeros((batches, heads, keys, size)),
        "v": np.zeros((batches, heads, keys, size)),
    }
    problem = ATTENTION.problem(
        inputs, ATTENTION.resolve_options({}, {name: x.shape for name, x in inputs.items()})
    )
    failed = np.zeros((batches, heads, length), dtype=bool)
    failed[wrong] = True
    return places.rows(np.repeat(failed.reshape(-1, 1), size, axis=1), problem)


EVERY = slice(None)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((EVERY, EVERY, EVERY), {}),
        ((0, 0, slice(0)), {}),
        ((1, 2, EVERY), {"head": "in 1 of 6 heads (batch entry by batch entry): 5"}),
        ((EVERY, 1, EVERY), {"head": "in 2 of 6 heads (batch entry by batch entry): 1, 4"}),
        ((EVERY, EVERY, slice(17, None)), {"query": "errors begin at query 17: in all from there on"}),
        ((EVERY, EVERY, 39), {"query": "errors begin at query 39: in all from there on"}),
        ((EVERY, EVERY, slice(15, None, 16)), {"query": "in every query at 15 (mod 16)"}),
        ((EVERY, EVERY, slice(0, None, 32)), {"query": "in every query at 0 (mod 32)"}),
        ((EVERY, EVERY, [3, 7, 8]), {"query": "in 3 of 40 queries: 3, 7, 8"}),
        ((EVERY, EVERY, slice(0, 20)), {"query": "in 20 of 40 queries: 0, 1, 2, 3, 4, 5, ..."}),
        (
            (0, 2, slice(30, None)),
            {
                "head": "in 1 of 6 heads (batch entry by batch entry): 2",
                "query": "errors begin at query 30: in all from there on",
            },
        ),
    ],
)
def test_heads_and_queries_are_named_where_they_are_not_all(wrong, words):
    assert in_words(wrong) == words


def test_each_of_many_heads_counts_once():
    assert (
        in_words((EVERY, slice(8), EVERY), shape=(1, 16, 2, 1))["head"]
        == "in 8 of 16 heads (batch entry by batch entry): 0, 1, 2, 3, 4, 5, ..."
    )


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda o: o[:, 1:2], "head", "in 1 of 2 heads (batch entry by batch entry): 1"),
        (lambda o: o[:, :, 12:], "query", "errors begin at query 12: in all from there on"),
        (lambda o: o[:, :, ::16], "query", "in every query at 0 (mod 16)"),
    ],
)
def test_a_kernel_with_a_fault_there_has_it_in_its_message(change, kind, words):
    def kernel(q, k, v, **given):
        output = shifted(q, k, v, **given)
        change(output).mul_(1.5)
        return output

    record = record_of(kernel)
    assert record.judgement.tiles[kind] == words
    assert words in record.message


def test_a_rescale_that_is_lost_at_the_second_block_begins_at_its_first_key():
    """FlashAttention's classic: the output so far is not rescaled when the maximum grows, so the
    keys before weigh too much.
    """

    def step(state, tile, value):
        m, total, o = state
        larger = torch.maximum(m, tile.amax(-1, keepdim=True))
        e = torch.exp(tile - larger)
        return larger, total * torch.exp(m - larger) + e.sum(-1, keepdim=True), o + e @ value

    record = record_of(Attention(fold=online(block=64, step=step)), keys=128)
    assert record.status == "inaccurate"
    assert (
        record.judgement.tiles["key"]
        == "errors begin at key 0: 4 of 8 blocks of 16 keys have wrong weights, keys 0..15, 16..31, 32..47,"
        " 48..63"
    )
