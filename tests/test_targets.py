"""Targets of cross_entropy: the same on every machine, and every kind of class among them."""

import hashlib

import numpy as np
import pytest

from suite.case import Case
from suite.formats import FORMATS, float32
from suite.inputs.draws import Draw
from suite.inputs.targets import TARGETS, indices, probabilities

GOLDEN = {
    ("normal", "indices", (16, 33)): "bcda8f14a2b60281",
    ("masked_tiles", "indices", (16, 33)): "47cef62018e940e5",
    ("normal", "probabilities", (16, 33)): "4d4cf4aa9f6d57bf",
    ("masked_tiles", "probabilities", (16, 33)): "ad484032ebebf2b1",
    ("nan_and_infinity", "probabilities", (4, 7, 3)): "87ab7f311859e009",
    ("normal", "ignored", (4, 7, 3)): "b8473aa7cddc4049",
}


def inputs(family="normal", target="indices", shape=(16, 33), format=float32, **options):
    found = Case(op="cross_entropy", family=family, shape=shape, target=target, options=options).inputs(
        format
    )
    return found["logits"], found["target"]


def digest(target):
    return hashlib.blake2b(np.ascontiguousarray(target).tobytes(), digest_size=8).hexdigest()


@pytest.mark.parametrize(("family", "target", "shape"), GOLDEN)
def test_targets_are_the_bits_that_they_were(family, target, shape):
    """A change here changes what published records judged."""
    assert digest(inputs(family, target, shape)[1]) == GOLDEN[family, target, shape]


def test_targets_do_not_depend_on_what_was_drawn_before_and_differ_between_seeds():
    first = inputs()[1]
    inputs("sparse", "probabilities")
    assert np.array_equal(inputs()[1], first)
    other = Case(op="cross_entropy", family="normal", shape=(16, 33), seed=1).inputs(float32)["target"]
    assert not np.array_equal(other, first)


@pytest.mark.parametrize("shape", [(33,), (16, 33), (16, 33, 2), (2, 33, 4, 2)])
def test_shapes_and_dtypes_are_torchs(shape):
    classless = shape[:1] + shape[2:] if len(shape) > 1 else ()
    for target in ("indices", "ignored"):
        found = inputs("normal", target, shape)[1]
        assert (found.shape, found.dtype) == (classless, np.int64)
    found = inputs("normal", "probabilities", shape)[1]
    assert (found.shape, found.dtype) == (shape, np.float64)


def test_indices_hold_an_ignored_row_the_first_class_the_last_and_the_most_likely():
    logits, target = inputs()
    likely = logits.argmax(axis=1)
    assert (target == -100).tolist() == [row % 8 == 6 for row in range(16)]
    assert {0, 32} <= set(target.tolist())
    assert (target[2::8] == likely[2::8]).all()
    others = [
        t for t, best in zip(target.tolist(), likely.tolist(), strict=True) if t not in (0, 32, best, -100)
    ]
    assert len(set(others)) >= 4
    assert ((target == -100) | ((target >= 0) & (target < 33))).all()


@pytest.mark.parametrize("ignore_index", [3, -1, 1000])
def test_the_ignored_rows_have_the_ignore_index_of_the_case(ignore_index):
    target = inputs(ignore_index=ignore_index)[1]
    assert (target[6::8] == ignore_index).all()
    assert (target != -100).all()
    assert (inputs(target="ignored", ignore_index=ignore_index)[1] == ignore_index).all()


def test_a_target_hits_a_hidden_class_in_one_row_of_eight_at_most():
    """So most losses of masked rows are finite, and an infinite one is met too."""
    logits = np.full((800, 9), -np.inf)
    logits[:, 4] = 1.0
    target = indices(logits, -100, Draw("hidden"))
    kept = target != -100
    hit = kept & (logits[np.arange(800), np.where(kept, target, 0)] == -np.inf)
    assert set(np.flatnonzero(hit) % 8) == {5}
    assert hit.sum() > 50


@pytest.mark.parametrize(
    "row", [[np.nan, np.nan], [np.nan, 1.0], [-np.inf, -np.inf], [np.inf, -np.inf], [0.0, 0.0]]
)
def test_rows_without_a_likely_class_have_targets_all_the_same(row):
    x = np.array([row] * 8)
    assert set(indices(x, -100, Draw("odd")).tolist()) <= {-100, 0, 1}
    weights = probabilities(x, float32, Draw("odd"))
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


@pytest.mark.parametrize("dtype", list(FORMATS)[:4])
@pytest.mark.parametrize("family", ["normal", "masked_tiles", "sparse"])
def test_probabilities_are_numbers_of_the_format_that_sum_to_1_but_for_rounding(family, dtype):
    """A row of n rounded weights is off by at most n half ulps of numbers below 1."""
    format = FORMATS[dtype]
    weights = inputs(family, "probabilities", format=format)[1]
    assert np.array_equal(format.round(weights), weights)
    assert (weights >= 0).all()
    assert (np.abs(weights.sum(axis=1) - 1) <= 33 * format.unit_roundoff).all()


def test_probabilities_are_one_hot_dense_or_with_zeros():
    weights = inputs(target="probabilities")[1]
    counts = np.count_nonzero(weights, axis=1)
    assert (counts[2::4] == 1).all()
    assert (weights[2::4].max(axis=1) == 1.0).all()
    assert (counts[0::4] == 33).all()
    assert ((counts[1::4] > 5) & (counts[1::4] < 30)).all()


def test_probabilities_put_weight_on_a_hidden_class_in_one_row_of_eight_at_most():
    logits, weights = inputs("masked_tiles", "probabilities", (32, 33))
    hidden = (weights > 0) & (logits == -np.inf)
    possible = logits.max(axis=1) > -np.inf
    assert set(np.flatnonzero(possible & hidden.any(axis=1)) % 8) == {5}


def test_an_unknown_kind_of_target_is_misuse_with_the_valid_ones():
    assert TARGETS == ("indices", "probabilities", "ignored")
    with pytest.raises(ValueError, match="target='logits' is not one of indices, probabilities, ignored"):
        inputs(target="logits")
