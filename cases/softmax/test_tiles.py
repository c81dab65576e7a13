"""Tile boundaries: rows in which a single lost, doubled or unscaled entry changes the result by far
more than the bound.
"""

from suite.case import EVERY_LENGTH, case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")
LONG_ROWS = "docs/verdict.md, section 7: long rows"


@case(*ROW_OPS, family="sparse", shapes=EVERY_LENGTH, laws=("permutation",), source=LONG_ROWS)
def test_sparse(evaluate):
    """At any length, an entry at a tile boundary counts exactly once."""
    evaluate()


@case(*ROW_OPS, family="two_heavy_ends", shapes=EVERY_LENGTH, source=LONG_ROWS)
def test_two_heavy_ends(evaluate):
    """At any length, the two ends of a row are scaled alike, whatever tiles lie between them."""
    evaluate()


@case(
    *ROW_OPS,
    family="two_heavy_ends",
    shapes={"quick": [(2, 151937)]},
    dtypes=("float32", "bfloat16"),
    source=LONG_ROWS,
)
def test_two_heavy_ends_of_a_vocabulary(evaluate):
    """Nor does it matter that a language model's vocabulary lies between them."""
    evaluate()


@case(*ROW_OPS, family="maximum_at_boundaries", source="triton-lang/triton#3013: a maximum that misses lanes")
def test_maximum_at_boundaries(evaluate):
    """The maximum is found wherever it stands, at either side of every tile boundary."""
    evaluate()
