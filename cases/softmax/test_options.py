"""softmax with a temperature, and off by one."""

from suite.case import case

OFF_BY_ONE = "Miller, Attention is off by one, 2023: one more exp(0) in the denominator"


@case(
    "softmax",
    family="normal",
    shapes={"smoke": [(8, 257)]},
    options={"temperature": 0.7},
    source="flashinfer-ai/flashinfer#5088",
)
def test_temperature(evaluate):
    """softmax(x / T) divides differences of logits, once."""
    evaluate()


@case(
    "softmax",
    family="offset",
    shapes={"quick": [(8, 33)]},
    options={"temperature": 0.001},
    source="flashinfer-ai/flashinfer#5088",
)
def test_low_temperature(evaluate):
    """A temperature near 0 gives the largest logit everything, and probabilities above 1 to none."""
    evaluate()


@case(
    "softmax",
    family="normal_small",
    shapes={"quick": [(8, 33)]},
    options={"temperature": 0.001},
    source="docs/verdict.md, 2",
)
def test_low_temperature_of_a_flat_row(evaluate):
    """A temperature near 0 is taken at its word: nothing clamps it."""
    evaluate()


@case(
    "softmax",
    family="normal_large",
    shapes={"quick": [(8, 257)]},
    options={"temperature": 100.0},
    source="RL-Align/RL-Kernel#86",
)
def test_high_temperature(evaluate):
    """A high temperature flattens, and divides once only."""
    evaluate()


@case(
    "softmax",
    family="normal",
    shapes={"smoke": [(8, 257)]},
    options={"off_by_one": True},
    laws=("batch",),
    source=OFF_BY_ONE,
)
def test_off_by_one(evaluate):
    """With one more exp(0) in the denominator, probabilities sum to less than 1."""
    evaluate()


@case(
    "softmax",
    family="very_negative",
    shapes={"quick": [(8, 33)]},
    options={"off_by_one": True},
    source=OFF_BY_ONE,
)
def test_off_by_one_far_below(evaluate):
    """Rows far below zero get next to nothing: the 1 is the maximum."""
    evaluate()


@case(
    "softmax",
    family="overflow_edge",
    shapes={"quick": [(16, 33)]},
    options={"off_by_one": True},
    source=OFF_BY_ONE,
)
def test_off_by_one_is_shifted_too(evaluate):
    """Beside logits of hundreds the 1 is nothing: it must be shifted like the others."""
    evaluate()


@case(
    "softmax",
    family="masked_tiles",
    shapes={"quick": [(8, 33)]},
    options={"off_by_one": True},
    source=OFF_BY_ONE,
)
def test_off_by_one_masked(evaluate):
    """A row that is all -inf has one logit still, the 0 that has no output: its results are 0."""
    evaluate()


HOT, ONE = {"temperature": 0.7}, {"off_by_one": True}


@case(
    "softmax",
    family="two_heavy_ends",
    shapes={"quick": [(8, 1025)], "standard": [(4, 4096), (2, 32768)]},
    options=[HOT, ONE],
    source="docs/verdict.md, section 7: long rows",
)
def test_options_of_long_rows(evaluate):
    """An option means the same at any length."""
    evaluate()


@case(
    "softmax",
    family="normal",
    shapes={"quick": [(5, 3, 7)]},
    options=[{**option, "dim": dim} for option in (HOT, ONE) for dim in (0, 1)],
    source="JuliaGPU/CUDA.jl#599: dim ignored",
)
def test_options_of_other_dims(evaluate):
    """An option means the same along any dim."""
    evaluate()


@case(
    "softmax",
    family="two_heavy_ends",
    shapes={"quick": [(6, 33)]},
    options=[HOT, ONE],
    layout="padded",
    source="strides ignored",
)
def test_options_of_padded_rows(evaluate):
    """An option means the same in any layout."""
    evaluate()


@case(
    "softmax",
    family="masked_tiles",
    shapes={"quick": [(8, 33)]},
    options=HOT,
    source="docs/verdict.md, section 1",
)
def test_temperature_of_masked_rows(evaluate):
    """-inf over a temperature is -inf: its result is exactly 0."""
    evaluate()


@case(
    "softmax",
    family="nan_and_infinity",
    shapes={"quick": [(8, 33)]},
    options=[HOT, ONE],
    source="docs/verdict.md, section 1",
)
def test_options_of_special_values(evaluate):
    """NaN and +inf are no option's business."""
    evaluate()


@case(
    "softmax",
    family="sentinels",
    shapes={"quick": [(8, 33)]},
    options=[HOT, ONE],
    source="docs/verdict.md, section 1",
)
def test_options_of_sentinels(evaluate):
    """A large negative number masks, whatever it is divided by."""
    evaluate()


@case(
    "softmax",
    family="normal",
    shapes={"quick": [(8, 257)]},
    options={**HOT, **ONE},
    source="docs/verdict.md, section 2",
)
def test_both_options(evaluate):
    """The extra logit 0 is divided by the temperature as well, which leaves it 0."""
    evaluate()
