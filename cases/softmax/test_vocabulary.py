"""Rows as long as a language model's vocabulary: 151,936 entries, of which every one must count."""

from suite.case import VOCABULARY, case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")
LONG_ROWS = "docs/verdict.md, section 6: long rows"


@case(*ROW_OPS, family="normal", shapes=VOCABULARY, source=LONG_ROWS)
def test_normal(evaluate):
    """A sum of 151,936 terms is accurate to the bound, which no accumulator of 16 bits is."""
    evaluate()


@case(*ROW_OPS, family="sparse", shapes=VOCABULARY, source=LONG_ROWS)
def test_sparse(evaluate):
    """An entry at a tile boundary counts exactly once, however many tiles of -inf lie before it."""
    evaluate()


@case(*ROW_OPS, family="two_heavy_ends", shapes=VOCABULARY, source=LONG_ROWS)
def test_two_heavy_ends(evaluate):
    """The two ends of the row are scaled alike, whatever tiles lie between them."""
    evaluate()
