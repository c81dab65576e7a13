"""Merging attention states: by their log-sum-exps, whichever is larger, empty or far away."""

from suite.case import case

SHAPES = {"smoke": [(1, 2, 9, 16)], "quick": [(2, 3, 65, 33)], "standard": [(2, 8, 257, 128), (1, 1, 1, 1)]}
MERGE = "FlashAttention-2 (arXiv 2307.08691), section 3.1; docs/verdict.md, section 15"
EMPTY = "FlashAttention and its forks: NaN where a split of the keys is fully masked"


@case("merge_states", family="alike", shapes=SHAPES, laws=("repeat", "written", "canaries"), source=MERGE)
def test_alike(evaluate):
    """Two halves of one attention merge into the whole: the weighted mean of both, and the log of
    the sum of both sums.
    """
    evaluate()


@case("merge_states", family="far_apart", shapes=SHAPES, source=MERGE)
def test_far_apart(evaluate):
    """A state that outweighs the other by far is left as it is."""
    evaluate()


@case("merge_states", family="one_empty", shapes=SHAPES, laws=("repeat",), source=EMPTY)
def test_one_empty(evaluate):
    """A state that has seen no key weighs nothing."""
    evaluate()


@case("merge_states", family="both_empty", shapes=SHAPES, source=EMPTY)
def test_both_empty(evaluate):
    """Two states that have seen no key are one that has seen none: 0 and -inf, never NaN."""
    evaluate()


@case("merge_states", family="large", shapes=SHAPES, source="docs/verdict.md, section 15: exp(lse) overflows")
def test_large(evaluate):
    """Only the difference of the log-sum-exps counts, however large they are."""
    evaluate()


@case("merge_states", family="equal", shapes=SHAPES, source=MERGE)
def test_equal(evaluate):
    """Equal weights give the mean."""
    evaluate()


@case("merge_states", family="opposite", shapes=SHAPES, source=MERGE)
def test_opposite(evaluate):
    """Outputs that nearly cancel are merged in the wide format, and rounded once."""
    evaluate()


@case("merge_states", family="huge", shapes=SHAPES, source=MERGE)
def test_huge(evaluate):
    """Weights are at most 1 before they meet the outputs, which may be half the largest number."""
    evaluate()
