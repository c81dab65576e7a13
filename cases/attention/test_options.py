"""Every option: causal in both alignments, scale, softcap, window, ALiBi, sink, lengths, alone and
together.
"""

from suite.case import case

NARROW = ("float32", "bfloat16", "float16")
SHAPES = {"quick": [(2, 4, 33, 16)], "standard": [(2, 4, 129, 64)]}
KEYS = {"keys": 70}
CONTRACT = "docs/attention.md: attention, precisely"


@case(
    "attention",
    family="probe",
    shapes={"smoke": [(1, 2, 33, 16)], "quick": [(1, 2, 65, 16)], "standard": [(1, 2, 130, 64)]},
    options=({"causal": "top_left"}, {"causal": "bottom_right"}),
    dtypes=NARROW,
    source=CONTRACT,
)
def test_causal(evaluate):
    """A query sees the keys up to its own."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"smoke": [(1, 2, 17, 16)], "standard": [(1, 2, 130, 64)]},
    options=({"causal": "top_left"}, {"causal": "bottom_right"}),
    tensors={"keys": 40},
    dtypes=NARROW,
    source="pytorch/pytorch#108108: which corner a causal mask starts from",
)
def test_alignment(evaluate):
    """With more keys than queries, the diagonal starts in the named corner."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(1, 2, 17, 16)], "standard": [(1, 2, 130, 64)]},
    options=({"causal": "top_left"}, {"causal": "bottom_right"}),
    tensors={"keys": 5},
    dtypes=NARROW,
    laws=("causal_prefix",),
    source="pytorch/pytorch#108108: which corner a causal mask starts from",
)
def test_alignment_of_fewer_keys(evaluate):
    """With fewer keys than queries likewise; from the lower corner, the first queries see no key
    and give 0.
    """
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SHAPES,
    options=({"scale": 1.0}, {"scale": -0.5}, {"scale": 0.0}, {"scale": 0.125, "causal": "top_left"}),
    tensors=KEYS,
    dtypes=("float32", "bfloat16"),
    source=CONTRACT,
)
def test_scale(evaluate):
    """The scale is what is given, negative and zero too."""
    evaluate()


@case(
    "attention",
    family="growing_maxima",
    shapes={"quick": [(1, 2, 9, 16)], "standard": [(2, 2, 33, 64)]},
    options={"scale": -1.0},
    tensors={"keys": 1100},
    dtypes=("float32", "bfloat16"),
    source="a running minimum taken for a maximum, where the scale is negative",
)
def test_negative_scale(evaluate):
    """A negative scale turns the order of the scores around, the maximum with it."""
    evaluate()


@case(
    "attention",
    family="near_overflow",
    shapes={"quick": [(1, 2, 9, 16)], "standard": [(2, 2, 33, 64)]},
    options={"softcap": 30.0},
    tensors={"keys": 70},
    dtypes=NARROW,
    source="tanh made of exponentials, which overflow",
)
def test_softcap_of_large_scores(evaluate):
    """Scores far beyond the softcap become the softcap, and no NaN."""
    evaluate()


@case(
    "attention",
    family="probe_sharp",
    shapes=SHAPES,
    options=({"softcap": 2.0}, {"softcap": 30.0, "causal": "bottom_right"}),
    tensors=KEYS,
    dtypes=NARROW,
    source="Gemma 2 (arXiv 2408.00118): c tanh(s / c)",
)
def test_softcap(evaluate):
    """A softcap bends the scaled scores before any mask."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SHAPES,
    options=(
        {"window": (8, 0)},
        {"window": (0, 3)},
        {"window": (5, None)},
        {"causal": "bottom_right", "window": (16, 0)},
        {"causal": "top_left", "window": (16, None)},
    ),
    tensors=KEYS,
    dtypes=("float32", "bfloat16"),
    source="Mistral (arXiv 2310.06825): sliding windows",
)
def test_window(evaluate):
    """A window shows the keys from left to right of the query's own place, both ends with it."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(1, 4, 17, 16), (1, 6, 17, 16)], "standard": [(2, 12, 65, 32)]},
    options=({}, {"causal": "top_left"}, {"causal": "bottom_right"}),
    tensors=({"keys": 140, "alibi_slopes": "geometric"}, {"keys": 33, "alibi_slopes": "zero_and_steep"}),
    dtypes=("float32", "bfloat16"),
    source="ALiBi (arXiv 2108.12409), also for head counts that are no power of two",
)
def test_alibi(evaluate):
    """ALiBi takes the slope of the head times the distance from the query's place."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SHAPES,
    options=({}, {"causal": "bottom_right", "window": (16, 0)}, {"return_lse": True}),
    tensors=({"keys": 70, "sink": "mixed"}, {"keys": 70, "sink": "dominant"}),
    dtypes=("float32", "bfloat16"),
    source="attention sinks of gpt-oss: a logit in the normaliser, without a value",
)
def test_sink(evaluate):
    """A sink takes its share of the weight and adds nothing."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SHAPES,
    options=({}, {"causal": "bottom_right"}),
    tensors=({"keys": 70, "kv_lengths": "ragged"}, {"keys": 70, "kv_lengths": "empty"}),
    dtypes=("float32", "bfloat16"),
    source="padded batches",
)
def test_kv_lengths(evaluate):
    """Only the first keys of each batch entry count, as many as it has."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"smoke": [(1, 2, 17, 16)], **SHAPES},
    options=({"return_lse": True}, {"return_lse": True, "causal": "bottom_right"}),
    tensors=({"keys": 70}, {"keys": 9, "mask": "random_with_empty_rows"}),
    dtypes=NARROW,
    source="docs/verdict.md, section 14: absolute, as near 0 nothing is relative",
)
def test_log_sum_exp(evaluate):
    """The log-sum-exp is natural, of the scaled scores, and kept in float32."""
    evaluate()


@case(
    "attention",
    family="probe_sharp",
    shapes={"quick": [(5, 6, 33, 16)], "standard": [(5, 6, 129, 40)]},
    options=(
        {"causal": "bottom_right", "softcap": 4.0, "window": (20, None), "return_lse": True},
        {"causal": "top_left", "scale": 0.5, "softcap": 3.0, "return_lse": True},
        {"softcap": 3.0, "scale": -0.5, "return_lse": True},
        {"causal": "bottom_right", "window": (24, 4)},
    ),
    tensors=(
        {
            "keys": 70,
            "key_heads": 3,
            "value_size": 24,
            "alibi_slopes": "geometric",
            "sink": "normal",
            "mask": "random",
        },
        {
            "keys": 70,
            "key_heads": 2,
            "alibi_slopes": "geometric",
            "sink": "normal",
            "mask": "additive_infinite",
        },
    ),
    dtypes=("float32",),
    source=CONTRACT,
)
def test_everything(evaluate):
    """All options at once: softcap, then ALiBi, then masks."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(5, 4, 17, 16)], "standard": [(5, 4, 65, 32)]},
    options=({}, {"causal": "bottom_right"}, {"causal": "top_left", "softcap": 3.0}, {"return_lse": True}),
    tensors=tuple(
        {"keys": 70, **further, "mask": "additive"}
        for further in ({"key_heads": 2}, {"sink": "normal"}, {"kv_lengths": "ragged"})
    ),
    dtypes=("float32", "bfloat16"),
    source=CONTRACT,
)
def test_additive_mask_and_more(evaluate):
    """An additive mask is one of the terms, whatever else there is; each batch entry and head has its own."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(5, 6, 17, 16)]},
    options=({}, {"window": (12, 12)}),
    tensors=(
        {"keys": 70, "key_heads": 2, "mask": "random"},
        {"keys": 70, "kv_lengths": "ragged", "sink": "mixed"},
    ),
    dtypes=("float32", "bfloat16"),
    source="a mask or a length that is read by key head, or for the first batch entries alone",
)
def test_masks_of_many_heads_and_entries(evaluate):
    """A boolean mask is by query head, lengths by batch entry."""
    evaluate()


@case(
    "attention",
    family="probe_sharp",
    shapes={"quick": [(1, 2, 9, 16)], "standard": [(2, 2, 33, 64)]},
    options=(
        {"scale": -0.5, "return_lse": True},
        {"scale": 0.0, "return_lse": True},
        {"scale": 0.7, "softcap": 2.0},
    ),
    tensors={"keys": 70},
    dtypes=("float32", "bfloat16"),
    source=CONTRACT,
)
def test_scale_with_other_options(evaluate):
    """The scale is in the log-sum-exp, with its sign, and inside the softcap."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(1, 1, 192, 16), (1, 1, 200, 16)]},
    options=({"causal": "top_left"}, {"window": (16, 0)}, {"causal": "top_left", "return_lse": True}),
    dtypes=("float32", "bfloat16"),
    source="tiles of 64 and 128 queries: the second one begins where the first ends",
)
def test_tiles_of_queries(evaluate):
    """Queries of later tiles see what those of the first do."""
    evaluate()
