"""Accuracy on ordinary rows, on real ones, and on rows that spread over the whole range of exp."""

from suite.case import case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")
BHH = "Blanchard, Higham and Higham, IMA J. Numer. Anal. 41(4), 2021, doi 10.1093/imanum/draa038"


@case(*ROW_OPS, family="normal_small", laws=("batch",), source=BHH)
def test_normal_small(evaluate):
    """A nearly uniform row is accurate to the bound of docs/verdict.md: no term of the sum may be lost or rounded twice."""
    evaluate()


@case(*ROW_OPS, family="normal", laws=("batch", "permutation", "repeat"), source=BHH)
def test_normal(evaluate):
    """An ordinary row is accurate to the bound, again on a second call, alone as in a batch, and reversed."""
    evaluate()


@case(*ROW_OPS, family="normal", shapes={"smoke": [(5, 3, 7)], "quick": [(2, 65, 3)]}, options={"dim": 1}, source=BHH)
def test_inner_dim(evaluate):
    """Reducing over an inner dim gives what reducing its rows gives."""
    evaluate()


@case(*ROW_OPS, family="normal", shapes={"smoke": [(33, 4)]}, options={"dim": 0}, source=BHH)
def test_first_dim(evaluate):
    """Reducing over the first dim gives what reducing its rows gives."""
    evaluate()


@case(*ROW_OPS, family="normal_large", laws=("permutation",), source=BHH)
def test_normal_large(evaluate):
    """A row with gaps of 100 is accurate entry by entry, down to the subnormal results."""
    evaluate()


@case(*ROW_OPS, family="ramps", laws=("permutation",), source="Milakov and Gimelshein, arXiv 1805.02867")
def test_ramps(evaluate):
    """A maximum that changes at every step costs rescales and no accuracy beyond them."""
    evaluate()


@case(*ROW_OPS, family="ties", source="pytorch/executorch#20090: a bfloat16 sum of ones stops at 256")
def test_ties(evaluate):
    """Equal entries have equal results and sum to their number: a narrow accumulator stagnates here."""
    evaluate()


@case(*ROW_OPS, family="minilm_scores", source="all-MiniLM-L6-v2 on the Gettysburg Address; suite/inputs/capture")
def test_real_attention_scores(evaluate):
    """Attention scores of a real model are judged like any row."""
    evaluate()
