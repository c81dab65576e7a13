"""Sizes and layouts: one query, one key, more of either, any head size, shared heads, and tensors
as models hold them.
"""

from suite.case import case

NARROW = ("float32", "bfloat16", "float16")
SHAPES = "a kernel for whole tiles meets others"


@case(
    "attention",
    family="probe",
    shapes={"smoke": [(2, 2, 1, 16)], "standard": [(1, 2, 1, 128)]},
    tensors={"keys": 70},
    dtypes=NARROW,
    source=SHAPES,
)
def test_one_query(evaluate):
    """One query, as in decoding."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(1, 2, 1, 16)]},
    options=({}, {"causal": "top_left"}, {"causal": "bottom_right"}),
    tensors=({"keys": 33}, {"keys": 1}),
    dtypes=("float32", "bfloat16"),
    source="a causal mask that is dropped where there is one query",
)
def test_one_query_or_key(evaluate):
    """One query sees the first key, or the keys up to the last, by the alignment; of one key the
    value is the result.
    """
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"quick": [(2, 2, 40, 16)], "standard": [(1, 2, 200, 64)]},
    tensors=({"keys": 1}, {"keys": 7}),
    dtypes=("float32", "bfloat16"),
    source=SHAPES,
)
def test_more_queries_than_keys(evaluate):
    """More queries than keys."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={
        "quick": [(1, 2, 17, size) for size in (8, 40, 80, 128, 256)],
        "standard": [(1, 2, 33, size) for size in (1, 3, 31, 33, 63, 96, 100, 127, 160, 192, 255)],
    },
    tensors={"keys": 66},
    dtypes=("float32", "bfloat16"),
    source=SHAPES,
)
def test_head_sizes(evaluate):
    """Head sizes of 8 to 256, odd ones among them, each with its own default scale."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(2, 2, 17, 16)], "standard": [(1, 2, 65, 64)]},
    tensors=({"keys": 66, "value_size": 8}, {"keys": 66, "value_size": 40}, {"keys": 66, "value_size": 1}),
    dtypes=NARROW,
    source="multi-head latent attention: values have a size of their own",
)
def test_value_sizes(evaluate):
    """Values have a head size of their own."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"smoke": [(2, 6, 9, 16)]},
    tensors={"keys": 33, "key_heads": 2},
    dtypes=NARROW,
    laws=("repeated_heads",),
    source="arXiv 2305.13245: grouped queries",
)
def test_shared_heads(evaluate):
    """Head h reads key head h // (H / G)."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(2, 12, 9, 16)]},
    tensors=({"keys": 33, "key_heads": 4}, {"keys": 33, "key_heads": 1}),
    dtypes=NARROW,
    source="arXiv 1911.02150: one key head for all queries",
)
def test_more_shared_heads(evaluate):
    """Whether few heads or all share one."""
    evaluate()


def layouts(layout):
    @case(
        "attention",
        family="normal",
        shapes={"quick": [(2, 4, 17, 16)]},
        tensors=({"keys": 33}, {"keys": 33, "key_heads": 2}),
        layout=layout,
        dtypes=("float32", "bfloat16"),
        laws=("canaries",),
        source="strides that are not those of a contiguous tensor",
    )
    def check(evaluate):
        """q, k and v are read by their strides."""
        evaluate()

    return check


test_transposed = layouts("transposed")
test_strided = layouts("strided")
test_padded = layouts("padded")
test_expanded = layouts("expanded")
test_channels_last = layouts("channels_last")
