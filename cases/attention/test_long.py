"""Long sequences: a sample of the queries is judged, with rows audited in ball arithmetic, and no
entry may be impossible.
"""

from suite.case import case

LONG = "docs/verdict.md, section 14: which queries of a long sequence are judged"


@case(
    "attention",
    family="probe",
    shapes={"standard": [(1, 1, 1024, 64)]},
    options=({}, {"causal": "top_left"}),
    dtypes=("float32", "bfloat16", "float16"),
    source=LONG,
)
def test_1024(evaluate):
    """One head of 1,024 queries and keys."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"standard": [(1, 2, 4096, 64)], "full": [(1, 1, 8192, 128)]},
    options=({"causal": "top_left"},),
    dtypes=("float32", "bfloat16"),
    source=LONG,
)
def test_thousands(evaluate):
    """Thousands of queries, of which the first, the last, those at tile boundaries, the hardest and
    others are judged.
    """
    evaluate()
