"""Masks: boolean (True = visible) and additive, whole tiles and single keys, rows that see nothing."""

from suite.case import case

NARROW = ("float32", "bfloat16", "float16")
SHAPES = {"quick": [(2, 2, 33, 16)], "standard": [(2, 2, 129, 64)]}
EMPTY = "pytorch/pytorch#41508 and many others: NaN in rows that see nothing"


def masks(*kinds, keys=140):
    return tuple({"keys": keys, "mask": kind} for kind in kinds)


@case(
    "attention",
    family="probe",
    shapes={"smoke": [(2, 2, 17, 16)], "standard": [(2, 2, 65, 64)]},
    tensors=masks("random_with_empty_rows", "additive_infinite", keys=70),
    dtypes=NARROW,
    source=EMPTY,
)
def test_empty_rows(evaluate):
    """A query that sees no key gives exactly 0, and nothing to its neighbours."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SHAPES,
    tensors=masks("random", "checkerboard", "documents", "padding"),
    dtypes=("float32", "bfloat16"),
    source="masks read with the wrong strides, inverted, or of another batch entry",
)
def test_boolean(evaluate):
    """A boolean mask shows what is True."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(2, 2, 40, 16)], "standard": [(2, 3, 129, 64)]},
    tensors=masks("random", "additive", keys=40) + masks("random", keys=129),
    dtypes=("float32", "bfloat16"),
    source="a mask read across: with as many queries as keys its shape does not tell",
)
def test_square(evaluate):
    """Rows of a mask are queries and its columns keys."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SHAPES,
    tensors=masks("leading_tiles", "trailing_tiles", "interior_tiles"),
    dtypes=("float32", "bfloat16"),
    source="FlashAttention: exp(-inf - -inf) where the first tiles show nothing",
)
def test_masked_tiles(evaluate):
    """Tiles that show nothing, at the front, at the end and between, change nothing."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SHAPES,
    tensors=masks("one_visible", "two_visible", "all_masked"),
    dtypes=NARROW,
    source="a query that sees one key has that key's value as its result",
)
def test_few_visible(evaluate):
    """One visible key gives its value, bit for bit within the bound; none gives 0."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SHAPES,
    tensors=masks("additive", "sentinels"),
    dtypes=NARROW,
    source="position biases, and -10,000 for keys that should not be seen",
)
def test_additive(evaluate):
    """An additive mask is added to the scaled scores, and a large negative one hides."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"standard": [(1, 2, 33, 16)]},
    tensors={"keys": 70, "mask": "lowest"},
    dtypes=NARROW,
    source="docs/verdict.md, section 14: recorded, not judged",
)
def test_lowest(evaluate):
    """A row masked by the format's lowest number has no meaning that any kernel shares: it is
    recorded and not judged.
    """
    evaluate()
