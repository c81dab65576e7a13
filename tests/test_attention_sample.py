"""Sampled rows: which queries of a long attention are judged, and what is seen of the others."""

import math

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.formats import get_format
from suite.kernels import Kernel
from suite.numerics import BEST_PRACTICE
from suite.ops import get_op
from suite.ops.attention import sample
from suite.ops.attention.sample import FEWEST, sampled_rows
from suite.oracle import Oracle
from suite.verdict.judge import judge_outputs
from tests.attention_kernels import shifted

ORACLE = Oracle(remembered=100)
ATTENTION = get_op("attention")


@pytest.fixture
def short(monkeypatch):
    """What is long is 2^12 scores, and about 2^11 are judged: one head of 128 queries and keys has
    16 of them judged.
    """
    monkeypatch.setattr(sample, "WHOLE", 2**12)
    monkeypatch.setattr(sample, "SAMPLED", 2**11)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def q_and_k(*, batches=1, heads=1, groups=1, length=128, keys=128, size=4, seed=0):
    return drawn(batches, heads, length, size, seed=seed), drawn(batches, groups, keys, size, seed=seed + 100)


def test_up_to_the_limit_every_query_is_judged():
    count = math.isqrt(sample.WHOLE)

    assert np.array_equal(
        sampled_rows(np.zeros((1, 1, count, 1)), np.zeros((1, 1, count, 1))), np.arange(count)
    )
    beyond = sampled_rows(np.zeros((1, 1, count + 1, 1)), np.zeros((1, 1, count, 1)))
    assert len(beyond) < count


def test_few_queries_are_judged_whole_however_many_keys_there_are():
    query, key = np.zeros((1, 1, FEWEST, 1)), np.zeros((1, 1, sample.WHOLE, 1))
    assert np.array_equal(sampled_rows(query, key), np.arange(FEWEST))


@pytest.mark.parametrize("length", [2048, 2500, 8192])
def test_the_sample_of_one_head_has_the_ends_the_tile_edges_and_the_hardest(length):
    query, key = q_and_k(length=length, keys=sample.WHOLE // 2048 + 1, size=2)
    query[0, 0, 777] *= 50
    rows = sampled_rows(query, key)

    assert np.array_equal(rows, np.unique(rows))
    assert {0, length - 1} <= set(rows)
    last_tiles = {length // tile * tile - side for tile in sample.TILES for side in (0, 1)} - {length}
    assert {tile - side for tile in sample.TILES for side in (0, 1)} | last_tiles <= set(rows)
    assert 777 in rows


def test_the_hardest_are_those_of_the_widest_spread_and_of_the_largest_score(short):
    query, key = q_and_k()
    key[:, :, :, 0] = 10 + key[:, :, :, 0]  # entry 0 shifts all scores of a query, entry 1 spreads them
    query[...] = 0.01 * query
    query[0, 0, 41, 0], query[0, 0, 42, 1] = 9.0, 20.0

    assert {41, 42} <= set(sampled_rows(query, key))


def test_the_hardest_of_a_head_are_sought_with_its_own_keys(short):
    query, key = q_and_k(batches=2, heads=4, groups=2, length=300)
    key[..., 0] = 0.0
    key[1, 1, :, 0] = drawn(128, seed=7)
    query[..., 100, :] = 0.01 * query[..., 100, :]
    query[..., 100, 0] = 100.0  # tells in the heads of batch entry 1 that read key head 1: heads 2 and 3
    rows = set(sampled_rows(query, key))

    flat = [head * 300 + 100 for head in range(8)]
    assert {flat[6], flat[7]} <= rows
    assert not {flat[0], flat[4]} <= rows


@pytest.mark.parametrize("heads", [4, 32])
def test_every_head_has_its_own_sample(short, heads):
    query, key = q_and_k(batches=2, heads=heads, groups=2, length=200)
    rows = sampled_rows(query, key)
    by_head = [set(rows[rows // 200 == head] % 200) for head in range(2 * heads)]

    assert all(len(own) >= FEWEST for own in by_head)
    assert len({len(own) for own in by_head}) == 1
    assert all({0, 199} <= own for own in by_head)
    assert len({frozenset(own) for own in by_head}) == 2 * heads


def test_heads_share_the_tile_edges_where_one_has_no_room_for_all(short):
    query, key = q_and_k(heads=4, length=2000)
    rows = sampled_rows(query, key) % 2000
    edges = {edge - side for tile in sample.TILES for edge in (tile, 2000 // tile * tile) for side in (0, 1)}
    assert len(edges & set(rows)) > FEWEST


def test_the_same_inputs_have_the_same_sample_and_another_seed_has_another():
    shape = {"length": 4096, "keys": 2048, "size": 2}
    first, again, other = (set(sampled_rows(*q_and_k(**shape, seed=seed))) for seed in (0, 0, 1))

    assert first == again
    assert len(first & other) < 0.3 * len(first)


def test_many_seeds_reach_every_query(short):
    """16 of 128 at a time, 4 to 8 of them drawn: after 200 seeds a query is left out with a chance
    of (124/128)^200 < 0.2 %.
    """
    reached = set()
    for seed in range(200):
        reached |= set(sampled_rows(*q_and_k(size=1, seed=seed)))
    assert len(reached) >= 126


def test_inputs_that_are_not_finite_have_a_sample_too(short):
    query, key = q_and_k()
    query[0, 0, 3], query[0, 0, 5], key[0, 0, 9] = np.nan, np.inf, -np.inf
    rows = sampled_rows(query, key)
    assert {0, 127} <= set(rows)
    assert len(rows) == 16


def test_no_query_at_all_and_one_key(short):
    assert len(sampled_rows(np.zeros((1, 1, 0, 4)), np.zeros((1, 1, 9, 4)))) == 0
    assert len(sampled_rows(np.zeros((1, 1, 5000, 4)), np.zeros((1, 1, 1, 4)))) == 2048


# The judge with a sample


def inputs_of(*, batches=1, heads=2, groups=1, length=90, keys=70, size=8, seed=0):
    shapes = {
        "q": (batches, heads, length, size),
        "k": (batches, groups, keys, size),
        "v": (batches, groups, keys, size),
    }
    tensors = {
        name: torch.from_numpy(drawn(*shape, seed=seed + i)).float()
        for i, (name, shape) in enumerate(shapes.items())
    }
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def called(inputs, **options):
    q, k, v = (torch.from_numpy(inputs[name]).float() for name in "qkv")
    further = {name: torch.from_numpy(np.asarray(x)) for name, x in inputs.items() if name not in "qkv"}
    output = shifted(q, k, v, **further, **options)
    return tuple(x.double().numpy() for x in (output if isinstance(output, tuple) else (output,)))


def judged(inputs, outputs, **options):
    shapes = {name: x.shape for name, x in inputs.items()}
    resolved = ATTENTION.resolve_options({"enable_gqa": True, **options}, shapes)
    references = Oracle().references(ATTENTION, inputs, resolved, get_format("float32"))
    found = judge_outputs(
        ATTENTION, references, outputs, shapes, resolved, get_format("float32"), BEST_PRACTICE
    )
    return found, references[0].problem.rows


def test_the_judgement_of_a_sample_is_that_of_the_whole_at_its_rows(monkeypatch):
    inputs = inputs_of()
    (output,) = called(inputs)
    output[0, 1, 89] *= 1.01
    output[0, 0, :20] += 1e-4
    whole, _ = judged(inputs, (output,))
    monkeypatch.setattr(sample, "WHOLE", 2**10)
    monkeypatch.setattr(sample, "SAMPLED", 2**11)
    some, rows = judged(inputs, (output,))

    assert FEWEST * 2 <= len(rows) < 100
    assert some.row_status == tuple(whole.row_status[row] for row in rows)
    assert {"inaccurate", "passed"} == set(some.row_status)
    assert some.entries == 8 * len(rows)
    assert some.worst.index == whole.worst.index == (0, 1, 89, some.worst.column)
    assert (some.worst.expected, some.worst.lower, some.worst.upper) == (
        whole.worst.expected,
        whole.worst.lower,
        whole.worst.upper,
    )


def test_every_option_is_that_of_the_sampled_queries(short):
    """Masks, positions, slopes, sinks and lengths are taken along with their rows."""
    inputs = inputs_of(batches=2, heads=4, groups=2, length=80)
    generator = np.random.default_rng(5)
    inputs |= {
        "mask": generator.random((2, 4, 80, 70)) > 0.3,
        "alibi_slopes": np.array([0.5, 0.25, 0.125, 0.0]),
        "sink": np.array([0.5, -1.0, 3.0, -np.inf]),
        "kv_lengths": np.array([70, 33]),
    }
    options = {"causal": "bottom_right", "window": (40, 3), "softcap": 5.0, "return_lse": True}
    found, rows = judged(inputs, called(inputs, **options), **options)

    assert found.passed, found.message
    assert len(rows) < 640
    moved = dict(inputs, mask=np.roll(inputs["mask"], 1, axis=2))
    assert not judged(inputs, called(moved, **options), **options)[0].passed


def unsampled(inputs, **options):
    """A query of each head that is not in the sample."""
    problem = ATTENTION.problem(
        inputs, ATTENTION.resolve_options({"enable_gqa": True, **options}, shapes_of(inputs))
    )
    batches, heads, length, _ = inputs["q"].shape
    others = np.setdiff1d(np.arange(batches * heads * length), problem.rows)
    return np.unravel_index(others[len(others) // 2], (batches, heads, length))


def shapes_of(inputs):
    return {name: x.shape for name, x in inputs.items()}


@pytest.mark.parametrize(
    ("value", "status"),
    [(math.nan, "nonfinite"), (math.inf, "nonfinite"), (-math.inf, "nonfinite"), ("twice", "inaccurate")],
)
def test_what_cannot_be_right_is_seen_in_every_row(short, value, status):
    inputs = inputs_of()
    (output,) = called(inputs)
    place = (*unsampled(inputs), 3)
    largest = np.abs(inputs["v"]).max(axis=2)[0, 0, 3]
    assert judged(inputs, (output,))[0].passed

    output[place] = -2.0001 * largest if value == "twice" else value
    found, _ = judged(inputs, (output,))
    assert (found.status, found.broken) == (status, (status,))
    assert (
        f"1 entries cannot be right whatever the reference, the first at index {[int(i) for i in place]}"
        in found.message
    )
    output[place] = 1.9999 * largest
    assert judged(inputs, (output,))[0].passed


def test_the_largest_value_is_that_of_the_column_and_of_the_heads_own_keys(short):
    inputs = inputs_of(heads=4, groups=2)
    inputs["v"][0, 0] *= 100
    inputs["v"][0, 1, :, 3] /= 100
    place = unsampled(inputs)
    for head, column, caught in ((0, 2, False), (1, 3, False), (2, 2, True), (3, 3, True)):
        (output,) = called(inputs)
        factor = 0.5 if head > 1 and column == 3 else 20
        output[0, head, place[2], column] = factor
        rows = ATTENTION.problem(
            inputs, ATTENTION.resolve_options({"enable_gqa": True}, shapes_of(inputs))
        ).rows
        assert head * 90 + place[2] not in rows
        assert judged(inputs, (output,))[0].passed is not caught


def test_where_an_input_is_not_finite_a_result_may_be(short):
    inputs = inputs_of()
    for name, value in (("v", math.inf), ("k", math.nan)):
        hostile = {n: x.copy() for n, x in inputs.items()}
        hostile[name][0, 0, 5, 2] = value
        assert judged(hostile, called(hostile))[0].passed


def test_a_query_that_is_not_finite_and_not_in_the_sample_has_a_nan(short):
    inputs = inputs_of()
    inputs["q"][unsampled(inputs)] = math.nan
    assert judged(inputs, called(inputs))[0].passed


@pytest.mark.parametrize("name", ["sink", "mask"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_sink_or_a_mask_that_is_not_finite_gives_a_nan(short, name, value):
    inputs = inputs_of()
    inputs |= {"sink": np.zeros(2)} if name == "sink" else {"mask": np.zeros((1, 2, 90, 70))}
    _, head, query = unsampled(inputs)
    if name == "sink":
        inputs["sink"][head] = value
    else:
        inputs["mask"][0, head, query, 7] = value
    assert judged(inputs, called(inputs))[0].passed


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
    ],
)
def test_a_log_sum_exp_that_cannot_be_right_is_seen_in_every_row(short, value):
    inputs = inputs_of()
    output, lse = called(inputs, return_lse=True)
    lse[unsampled(inputs)] = value
    found, _ = judged(inputs, (output, lse), return_lse=True)
    assert found.status == "nonfinite"


def test_a_row_that_sees_nothing_may_have_a_log_sum_exp_of_minus_infinity(short):
    inputs = inputs_of() | {"mask": np.ones((90, 70), dtype=bool)}
    inputs["mask"][::3] = False
    assert judged(inputs, called(inputs, return_lse=True), return_lse=True)[0].passed


def test_a_fault_of_every_row_is_seen_in_a_long_case(short):
    """The last key is left out."""

    def last_key_dropped(q, k, v, **given):
        return shifted(q, k[:, :, :-1], v[:, :, :-1], **given)

    case = Case(op="attention", family="ends", shape=(1, 1, 300, 16), tensors={"keys": 400})
    records = [
        evaluate(case, Kernel(id="k", op="attention", call=call), dtype="bfloat16", oracle=ORACLE)
        for call in (shifted, last_key_dropped)
    ]
    assert [record.status for record in records] == ["passed", "inaccurate"]
    assert records[0].judgement.entries == FEWEST * 16
