"""Sums and means over the rows, in 16 bits too."""

from suite.case import case

SHAPES = {"smoke": [(16, 33)], "quick": [(64, 257)], "standard": [(1000, 33)]}


@case("cross_entropy", family="normal", shapes=SHAPES, laws=("repeat",), source="definition")
def test_mean(evaluate):
    """The mean is over the rows that are kept."""
    evaluate()


@case("cross_entropy", family="maximum_at_boundaries", shapes={"smoke": [(19, 33)]}, source="definition")
def test_mean_with_certain_rows(evaluate):
    """A row whose loss is 0 counts in the mean like any other, whatever the number of rows."""
    evaluate()


@case(
    "cross_entropy", family="normal_large", shapes=SHAPES, options={"reduction": "sum"}, source="definition"
)
def test_sum(evaluate):
    """The sum is rounded once, at the end."""
    evaluate()


@case(
    "cross_entropy",
    family="normal_small",
    shapes={"quick": [(80000, 3)]},
    source="pytorch/pytorch#29429, #61523, #91597",
)
def test_mean_of_many(evaluate):
    """Neither the number of rows nor the sum of the losses is held in 16 bits: beyond 65504 of them
    a mean is still one.
    """
    evaluate()


@case("cross_entropy", family="normal", shapes={"smoke": [(0, 33)]}, source="definition: 0 / 0")
def test_mean_of_nothing(evaluate):
    """The mean over an empty batch is NaN."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(0, 33)]},
    options={"reduction": "sum"},
    source="definition",
)
def test_sum_of_nothing(evaluate):
    """The sum over an empty batch is 0."""
    evaluate()


@case(
    "cross_entropy",
    family="normal",
    shapes={"quick": [(4, 33, 5)]},
    target="probabilities",
    source="torch: per row, not per batch",
)
def test_mean_of_probabilities(evaluate):
    """The mean over rows of class probabilities divides by the number of rows, those of trailing
    dims included.
    """
    evaluate()
