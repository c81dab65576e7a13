"""NaN and infinities: they reach what depends on them, and nothing else."""

from suite.case import case

SHAPES = {"quick": [(2, 2, 17, 16)], "standard": [(3, 4, 65, 32)]}
NARROW = ("float32", "bfloat16", "float16")
CONTRACT = "docs/attention.md: special values of attention"


@case("attention", family="nan_queries", shapes=SHAPES, tensors={"keys": 70}, dtypes=NARROW, source=CONTRACT)
def test_nan_queries(evaluate):
    """NaN in a query makes its result NaN, and no other one."""
    evaluate()


@case("attention", family="nan_key", shapes=SHAPES, tensors={"keys": 70}, dtypes=NARROW, source=CONTRACT)
def test_nan_key(evaluate):
    """NaN in a key makes the results of all that see it NaN, and no other one."""
    evaluate()


@case(
    "attention", family="infinite_values", shapes=SHAPES, tensors={"keys": 70}, dtypes=NARROW, source=CONTRACT
)
def test_infinite_values(evaluate):
    """An infinite value makes its column infinite or NaN, and no other one."""
    evaluate()
