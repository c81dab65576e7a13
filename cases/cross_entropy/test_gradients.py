"""Backward of cross_entropy: the gradient of the logits, for every reduction and kind of target."""

from suite.case import case

LONGER = [(8, 7), (8, 1000), (4, 4096)]
SMOKE = {"smoke": [(8, 65)], "quick": [(8, 257)], "standard": LONGER}
ROWS = {"quick": [(8, 257)], "standard": LONGER}
SOURCE = "docs/gradients.md, section 5"
REDUCTIONS = ({}, {"reduction": "sum"}, {"reduction": "none"})


@case(
    "cross_entropy",
    family="normal",
    shapes=SMOKE,
    options=REDUCTIONS,
    upstream=("normal",),
    laws=("doubled", "repeat"),
    source=SOURCE,
)
def test_reductions(evaluate):
    """w (p - t): the mean divides by the number of rows that count, the sum by nothing, and each
    loss has its own upstream.
    """
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(6, 33)]},
    upstream=("normal",),
    laws=("double_backward",),
    source=SOURCE,
)
def test_gradient_of_the_gradient(evaluate):
    """Where the gradient can be differentiated again, that is right too, or the kernel says that it
    cannot be.
    """
    evaluate()


@case("cross_entropy", family="normal", shapes=ROWS, upstream=("huge", "tiny"), source=SOURCE)
def test_scaled(evaluate):
    """Loss scaling: a huge upstream brings small gradients back, a tiny one loses them, both within
    the bound.
    """
    evaluate()


@case(
    "cross_entropy",
    family="normal_large",
    shapes=ROWS,
    options=REDUCTIONS[:2],
    upstream=("ones",),
    source=SOURCE,
)
def test_confident(evaluate):
    """Confident logits: p - 1 of the target is 1 - p of the others, not the difference of two roundings."""
    evaluate()


@case(
    "cross_entropy",
    family="sparse",
    shapes=ROWS,
    options={"reduction": "none"},
    upstream=("normal",),
    source=SOURCE,
)
def test_masked_logits(evaluate):
    """A class at -inf gets no gradient, and spoils none of the others."""
    evaluate()


@case(
    "cross_entropy",
    family="nan_and_infinity",
    shapes=SMOKE,
    upstream=("ones",),
    source="docs/gradients.md, section 5",
)
def test_ignored_rows(evaluate):
    """An ignored row gets exactly 0, whatever its logits: NaN in padding must not reach the weights."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes=ROWS,
    target="ignored",
    upstream=("ones",),
    source="docs/gradients.md, section 5",
)
def test_all_ignored(evaluate):
    """Where no row is left, every gradient is exactly 0, though the mean itself is 0 / 0."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes=ROWS,
    options=({"label_smoothing": 0.1}, {"label_smoothing": 0.1, "reduction": "none"}),
    upstream=("ones", "normal"),
    source=SOURCE,
)
def test_label_smoothing(evaluate):
    """Each class has a share of the target."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes=ROWS,
    target="probabilities",
    options=({}, {"reduction": "none"}),
    upstream=("normal",),
    source=SOURCE,
)
def test_probabilities(evaluate):
    """Targets of class probabilities, whose sum stands before p."""
    evaluate()


@case("cross_entropy", family="normal", shapes={"quick": [(3, 9, 4, 5)]}, upstream=("ones",), source=SOURCE)
def test_more_dims(evaluate):
    """Classes in dim 1, and dims behind them."""
    evaluate()


@case(
    "cross_entropy",
    family="normal_small",
    shapes={"quick": [(80000, 3)]},
    dtypes=("float16", "bfloat16"),
    upstream=("ones",),
    source="more rows than float16 can count; docs/gradients.md, section 5",
)
def test_many_rows(evaluate):
    """The mean over more rows than float16 can count (some are ignored) has gradients that are
    small, and not 0.
    """
    evaluate()


@case(
    "cross_entropy",
    family="offset",
    shapes={"quick": [(8, 65)]},
    options={"reduction": "none"},
    upstream=("normal",),
    source="pymc-devs/pymc-extras#720: a backward without the shift of its forward",
)
def test_offset(evaluate):
    """A common offset of the logits changes no gradient."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(16, 33)]},
    options=({"ignore_index": 3}, {"ignore_index": 3, "reduction": "none"}),
    upstream=("normal",),
    source=SOURCE,
)
def test_ignore_index(evaluate):
    """The rows that are ignored are those of the index that is given."""
    evaluate()
