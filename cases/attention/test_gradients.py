"""Backward of attention: the gradients of q, k, v, an additive mask and a sink, with every option."""

from suite.case import case

TWO = ("float32", "bfloat16")
NARROW = ("float32", "bfloat16", "float16")
SHAPES = {"quick": [(1, 2, 18, 16)], "standard": [(2, 4, 70, 32)]}
LAW = "FlashAttention-2 (arXiv 2307.08691), algorithm 2; docs/gradients.md, section 6"
LSE = {"return_lse": True}


@case(
    "attention",
    family="normal",
    shapes={"smoke": [(1, 2, 18, 16)], "standard": [(2, 4, 130, 64)]},
    tensors={"keys": 70},
    upstream=("normal",),
    laws=("doubled", "other_upstream", "repeat"),
    dtypes=NARROW,
    source=LAW,
)
def test_upstream(evaluate):
    """The gradients are those of the definition, and linear in the upstream gradient."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"smoke": [(2, 4, 9, 16)], "standard": [(2, 6, 65, 32)]},
    options={**LSE, "causal": "bottom_right"},
    tensors={"keys": 33, "key_heads": 2, "value_size": 24, "sink": "mixed"},
    upstream=("normal",),
    dtypes=TWO,
    source="pytorch/pytorch#136232: a gradient of lse that is dropped",
)
def test_shared_heads(evaluate):
    """A key head's gradient is the sum over its query heads, a sink's over batch and queries, with
    that of lse.
    """
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"smoke": [(2, 2, 9, 16)], "standard": [(2, 2, 65, 32)]},
    options=({"softcap": 2.0, "scale": 0.5}, {}),
    tensors={"keys": 20, "mask": "additive_infinite"},
    upstream=("normal",),
    dtypes=NARROW,
    source=(
        "Dao-AILab/flash-attention#443 and pytorch/pytorch#131060: NaN where a query sees nothing;"
        " openxla/tokamax#1121"
    ),
)
def test_additive_mask(evaluate):
    """A mask has a gradient where it is finite; a query that sees nothing has 0, never NaN; a
    softcap bends the gradient.
    """
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(1, 2, 18, 16)], "standard": [(1, 2, 65, 32)]},
    tensors={"keys": 130, "value_size": 32},
    upstream=("normal", "one_hot"),
    dtypes=NARROW,
    source="tile boundaries: docs/verdict.md, section 14",
)
def test_tiles_of_keys(evaluate):
    """Every key has its gradient, at tile boundaries too; of one output entry, it is a row of the
    Jacobian.
    """
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"quick": [(1, 1, 70, 16), (1, 1, 20, 16)], "standard": [(1, 2, 130, 32)]},
    options=({"causal": "top_left"},),
    tensors={"keys": 20},
    upstream=("normal",),
    dtypes=TWO,
    source="Dao-AILab/flash-attention#334: tiles of queries that are not full",
)
def test_tiles_of_queries(evaluate):
    """Every query gives its part to the keys that it sees; with as many queries as keys too."""
    evaluate()


@case(
    "attention",
    family="probe_sharp",
    shapes=SHAPES,
    tensors={"keys": 40},
    upstream=("normal", "one_hot"),
    dtypes=NARROW,
    source=LAW,
)
def test_sharp(evaluate):
    """Where a few keys have all the weight, what is left of dP - D is a small difference."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes=SHAPES,
    tensors={"keys": 40},
    upstream=("huge", "tiny", "constant"),
    dtypes=NARROW,
    source="loss scaling",
)
def test_scaled(evaluate):
    """A loss scale scales the gradients, and products with tiny ones fall below the normal numbers
    within the bound.
    """
    evaluate()


@case(
    "attention",
    family="normal",
    shapes=SHAPES,
    options=({"causal": "top_left"}, {"causal": "bottom_right", "window": (5, 0)}, {"window": (4, 3)}),
    tensors={"keys": 33},
    upstream=("normal",),
    dtypes=TWO,
    source="triton-lang/triton#4174: a backward that was tested for causal calls alone",
)
def test_causal_and_window(evaluate):
    """The way back sees what the way forward saw, and nothing reaches a key that no query saw."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes=SHAPES,
    options={"causal": "bottom_right"},
    tensors={"keys": 5},
    upstream=("normal",),
    dtypes=TWO,
    source="Dao-AILab/flash-attention#443: more queries than keys, NaN in dQ only",
)
def test_more_queries_than_keys(evaluate):
    """Queries before the first key have a gradient of exactly 0."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"quick": [(2, 2, 18, 16)], "standard": [(2, 4, 65, 32)]},
    tensors=(
        {"keys": 40, "mask": "random_with_empty_rows"},
        {"keys": 40, "mask": "additive"},
        {"keys": 40, "mask": "padding"},
        {"keys": 40, "mask": "all_masked"},
    ),
    upstream=("normal",),
    dtypes=TWO,
    source="pytorch/pytorch#41508: NaN of masked rows in the gradients of the others",
)
def test_masks(evaluate):
    """A hidden key has a gradient of exactly 0; an additive mask's is summed over the batch."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes=SHAPES,
    options={"causal": "bottom_right"},
    tensors={"keys": 40, "alibi_slopes": "geometric"},
    upstream=("normal",),
    dtypes=TWO,
    source="ALiBi (arXiv 2108.12409)",
)
def test_alibi(evaluate):
    """ALiBi is in the weights of the way back too."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"quick": [(3, 2, 9, 16)], "standard": [(5, 2, 65, 32)]},
    options=({}, LSE),
    tensors={"keys": 40, "kv_lengths": "ragged", "sink": "normal"},
    upstream=("normal",),
    dtypes=TWO,
    source="Dao-AILab/flash-attention#752: gradients behind the last key are not written",
)
def test_kv_lengths(evaluate):
    """Keys behind a batch entry's length have a gradient of exactly 0, and an entry without keys
    all of them.
    """
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"quick": [(2, 2, 9, 16)]},
    layout="transposed",
    tensors={"keys": 20},
    upstream=("normal",),
    dtypes=TWO,
    source="pytorch/pytorch#139740: a tensor of the backward that is read as contiguous",
)
def test_transposed(evaluate):
    """An upstream gradient in another layout, as a transpose behind the attention gives it, is the
    same one.
    """
    evaluate()


@case(
    "attention",
    family="normal",
    shapes=SHAPES,
    options={"scale": 8.0},
    tensors={"keys": 40},
    upstream=("normal",),
    dtypes=NARROW,
    source="pytorch/pytorch#113708: lse rounded for the backward",
)
def test_large_scores(evaluate):
    """Weights recomputed from a log-sum-exp far from 0 carry its roundings, of float32 and not of 16 bits."""
    evaluate()


@case(
    "attention",
    family="normal",
    shapes=SHAPES,
    options=({"softcap": 2.0}, {"scale": -0.5}),
    tensors={"keys": 33},
    upstream=("normal",),
    dtypes=TWO,
    source=LAW,
)
def test_softcap_and_scale(evaluate):
    """A softcap alone bends the gradient by 1 - tanh^2; a scale of any sign stands before dQ and dK
    with its sign.
    """
    evaluate()


@case(
    "attention",
    family="normal",
    shapes={"quick": [(1, 1, 9, 128)], "standard": [(1, 2, 33, 192)]},
    tensors={"keys": 20},
    upstream=("normal",),
    dtypes=TWO,
    source=LAW,
)
def test_wide_heads(evaluate):
    """Heads of 128 entries: D, dP and the products run over all of them."""
    evaluate()
