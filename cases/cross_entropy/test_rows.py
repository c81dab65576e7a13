"""Losses row by row, not reduced: what the logits can do."""

from suite.case import case

NONE = {"reduction": "none"}
SHAPES = {"smoke": [(16, 33)], "quick": [(8, 257)], "standard": [(8, 1000), (8, 1025), (16, 2)]}


@case(
    "cross_entropy",
    family="normal",
    shapes=SHAPES,
    options=NONE,
    laws=("repeat", "written", "canaries"),
    source="definition",
)
def test_normal(evaluate):
    """An ordinary row's loss is accurate to the bound, and 0 where its target is ignored."""
    evaluate()


@case(
    "cross_entropy", family="normal_large", shapes=SHAPES, options=NONE, laws=("shift",), source="definition"
)
def test_normal_large(evaluate):
    """Losses of a hundred and losses beside 0 are accurate alike."""
    evaluate()


@case(
    "cross_entropy",
    family="exact_offset",
    shapes=SHAPES,
    options=NONE,
    source="pytorch/pytorch#11752, #195829: lse - z_t",
)
def test_exact_offset(evaluate):
    """A common offset of all logits costs nothing: a loss from lse - z_t loses its digits there."""
    evaluate()


@case(
    "cross_entropy", family="very_negative", shapes=SHAPES, options=NONE, source="tenstorrent/tt-metal#10001"
)
def test_very_negative(evaluate):
    """Rows far below zero have ordinary losses."""
    evaluate()


@case(
    "cross_entropy",
    family="overflow_edge",
    shapes=SHAPES,
    options=NONE,
    source="tenstorrent/tt-metal#10001: no shift",
)
def test_overflow_edge(evaluate):
    """Rows around ln Omega have finite losses."""
    evaluate()


@case("cross_entropy", family="log_near_zero", shapes=SHAPES, options=NONE, source="pytorch/pytorch#113708")
def test_log_near_zero(evaluate):
    """A confident prediction's loss beside 0 has the absolute accuracy of its bound."""
    evaluate()


@case("cross_entropy", family="masked_tiles", shapes=SHAPES, options=NONE, source="google-deepmind/optax#896")
def test_masked_tiles(evaluate):
    """A class at -inf is no class: it takes no part, and has an infinite loss as a target."""
    evaluate()


@case(
    "cross_entropy",
    family="nan_and_infinity",
    shapes=SHAPES,
    options=NONE,
    source="docs/verdict.md, section 5",
)
def test_nan_and_infinity(evaluate):
    """NaN in a row makes its loss NaN, unless the row is ignored, and no other."""
    evaluate()


@case(
    "cross_entropy", family="sentinels", shapes=SHAPES, options=NONE, source="candle-org/candle: finite masks"
)
def test_sentinels(evaluate):
    """A class hidden behind a large negative number takes no part."""
    evaluate()


@case(
    "cross_entropy",
    family="two_heavy_ends",
    shapes={"smoke": [(8, 257)], "quick": [(8, 1025), (2, 151936)], "standard": [(4, 32768), (2, 128256)]},
    options=NONE,
    source="docs/verdict.md, section 7: long rows",
)
def test_two_heavy_ends(evaluate):
    """At any number of classes, each counts exactly once."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"smoke": [(4, 33, 5)], "quick": [(2, 7, 3, 2)]},
    options=NONE,
    source="torch",
)
def test_classes_in_dim_one(evaluate):
    """Classes are in dim 1, whatever dims follow."""
    evaluate()


@case("cross_entropy", family="normal", shapes={"quick": [(33,)]}, options=NONE, source="torch")
def test_one_row(evaluate):
    """Logits of one dim are one row, with one target."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(6, 33)]},
    options=NONE,
    layout="transposed",
    source="pytorch#139740",
)
def test_transposed(evaluate):
    """Logits whose classes lie far apart in memory have the same losses."""
    evaluate()
