"""What the target can be: ignored, smoothed, a distribution."""

from suite.case import case

SHAPES = {"smoke": [(16, 33)], "quick": [(8, 257)], "standard": [(8, 1000)]}


@case("cross_entropy", family="normal", shapes=SHAPES, options={"ignore_index": 3, "reduction": "none"}, source="pytorch#72056")
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
    "cross_entropy", family="masked_tiles", shapes=SHAPES, options={"reduction": "sum"}, target="ignored", source="definition"
)
def test_everything_ignored(evaluate):
    """The sum over ignored rows only is exactly 0, whatever their logits."""
    evaluate()


@case("cross_entropy", family="normal", shapes={"smoke": [(4, 33)]}, target="ignored", source="definition: 0 / 0")
def test_mean_of_ignored(evaluate):
    """The mean over no row is NaN."""
    evaluate()


@case("cross_entropy", family="normal", shapes=SHAPES, options={"reduction": "none"}, target="probabilities", source="torch")
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
