"""Accuracy on ordinary rows, on real ones, and on rows that spread over the whole range of exp."""

from suite.case import VOCABULARY, case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")
BHH = "Blanchard, Higham and Higham, IMA J. Numer. Anal. 41(4), 2021, doi 10.1093/imanum/draa038"


@case(*ROW_OPS, family="normal_small", laws=("batch", "written"), source=BHH)
def test_normal_small(evaluate):
    """A nearly uniform row is accurate to the bound of docs/verdict.md: no term of the sum may be
    lost or rounded twice.
    """
    evaluate()


@case(*ROW_OPS, family="normal", laws=("batch", "permutation", "repeat", "canaries"), source=BHH)
def test_normal(evaluate):
    """An ordinary row is accurate to the bound, again on a second call, alone as in a batch, and reversed."""
    evaluate()


@case(*ROW_OPS, family="normal", shapes=VOCABULARY, source="docs/verdict.md, section 7: long rows")
def test_normal_vocabulary(evaluate):
    """A sum of 151,936 terms is accurate to the bound, which no accumulator of 16 bits is."""
    evaluate()


@case(*ROW_OPS, family="normal_large", laws=("permutation", "shift"), source=BHH)
def test_normal_large(evaluate):
    """A row with gaps of 100 is accurate entry by entry, down to the subnormal results."""
    evaluate()


@case(*ROW_OPS, family="ramps", laws=("permutation",), source="Milakov and Gimelshein, arXiv 1805.02867")
def test_ramps(evaluate):
    """A maximum that changes at every step costs rescales and no accuracy beyond them."""
    evaluate()


@case(*ROW_OPS, family="alternating", laws=("shift",), source="docs/verdict.md, section 2")
def test_alternating(evaluate):
    """Neighbours far apart in value cost nothing: only the distance from the maximum counts."""
    evaluate()


@case(*ROW_OPS, family="geometric_gaps", source="docs/verdict.md, section 2: the argument of exp")
def test_geometric_gaps(evaluate):
    """Gaps at multiples of ln 2, where base-2 forms round their argument, are as accurate as others."""
    evaluate()


@case(
    *ROW_OPS,
    family="ties",
    shapes={
        "smoke": [(8, 257)],
        "quick": [(4, 300), (4, 512), (2, 4096)],
        "standard": [(16, 33), (1, 70000)],
    },
    source="pytorch/executorch#20090: a bfloat16 sum of ones stops at 256",
)
def test_ties(evaluate):
    """Equal entries have equal results and sum to their number, beyond the range of float16 too:
    narrow sums stagnate.
    """
    evaluate()


@case(*ROW_OPS, family="near_ties", source="docs/verdict.md, section 2: the subtraction")
def test_near_ties(evaluate):
    """Logits an ulp apart are told apart."""
    evaluate()


@case(
    *ROW_OPS,
    family="midpoint_results",
    shapes={"smoke": [(16, 33)], "quick": [(64, 33)]},
    dtypes=("bfloat16", "float16"),
    source="docs/verdict.md, section 8: the output's own rounding",
)
def test_midpoint_results(evaluate):
    """Results beside the middle of two numbers of 16 bits are rounded once, the right way."""
    evaluate()


@case(
    *ROW_OPS,
    family="minilm_scores",
    source="all-MiniLM-L6-v2 on the Gettysburg Address; suite/inputs/capture",
)
def test_real_attention_scores(evaluate):
    """Attention scores of a real model are judged like any row."""
    evaluate()


@case(
    *ROW_OPS,
    family="every_16_bit_value",
    shapes={"standard": [(65536, 2)]},
    dtypes=("bfloat16", "float16"),
    source="all bit patterns: nothing is left to chance",
)
def test_every_16_bit_value(evaluate):
    """Beside a logit 0, every number of 16 bits, NaN and infinities included, has its right result."""
    evaluate()
