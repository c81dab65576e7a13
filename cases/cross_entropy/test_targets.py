"""What the target can be: ignored, smoothed, a distribution."""

from suite.case import case

EVERY_OPTION = [
    {"ignore_index": index, "label_smoothing": smoothing, "reduction": reduction}
    for index in (-100, 2)
    for smoothing in (0.0, 0.1)
    for reduction in ("mean", "sum", "none")
]
SHAPES = {"smoke": [(16, 33)], "quick": [(8, 257)], "standard": [(8, 1000)]}


@case(
    "cross_entropy",
    family="normal",
    shapes=SHAPES,
    options=[{"ignore_index": index, "reduction": "none"} for index in (3, 255, -1, 0, 32)],
    source="pytorch#72056",
)
def test_ignore_index(evaluate):
    """An ignored class that exists is ignored like any other number."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes=SHAPES,
    options={"label_smoothing": 0.1, "reduction": "none"},
    source="Szegedy et al. 2016",
)
def test_label_smoothing(evaluate):
    """Smoothing spreads a share of the target evenly over all classes."""
    evaluate()


@case(
    "cross_entropy",
    family="normal_large",
    shapes=SHAPES,
    options={"ignore_index": 2, "label_smoothing": 0.5},
    source="pytorch/pytorch#72056: an ignored label used as an index",
)
def test_smoothed_and_ignored(evaluate):
    """An ignored row adds no smoothing and does not count in the mean."""
    evaluate()


@case(
    "cross_entropy",
    family="masked_tiles",
    shapes=SHAPES,
    options={"reduction": "sum"},
    target="ignored",
    source="definition",
)
def test_everything_ignored(evaluate):
    """The sum over ignored rows only is exactly 0, whatever their logits."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"smoke": [(4, 33)]},
    target="ignored",
    source="definition: 0 / 0",
)
def test_mean_of_ignored(evaluate):
    """The mean over no row is NaN."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes=SHAPES,
    options={"reduction": "none"},
    target="probabilities",
    source="torch",
)
def test_probabilities(evaluate):
    """Class probabilities weigh the classes' surprisals."""
    evaluate()


@case(
    "cross_entropy",
    family="normal_large",
    shapes=SHAPES,
    options={"label_smoothing": 0.1},
    target="probabilities",
    source="torch",
)
def test_smoothed_probabilities(evaluate):
    """A distribution is smoothed like a single class."""
    evaluate()


@case(
    "cross_entropy",
    family="masked_tiles",
    shapes=SHAPES,
    options={"reduction": "none"},
    target="probabilities",
    source="google-deepmind/optax#896: 0 times infinity",
)
def test_probability_zero_at_minus_infinity(evaluate):
    """A class of weight 0 takes no part, even where its surprisal is infinite."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(9, 7), (3, 7, 5)]},
    options=EVERY_OPTION,
    source="the contract: options are independent",
)
def test_every_option_of_indices(evaluate):
    """Reduction, smoothing and ignored rows each mean what they mean alone, whatever dims follow
    the classes.
    """
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(9, 7), (3, 7, 5)]},
    options=[option for option in EVERY_OPTION if option["ignore_index"] == -100],
    target="probabilities",
    source="the contract: options are independent",
)
def test_every_option_of_probabilities(evaluate):
    """Reduction and smoothing mean the same for a distribution as for a class."""
    evaluate()


@case(
    "cross_entropy",
    family="masked_tiles",
    shapes={"quick": [(16, 33)]},
    options={"reduction": "none", "label_smoothing": 0.1},
    source="definition: smoothing gives every class a weight",
)
def test_smoothing_over_a_masked_class(evaluate):
    """Smoothing gives weight to a class at -inf as to any other: the loss is infinite."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(2000, 33)]},
    options={"reduction": "none", "label_smoothing": 0.1},
    dtypes=("bfloat16", "float16"),
    source="docs/verdict.md, section 8: the output's own rounding",
)
def test_many_smoothed_rows(evaluate):
    """Of two thousand smoothed losses some lie beside the middle of two numbers of 16 bits: all are
    rounded once.
    """
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(12, 7)]},
    options={"reduction": "none"},
    layout="strided",
    source="strides ignored",
)
def test_strided_target(evaluate):
    """Logits and target that take every second entry are read where they are."""
    evaluate()


@case(
    "cross_entropy", family="normal", shapes={"quick": [(12, 7)]}, options={"reduction": "none"},
    layout="padded",
    target="probabilities", source="strides ignored",
)  # fmt: skip
def test_padded_probabilities(evaluate):
    """Class probabilities inside longer rows are read where they are."""
    evaluate()
