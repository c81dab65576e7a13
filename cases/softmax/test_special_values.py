"""-inf, NaN and +inf, by position."""

from suite.case import case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")


@case(*ROW_OPS, family="masked_tiles", laws=("permutation", "batch"), source="Dao-AILab/flash-attention#1930")
def test_masked_tiles(evaluate):
    """-inf gives exactly 0 (-inf in the log domain) wherever it stands; only a row of nothing else
    gives NaN (lse: -inf).
    """
    evaluate()


@case(
    *ROW_OPS,
    family="masked_tiles_far_below",
    shapes={"smoke": [(8, 257)], "quick": [(16, 33)], "standard": [(32, 129), (32, 1100), (32, 4096)]},
    source="bytedance/lightseq#74: a maximum that begins at 0",
)
def test_masked_tiles_far_below(evaluate):
    """Behind a tile of -inf, logits far below zero are the maximum: one that begins at 0 or at a
    sentinel hides them.
    """
    evaluate()


@case(
    *ROW_OPS,
    family="several_masked_tiles",
    shapes={"quick": [(20, 400)], "standard": [(20, 4096)]},
    source="flash-attention#1930",
)
def test_several_masked_tiles(evaluate):
    """Two tiles of -inf are passed over like one."""
    evaluate()


@case(*ROW_OPS, family="nan_and_infinity", source="docs/verdict.md, section 1: special values")
def test_nan_and_infinity(evaluate):
    """NaN and +inf make their row NaN (lse: NaN, inf), are never swallowed, and leave the other
    rows alone.
    """
    evaluate()


@case(
    *ROW_OPS,
    family="mixed_rows",
    shapes={"smoke": [(17, 33)], "quick": [(17, 257)]},
    laws=("batch",),
    source="docs/verdict.md, section 13",
)
def test_mixed_rows(evaluate):
    """Rows of every difficulty in one batch each have their own result: nothing leaks from one row
    into another.
    """
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"smoke": [(9, 61)]},
    laws=("neighbour",),
    source="docs/verdict.md, section 13",
)
def test_hostile_neighbours(evaluate):
    """A row keeps its result when its neighbours in the batch turn to NaN, infinities and huge numbers."""
    evaluate()


@case(*ROW_OPS, family="minilm_padded", source="all-MiniLM-L6-v2, a padded batch; suite/inputs/capture")
def test_real_padding(evaluate):
    """Padded keys of a real model get exactly nothing."""
    evaluate()
