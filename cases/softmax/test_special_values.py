"""-inf, NaN and +inf, by position."""

from suite.case import case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")


@case(*ROW_OPS, family="masked_tiles", laws=("permutation", "batch"), source="Dao-AILab/flash-attention#1930")
def test_masked_tiles(evaluate):
    """-inf gives exactly 0 (-inf in the log domain) wherever it stands; only a row of nothing else gives NaN (lse: -inf)."""
    evaluate()


@case(*ROW_OPS, family="nan_and_infinity", source="docs/verdict.md, section 1: special values")
def test_nan_and_infinity(evaluate):
    """NaN and +inf make their row NaN (lse: NaN, inf), are never swallowed, and leave the other rows alone."""
    evaluate()


@case(*ROW_OPS, family="minilm_padded", source="all-MiniLM-L6-v2, a padded batch; suite/inputs/capture")
def test_real_padding(evaluate):
    """Padded keys of a real model get exactly nothing."""
    evaluate()
