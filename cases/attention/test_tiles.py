"""Tile boundaries: V is a probe, so that the output is the probabilities themselves and a lost key
shows at any length.
"""

from suite.case import case

PROBE = "docs/verdict.md, section 14: a bound for V of both signs is too wide to see a lost key"
NARROW = ("float32", "bfloat16", "float16")


def lengths(*keys, value_size=32):
    return tuple({"keys": n, "value_size": value_size} for n in keys)


@case(
    "attention",
    family="probe",
    shapes={"smoke": [(1, 2, 33, 16)]},
    tensors=lengths(129),
    source=PROBE,
)
def test_probe(evaluate):
    """Every key counts exactly once."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(2, 2, 9, 16)]},
    tensors=lengths(1, 16, 17, 31, 64, 65, 128, 200, 255, 257),
    dtypes=("float32", "bfloat16"),
    source=PROBE,
)
def test_probe_at_every_length(evaluate):
    """At any number of keys, whole tiles or not."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"standard": [(1, 2, 65, 32)]},
    tensors=lengths(
        2, 3, 15, 30, 32, 33, 47, 48, 63, 95, 96, 127, 130, 160, 192, 256, 300, 384, 511, 512, 513, 1000
    ),
    dtypes=NARROW,
    source=PROBE,
)
def test_probe_at_more_lengths(evaluate):
    """And at those around every tile size from 16 to 256."""
    evaluate()


@case(
    "attention",
    family="probe",
    shapes={"quick": [(1, 1, 4, 32)], "standard": [(1, 2, 16, 32)]},
    tensors=lengths(4096),
    dtypes=("float32", "bfloat16"),
    source=PROBE,
)
def test_probe_of_a_long_context(evaluate):
    """Also where each of 4,096 keys has a small share."""
    evaluate()


@case(
    "attention",
    family="probe_sharp",
    shapes={"quick": [(1, 2, 33, 32)], "standard": [(2, 3, 129, 64)]},
    tensors=lengths(130, 257),
    dtypes=NARROW,
    source=PROBE,
)
def test_probe_sharp(evaluate):
    """A scale or an exponential that is slightly wrong moves much of a sharp distribution."""
    evaluate()


@case(
    "attention",
    family="ends",
    shapes={"quick": [(1, 2, 17, 16)], "standard": [(2, 2, 65, 64)]},
    tensors=lengths(33, 129, 256),
    dtypes=NARROW,
    source=PROBE,
)
def test_ends(evaluate):
    """The first and the last key are scaled alike, whatever tiles lie between them."""
    evaluate()


@case(
    "attention",
    family="sparse",
    shapes={"quick": [(1, 2, 17, 16)], "standard": [(2, 2, 65, 64)]},
    tensors=lengths(65, 257, value_size=16),
    dtypes=NARROW,
    source=PROBE,
)
def test_sparse(evaluate):
    """Keys on both sides of tile boundaries count, and nothing else."""
    evaluate()
