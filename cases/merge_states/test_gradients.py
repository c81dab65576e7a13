"""Backward of merge_states: the gradients of both states, from those of the merged output and its
log-sum-exp.
"""

from suite.case import case

SHAPES = {"quick": [(2, 3, 17, 16)], "standard": [(2, 4, 129, 64)]}
LAW = "docs/gradients.md, section 7"


@case(
    "merge_states",
    family="alike",
    shapes={"smoke": [(1, 2, 9, 16)], **SHAPES},
    upstream=("normal",),
    laws=("doubled", "other_upstream", "repeat"),
    source=LAW,
)
def test_upstream(evaluate):
    """Each state has its weight's share of the gradient, and its log-sum-exp what its output
    differs from the mean by.
    """
    evaluate()


@case("merge_states", family="far_apart", shapes=SHAPES, upstream=("normal", "one_hot"), source=LAW)
def test_far_apart(evaluate):
    """A state that is outweighed by far has the small gradient of its small weight."""
    evaluate()


@case("merge_states", family="one_empty", shapes=SHAPES, upstream=("normal",), source=LAW)
def test_one_empty(evaluate):
    """A state that has seen no key has a gradient of exactly 0, and the other all of it."""
    evaluate()


@case(
    "merge_states", family="both_empty", shapes=SHAPES, upstream=("normal",), source="pytorch/pytorch#31829"
)
def test_both_empty(evaluate):
    """Two states that have seen no key have gradients of exactly 0, never NaN."""
    evaluate()


@case("merge_states", family="large", shapes=SHAPES, upstream=("normal",), source=LAW)
def test_large(evaluate):
    """Only the difference of the log-sum-exps counts, however large they are."""
    evaluate()


@case("merge_states", family="opposite", shapes=SHAPES, upstream=("normal", "huge"), source=LAW)
def test_opposite(evaluate):
    """Outputs that nearly cancel have gradients that do not."""
    evaluate()


@case("merge_states", family="equal", shapes=SHAPES, upstream=("normal", "tiny"), source=LAW)
def test_equal(evaluate):
    """Equal states share the gradient evenly."""
    evaluate()
