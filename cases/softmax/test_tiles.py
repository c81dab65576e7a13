"""Tile boundaries: rows in which a single lost, doubled or unscaled entry changes the result by far more than the bound."""

from suite.case import case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")


@case(*ROW_OPS, family="sparse", laws=("permutation",), source="docs/verdict.md, section 6: long rows")
def test_sparse(evaluate):
    """At any length, an entry at a tile boundary counts exactly once."""
    evaluate()


@case(*ROW_OPS, family="two_heavy_ends", source="docs/verdict.md, section 6: long rows")
def test_two_heavy_ends(evaluate):
    """At any length, the two ends of a row are scaled alike, whatever tiles lie between them."""
    evaluate()
