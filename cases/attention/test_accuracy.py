"""Accuracy on what attention meets: scores that are alike, far apart, near overflow, in any order,
of real heads.
"""

from suite.case import case

SHAPES = {"quick": [(1, 2, 33, 32)], "standard": [(2, 2, 130, 64), (1, 2, 257, 17)]}
KEYS = ({"keys": 130},)
NARROW = ("float32", "bfloat16", "float16")
BOUND = "docs/verdict.md, section 14"


@case(
    "attention",
    family="normal",
    shapes={"smoke": [(2, 2, 17, 16)], "quick": [(1, 2, 33, 64)], "standard": [(2, 4, 128, 128)]},
    laws=("repeat", "written"),
    source=BOUND,
)
def test_normal(evaluate):
    """Normal queries, keys and values: every result lies within the bound, and a second call gives
    it again.
    """
    evaluate()


@case(
    "attention",
    family="nearly_uniform",
    shapes=SHAPES,
    tensors=KEYS,
    dtypes=NARROW,
    source="sums kept in bfloat16 stagnate",
)
def test_nearly_uniform(evaluate):
    """When every key counts alike, none is lost in the sum."""
    evaluate()


@case(
    "attention",
    family="outlier_channels",
    shapes=SHAPES,
    tensors=KEYS,
    dtypes=NARROW,
    source="arXiv 2306.12929",
)
def test_outlier_channels(evaluate):
    """A few large channels do not cost the other ones their accuracy."""
    evaluate()


@case(
    "attention",
    family="outlier_entries",
    shapes=SHAPES,
    dtypes=NARROW,
    source="FlashAttention-3 (arXiv 2407.08608), table 3",
)
def test_outlier_entries(evaluate):
    """Nor do a few large entries."""
    evaluate()


@case(
    "attention",
    family="sinks",
    shapes=SHAPES,
    tensors=KEYS,
    dtypes=NARROW,
    source="arXiv 2309.17453: attention sinks",
)
def test_sinks(evaluate):
    """What a dominant first key leaves over is right too."""
    evaluate()


@case(
    "attention",
    family="repeated_maxima",
    shapes=SHAPES,
    tensors=KEYS,
    dtypes=NARROW,
    source="arXiv 2510.04212: biased rounding",
)
def test_repeated_maxima(evaluate):
    """Weights that are exactly 1 and values of one sign do not bias the result."""
    evaluate()


@case(
    "attention",
    family="near_overflow",
    shapes={"smoke": [(1, 2, 16, 16)], **SHAPES},
    dtypes=NARROW,
    source="products of 16-bit tensors are wider than their format",
)
def test_near_overflow(evaluate):
    """Products near and beyond float16's largest number are kept in a wider format."""
    evaluate()


@case(
    "attention",
    family="very_negative",
    shapes={"smoke": [(1, 2, 17, 16)], **SHAPES},
    options=({}, {"return_lse": True}),
    dtypes=NARROW,
    source="a maximum that starts from 0 or -1e4",
)
def test_very_negative(evaluate):
    """Scores far below 0 are as good as any: only differences count, and the log-sum-exp says how
    low they were.
    """
    evaluate()


@case(
    "attention",
    family="growing_maxima",
    shapes=SHAPES,
    tensors=({"keys": 257},),
    dtypes=NARROW,
    source="arXiv 2307.08691",
)
def test_growing_maxima(evaluate):
    """A maximum that grows in every tile rescales all that came before it."""
    evaluate()


@case(
    "attention",
    family="falling_maxima",
    shapes=SHAPES,
    tensors=({"keys": 257},),
    dtypes=NARROW,
    source="arXiv 2307.08691",
)
def test_falling_maxima(evaluate):
    """A maximum that falls rescales nothing."""
    evaluate()


@case(
    "attention",
    family="value_one_sign",
    shapes=SHAPES,
    dtypes=NARROW,
    source="accumulators that are too narrow drift",
)
def test_value_one_sign(evaluate):
    """Values of one sign add up without drift."""
    evaluate()


@case(
    "attention",
    family="value_huge",
    shapes=SHAPES,
    tensors=KEYS,
    dtypes=NARROW,
    source="weights are applied before they are normalised",
)
def test_value_huge(evaluate):
    """An average of huge values overflows nowhere on its way."""
    evaluate()


@case("attention", family="cancelling_values", shapes=SHAPES, dtypes=NARROW, source=BOUND)
def test_cancelling_values(evaluate):
    """Values that nearly cancel leave what the weights leave."""
    evaluate()


@case(
    "attention",
    family="mixed_difficulty",
    shapes={"quick": [(2, 4, 33, 32)], "standard": [(3, 6, 65, 64)]},
    dtypes=NARROW,
    source="a maximum or a sum that is shared by rows, heads or batch entries",
)
def test_mixed_difficulty(evaluate):
    """Each row, head and batch entry has a maximum and a sum of its own."""
    evaluate()


@case(
    "attention", family="minilm", dtypes=NARROW, source="suite/inputs/capture: a trained model on real text"
)
def test_minilm(evaluate):
    """Real heads on real text."""
    evaluate()
