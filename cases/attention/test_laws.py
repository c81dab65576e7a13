"""Laws of attention: what must not matter does not, and every option is what it says by another way
to say it.
"""

from suite.case import case

SMALL = {"quick": [(2, 4, 33, 16)], "standard": [(2, 6, 65, 32)]}
SHARED = {"keys": 70, "key_heads": 2, "value_size": 24}
TWO = ("float32", "bfloat16")
LAWS = "docs/verdict.md, section 16: laws of attention"


@case(
    "attention",
    family="probe",
    shapes=SMALL,
    tensors=SHARED,
    dtypes=TWO,
    laws=(
        "reversed_keys",
        "reversed_queries",
        "prefix",
        "repeated_heads",
        "hidden_keys",
        "parts",
        "other_inputs",
        "repeat",
    ),
    source=LAWS,
)
def test_no_order(evaluate):
    """The order of keys and queries, what is hidden, and calls of before change nothing; halves of
    the keys are the whole.
    """
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SMALL,
    tensors={**SHARED, "keys": 69},
    dtypes=TWO,
    laws=(
        "neutral",
        "shifted_scores",
        "wide_softcap",
        "equal_values",
        "with_log_sum_exp",
        "written",
        "canaries",
    ),
    source=LAWS,
)
def test_neutral(evaluate):
    """Every option at its limit changes nothing; nothing is left unwritten, nor anything written
    elsewhere.
    """
    evaluate()


@case(
    "attention",
    family="normal",
    shapes=SMALL,
    tensors=SHARED,
    dtypes=TWO,
    laws=("alone", "hostile_neighbours"),
    source=LAWS,
)
def test_no_leak(evaluate):
    """No batch entry, and no query, knows of another."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes=SMALL,
    options=(
        {"causal": "top_left"},
        {"causal": "bottom_right", "window": (16, 0)},
        {"window": (8, 8)},
    ),
    tensors=({"keys": 71}, {"keys": 71, "kv_lengths": "ragged"}),
    dtypes=TWO,
    laws=("masked", "causal_prefix", "hidden_keys"),
    source=LAWS,
)
def test_masks(evaluate):
    """Causal, window and lengths are what one mask of what they show is."""
    evaluate()
