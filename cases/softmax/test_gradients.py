"""Backward of softmax, log_softmax and logsumexp: the gradient of the logits, for every kind of
upstream gradient.
"""

from suite.case import case, fixed_shape

ALL = ("softmax", "log_softmax", "logsumexp")
LONGER = [(8, 7), (8, 1000), (4, 4096)]
SMOKE = {"smoke": [(8, 65)], "quick": [(8, 257), (2, 1300)], "standard": LONGER}
ROWS = {"quick": [(8, 257)], "standard": LONGER}
SOURCE = "docs/gradients.md, sections 2 to 4"


@case(
    *ALL,
    family="normal",
    shapes=SMOKE,
    upstream=("normal", "constant"),
    laws=("doubled", "other_upstream", "repeat"),
    source=SOURCE,
)
def test_upstream(evaluate):
    """The gradient is that of the definition; of one number for the whole row it is, through
    softmax, exactly 0.
    """
    evaluate()


@case(*ALL, family="normal", shapes=ROWS, upstream=("one_hot", "ones", "huge", "tiny"), source=SOURCE)
def test_other_upstreams(evaluate):
    """A row of the Jacobian, the ones of a plain sum, a loss scale, and products that fall below
    the normal numbers.
    """
    evaluate()


@case(
    *ALL,
    family="normal",
    shapes={"quick": [(6, 33)]},
    upstream=("normal",),
    laws=("double_backward",),
    source="docs/gradients.md, section 9",
)
def test_gradient_of_the_gradient(evaluate):
    """Where the gradient can be differentiated again, that is right too, or the kernel says that it
    cannot be.
    """
    evaluate()


@case(*ALL, family="normal_large", shapes=ROWS, upstream=("normal", "one_hot"), source=SOURCE)
def test_confident_rows(evaluate):
    """Rows with one large weight: what is left of the gradient is a small difference, and small
    weights keep their part.
    """
    evaluate()


@case(
    *ALL,
    family="saturation_edge",
    shapes=ROWS,
    upstream=("normal", "ones"),
    source="theory of saturation: docs/vanishing.md",
)
def test_saturation(evaluate):
    """Around the gap at which the largest weight becomes 1, its gradient goes to 0 with 1 - p and
    not before.
    """
    evaluate()


@case(
    *ALL,
    family="sparse",
    shapes=ROWS,
    upstream=("normal", "constant"),
    source="pytorch/pytorch#31829 and docs/gradients.md",
)
def test_masked_logits(evaluate):
    """A logit of -inf gets no gradient through exponentials, and spoils none of the others."""
    evaluate()


@case(*ALL, family="masked_tiles", shapes=SMOKE, upstream=("normal",), source="docs/gradients.md, section 4")
def test_masked_tiles(evaluate):
    """Tiles, and rows, of -inf: the gradient of a logsumexp of -inf is 0, never NaN."""
    evaluate()


@case(*ALL, family="two_heavy_ends", shapes=ROWS, upstream=("normal",), source="docs/verdict.md, section 6")
def test_two_heavy_ends(evaluate):
    """Two equal maxima at tile boundaries: a lost entry, or a rescale, is half of the gradient."""
    evaluate()


@case(
    *ALL, family="ties", shapes=ROWS, upstream=("normal", "constant"), source="docs/gradients.md, section 1"
)
def test_ties(evaluate):
    """Several equal maxima: the gradient does not go through the maximum that is subtracted,
    whichever entry gave it.
    """
    evaluate()


@case(
    "softmax",
    "log_softmax",
    family="offset",
    shapes=ROWS,
    upstream=("normal",),
    source="docs/verdict.md, section 8",
)
def test_offset(evaluate):
    """A common offset of the logits changes no gradient."""
    evaluate()


@case(
    "logsumexp",
    family="offset",
    shapes=ROWS,
    upstream=("normal",),
    source="pytorch/pytorch#113708: lse rounded in backward",
)
def test_offset_of_log_sum_exp(evaluate):
    """A result far from 0: weights recomputed from it carry |lse| roundings, of float32 and not of
    16 bits.
    """
    evaluate()


@case(
    "softmax",
    family="normal",
    shapes={"quick": [(5, 6, 33)]},
    options=({"temperature": 0.5}, {"off_by_one": True}),
    upstream=("normal", "constant"),
    source=SOURCE,
)
def test_options(evaluate):
    """A temperature divides the gradient too; the hidden logit of off_by_one has weight, and no
    gradient of its own.
    """
    evaluate()


@case(
    *ALL,
    family="normal",
    shapes={"quick": [(6, 33)]},
    layout="transposed",
    upstream=("normal",),
    source=SOURCE,
)
def test_transposed(evaluate):
    """Logits and upstream in another memory layout, as the ops before and behind give them, have
    the same gradient.
    """
    evaluate()


@case(
    *ALL, family="normal", shapes={"smoke": [(6, 33)]}, layout="expanded", upstream=("ones",), source=SOURCE
)
def test_expanded_upstream(evaluate):
    """An upstream of stride 0, as the backward of a sum gives it, is an upstream like any other."""
    evaluate()


@case(
    *ALL,
    family="normal",
    shapes={"quick": [(2, 8, 33)]},
    options={"dim": 1},
    upstream=("normal",),
    source=SOURCE,
)
def test_inner_dim(evaluate):
    """Rows along a dim that is not the last."""
    evaluate()


@case(
    *ALL,
    family="minilm_scores",
    shapes={"quick": [fixed_shape("softmax", "minilm_scores")]},
    upstream=("normal", "one_hot"),
    source="attention scores of a model on text",
)
def test_real_scores(evaluate):
    """Scores of a real model on real text."""
    evaluate()


@case(
    *ALL, family="nan_and_infinity", shapes=ROWS, upstream=("normal",), source="docs/gradients.md, section 1"
)
def test_neighbours_of_nan(evaluate):
    """A row with NaN or infinity gives no other row a gradient of NaN."""
    evaluate()


@case(
    "softmax",
    family="normal_large",
    shapes={"quick": [(8, 40)]},
    upstream=("constant", "ones"),
    source=SOURCE,
)
def test_cancelling_rows(evaluate):
    """The exact result is 0: what an online form leaves is what its two exponentials of the same
    logit differ by.
    """
    evaluate()
