"""The ends of the range: overflow, underflow, saturation, offsets."""

from suite.case import case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")
BHH = "Blanchard, Higham and Higham, IMA J. Numer. Anal. 41(4), 2021, doi 10.1093/imanum/draa038"


@case(*ROW_OPS, family="overflow_edge", source=BHH)
def test_overflow_edge(evaluate):
    """A row around ln Omega has a finite result: only differences of logits may enter exp."""
    evaluate()


@case(*ROW_OPS, family="underflow_edge", source=BHH)
def test_underflow_edge(evaluate):
    """Results pass gradually through the subnormal numbers into 0; a device that flushes may give 0
    below the normal ones.
    """
    evaluate()


@case(*ROW_OPS, family="subnormal_results", source="docs/verdict.md, section 9: underflow and flush to zero")
def test_subnormal_results(evaluate):
    """A row of which most results are subnormal is judged by the spacing of the subnormals, or
    flushed as a whole.
    """
    evaluate()


@case(*ROW_OPS, family="saturation_edge", source="suite/formats.py: saturation_in_format, saturation_rounded")
def test_saturation_edge(evaluate):
    """A probability rounds to exactly 1 where the closed threshold says so, and its competitors
    stay right.
    """
    evaluate()


@case(*ROW_OPS, family="log_near_zero", source="pytorch/pytorch#113708: logarithms beside 0")
def test_log_near_zero(evaluate):
    """A logarithm beside 0 has the absolute accuracy of its bound: nothing of the size of the
    logits may be lost in it.
    """
    evaluate()


@case(
    *ROW_OPS,
    family="very_negative",
    laws=("repeat",),
    source="iree-org/iree#24175; pytorch/pytorch#196678: lse below -88",
)
def test_very_negative(evaluate):
    """A row far below zero is as good as any other: a sum of zeros, or a sentinel above the logits, shows."""
    evaluate()


@case(*ROW_OPS, family="offset", source="docs/verdict.md, section 6: what shift invariance costs")
def test_offset(evaluate):
    """A common offset changes nothing but the bits that it took from the inputs."""
    evaluate()


@case(
    *ROW_OPS,
    family="exact_offset",
    laws=("replay",),
    source="pytorch/pytorch#38839: log_softmax at an offset of 1e7",
)
def test_exact_offset(evaluate):
    """An offset that every logit holds exactly, up to the top of the format, changes nothing at all."""
    evaluate()


@case(*ROW_OPS, family="tiny_logits", source="docs/verdict.md, section 9")
def test_tiny_logits(evaluate):
    """Subnormal logits and signed zeros are zeros as far as exp is concerned: a uniform row."""
    evaluate()


@case(
    *ROW_OPS,
    family="sentinels",
    source="flashinfer-ai/flashinfer#4401: a sentinel of -5e4 beaten by lower logits",
)
def test_sentinels(evaluate):
    """A large negative number masks like -inf, and a row that is all sentinel is an ordinary row."""
    evaluate()


@case(
    *ROW_OPS,
    family="known_bugs",
    shapes={"smoke": [(64, 33)], "standard": [(64, 257)]},
    laws=("batch",),
    source="docs/known-bugs.md: the reports, one by one",
)
def test_known_bugs(evaluate):
    """The very numbers of public bug reports have the right result."""
    evaluate()
