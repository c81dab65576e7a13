"""studies/vanishing: gradients that are known to vanish, and faults that the counts must tell apart."""

import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from suite.formats import DTYPES, get_format
from suite.inputs.draws import Draw
from suite.kernels import Kernel, own_kernels
from suite.ops import Result, get_op, measured_by
from suite.records.record import Measurement
from suite.studies import vanishing
from suite.studies.vanishing import COLUMNS, measure
from suite.studies.vanishing.mitigations import LOSSES, MITIGATIONS
from suite.studies.vanishing.question import Question, counts
from suite.studies.vanishing.tables import attention_zeros, measured_threshold, stepwise, threshold_table
from suite.studies.vanishing.theory import losses, median_maximum, theory_of_length, theory_of_scale

DOCUMENT = Path(__file__).parent.parent / "docs" / "vanishing.md"


@pytest.fixture(autouse=True)
def short_rows(monkeypatch):
    """The longest rows add time and no new branch."""
    monkeypatch.setattr(vanishing, "LENGTHS", (2, 32, 512))
    monkeypatch.setattr(vanishing, "THRESHOLD_LENGTHS", (2, 33))
    monkeypatch.setattr(vanishing, "SLOW_SECONDS", 60.0)
    monkeypatch.setattr(vanishing, "LAST_SECONDS", 60.0)


def data(function, dtype, op="softmax", **declared):
    measured = measure(Kernel(id="mutant", op=op, call=function, **declared), dtype).data
    json.dumps(measured, allow_nan=False)
    return measured


def question(logits, upstream=None, target=None):
    x = np.asarray(logits, dtype=np.float64)
    upstream = np.ones((len(x), 1)) if upstream is None else np.asarray(upstream, dtype=np.float64)
    return Question(x, upstream, x.argmax(1) if target is None else np.asarray(target))


# The exact gradient.


def reference(op, logits, upstream, target):
    """The gradient of a row by central differences of the op's definition, 200 digits."""

    def loss(x):
        lse = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in x))
        if op in ("softmax", "attention"):
            return mpmath.fsum(g * mpmath.exp(v - lse) for g, v in zip(upstream, x, strict=True))
        if op == "logsumexp":
            return upstream[0] * lse
        return upstream[0] * (x[target] - lse) * (1 if op == "log_softmax" else -1)

    with mpmath.workdps(200):
        step = mpmath.mpf(10) ** -60
        x = [mpmath.mpf(float(v)) for v in logits]
        moved = [([*x[:i], v + step, *x[i + 1 :]], [*x[:i], v - step, *x[i + 1 :]]) for i, v in enumerate(x)]
        return [float((loss(up) - loss(down)) / (2 * step)) for up, down in moved]


@pytest.mark.parametrize("op", measured_by("vanishing"))
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_exact_gradient_is_the_derivative_of_the_definition(op, scale):
    """To 1e-13: 8 terms of float64, and differences of g of about 1, none of which cancels by more
    than a factor of 50.
    """
    x = Draw("vanishing/x").normal(4, 8) * scale
    whole = op in ("softmax", "attention")
    g = Draw("vanishing/g").normal(4, 8 if whole else 1)
    asked = question(x, g, [0, 3, 5, 7])

    found = asked.exact(get_op(op).result)

    for row in range(4):
        assert found[row] == pytest.approx(
            reference(op, x[row], g[row], int(asked.target[row])), rel=1e-13, abs=0
        )


def test_the_largest_entry_keeps_its_gradient_at_any_gap():
    """(1 - p) p = e^-g / (1 + e^-g)^2, where 1 - p computed as a difference would be 0."""
    asked = question([[0.0, -50.0]], [[1.0, 0.0]])

    assert asked.exact(Result.PROBABILITY)[0] == pytest.approx([math.exp(-50), -math.exp(-50)], rel=1e-15)


def test_the_entropy_lies_above_its_bound_and_meets_it_at_one_against_the_rest():
    x = Draw("vanishing/entropy").normal(200, 16) * 4
    for row in x:
        entropy, bound = question([row]).entropy()
        assert entropy >= bound - 1e-14  # float64 rounding of 16 terms of at most ln 16
    entropy, bound = question([[3.0] + [0.0] * 15]).entropy()
    assert entropy == pytest.approx(bound, rel=1e-14)


# Counts.


def test_each_kind_of_zero_is_counted_as_what_it_is():
    float16 = get_format("float16")
    exact = np.array([[2.0**-14, 2.0**-15, 2.0**-25, -1.0], [2.0**-26, 2.0**-26, 2.0**-26, 2.0**-26]])
    got = np.array([[0.0, 0.0, 0.0, -1.0], [0.0] * 4])

    found = counts(got, exact, question(np.zeros((2, 4))), float16)

    assert found["zero"] == 7 / 8
    assert found["false_zero"] == 1 / 8
    assert found["flushed"] == 1 / 8
    assert found["underflow"] == 5 / 8
    assert (found["dead"], found["dead_floor"]) == (0.5, 0.5)
    # The first entry is the largest; in the second row its gradient is no normal number.
    assert found["top_lost"] == 0.5
    assert found["defect"] == 1.0
    assert found["not_finite"] == 0


def test_what_is_not_finite_is_neither_zero_nor_a_defect():
    exact = np.array([[0.5, -0.5], [0.5, -0.5]])

    found = counts(
        np.array([[math.nan, 0.0], [0.5, -0.5]]), exact, question(np.zeros((2, 2))), get_format("float32")
    )

    assert found["not_finite"] == 0.25
    assert found["defect"] == 0.0
    assert found["dead"] == 0.0
    assert (
        counts(exact * math.inf, exact, question(np.zeros((2, 2))), get_format("float32"))["defect"] is None
    )


# Thresholds: measured in exact models of arithmetic, and where torch differs.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 33])
def test_a_sum_in_order_in_the_format_saturates_at_p_ln_2(dtype, n):
    """Absorption is entry by entry, so n does not matter; to one number of the grid."""
    entry = measured_threshold(stepwise(wide=False), dtype, n)

    assert abs(entry["measured"] - get_format(dtype).saturation_in_format) <= entry["spacing"]
    assert f"absorbed {dtype}" in entry["agrees_with"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 33, 4096])
def test_a_p_rounded_once_saturates_where_theory_says(dtype, n):
    """n = 4,096 with one row a call for the gradient of the model sums in order."""
    if n == 4096:
        model = Kernel(id="model", op="softmax", call=rounding(get_format(dtype)))
    else:
        model = stepwise(wide=True)
    entry = measured_threshold(model, dtype, n)

    assert entry["measured"] - entry["spacing"] < get_format(dtype).saturation_rounded(n) <= entry["measured"]
    assert f"rounded {dtype}" in entry["agrees_with"]


def rounding(format):
    """A softmax whose saved p is the exact one, rounded; everything else is float64."""

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            asked = Question(x.double().numpy(), np.zeros(0), np.zeros(0, dtype=np.int64))
            p, rest = asked.parts
            np.put_along_axis(p, asked.top, 1 - np.take_along_axis(rest, asked.top, 1), 1)
            saved = torch.from_numpy(format.round(p))
            context.save_for_backward(saved)
            return saved.to(x.dtype)

        @staticmethod
        def backward(context, g):
            [p] = context.saved_tensors
            centred = g.double() - (p * g.double()).sum(1, keepdim=True)
            return torch.from_numpy(
                get_format(str(g.dtype).removeprefix("torch.")).round((p * centred).numpy())
            ).to(g.dtype)

    return lambda x, dim=-1: Rounded.apply(x)


def test_torch_softmax_saturates_in_float32_arithmetic_and_at_the_rounded_p_of_16_bits():
    """theory: float32 and float64 sum 1 + e^-g in their own format; 16 bits are wide inside and
    save p in the format.
    """
    own = own_kernels("softmax")["fused"]
    found = {dtype: measured_threshold(own, dtype, 2) for dtype in DTYPES}

    for dtype in ("float64", "float32"):
        assert f"absorbed {dtype}" in found[dtype]["agrees_with"]
        assert (
            abs(found[dtype]["measured"] - get_format(dtype).saturation_in_format) <= found[dtype]["spacing"]
        )
    for dtype in ("bfloat16", "float16"):
        assert found[dtype]["agrees_with"] == [f"rounded {dtype}"]
    assert found["bfloat16"]["measured"] == 6.25
    assert found["float32"]["measured"] == pytest.approx(16.63553, abs=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["softmax", "logsumexp", "cross_entropy"])
def test_the_others_vanish_where_half_the_smallest_subnormal_number_is(dtype, op):
    entry = measured_threshold(own_kernels(op)["fused"], dtype, 2, entry=-1)

    assert abs(entry["measured"] - get_format(dtype).exp_underflow) <= entry["spacing"]
    assert entry["agrees_with"][0] == f"zero {dtype}"


def test_autograd_through_the_maximum_keeps_the_largest_logit_alive_as_long_as_the_others():
    """Its gradient is then the negative sum of theirs, and p = 1 has no part in it."""
    through = data(right, "float32")
    detached = data(detached_maximum, "float32")

    assert [entry["agrees_with"][-1] for entry in through["saturation"]] == ["others float32"] * 2
    assert detached["saturation"][0]["agrees_with"] == ["absorbed float32"]
    assert max(through["scale"]["defect"]) < 1e-6  # 256 roundings of float32, 2^-24 each, would make 1.5e-5
    assert max(detached["scale"]["defect"]) > 0.1


def detached_maximum(x, dim=-1):
    e = torch.exp(x - x.amax(dim, keepdim=True).detach())
    return e / e.sum(dim, keepdim=True)


@pytest.mark.parametrize(("n", "op"), [(2, "softmax"), (33, "softmax"), (33, "cross_entropy")])
def test_the_closed_loss_solves_its_equation(n, op):
    """e / (1 + (n - 1) e)^k = eta / 2 with k = 2 for p (1 - p) and k = 1 for p, to 12 digits of g
    of about 17.
    """
    format = get_format("float16")
    with mpmath.workdps(40):
        g = mpmath.mpf(losses(get_op(op).result, format, n)["zero float16"])
        e = mpmath.exp(-g)
        share = e / (1 + (n - 1) * e) ** (2 if op == "softmax" else 1)
    assert float(share / 2**-25) == pytest.approx(1.0, abs=2e-14 * 17 * 10)


# The curves against theory's table: the share of zeros in attention of n = 256, d = 64, q scaled by
# 1, 4, 16, 64.


def test_zeros_of_attention_gradients_are_those_of_the_table():
    """float16 0, .114, .948, .992; float32 0, 0, .001, .863: other draws, so to 0.02. Of dead rows,
    0, 0, .039, .344, only the order: 256 rows share their keys, so that their number scatters by
    more than that of independent rows.
    """
    half, dead = attention_zeros("float16")
    single, _ = attention_zeros("float32")

    assert half == pytest.approx([0, 0.114, 0.948, 0.992], abs=0.02)
    assert single == pytest.approx([0, 0, 0.001, 0.863], abs=0.02)
    assert dead[:2] == [0, 0]
    assert 0.039 / 2 < dead[2] < 0.039 * 2
    assert 0.344 / 2 < dead[3] < 0.344 * 2


@pytest.mark.parametrize(("dtype", "at"), [("float16", 8.0), ("bfloat16", 32.0), ("float32", 32.0)])
def test_half_of_the_entries_vanish_near_the_closed_logit_scale(dtype, at):
    """Scales are a factor of 2 apart: the share crosses a half between the neighbours of the closed place."""
    curve = data(torch.softmax, dtype)["scale"]
    place = theory_of_scale(get_format(dtype))["underflow"]

    below = max(v for s, v in zip(curve["at"], curve["zero"], strict=True) if s <= place / 1.5)
    above = min(v for s, v in zip(curve["at"], curve["zero"], strict=True) if s >= place * 1.5)
    assert below < 0.5 < above
    assert at / 2 < place < 2 * at


def test_the_median_maximum_is_that_of_the_draws():
    """4,000 rows of 256: the median's standard error is 0.4 / 63, so 0.03 is 4 of them and more."""
    rows = Draw("vanishing/maximum").normal(4000, 256)

    assert np.median(rows.max(1)) == pytest.approx(median_maximum(256), abs=0.03)


def test_a_closed_length_exists_only_where_half_of_a_row_can_vanish():
    assert theory_of_length(get_format("float32")) == {}
    n = theory_of_length(get_format("float16"))["underflow"]
    assert 4 * median_maximum(int(n)) == pytest.approx(get_format("float16").exp_underflow, rel=1e-3)


# Mutants, told apart by their counts.


class Flushing(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, g):
        return torch.where(g.abs() < 2.0**-14, 0.0, g)


def flushing(x, dim=-1):
    """The gradient's entries below 2^-14 are 0."""
    return right(Flushing.apply(x), dim)


def every_second_row_detached(x, dim=-1):
    p = right(x, dim)
    odd = (torch.arange(len(x)) % 2 == 1)[:, None]
    return torch.where(odd, p.detach(), p)


def right(x, dim=-1):
    """Wide inside, and the gradient of the largest logit is minus the sum of the others'."""
    wide = x.float()
    e = torch.exp(wide - wide.amax(dim, keepdim=True))
    return (e / e.sum(dim, keepdim=True)).to(x.dtype)


def test_a_right_gradient_loses_nothing():
    found = data(right, "float16")["scale"]

    assert max(found["false_zero"]) == 0
    assert max(found["top_lost"]) == 0
    assert max(found["flushed"]) < 0.001  # where p - sum p g crosses zero: a few entries in 16,384
    assert found["dead"] == found["dead_floor"]


def test_a_flushing_backward_shows_in_flushed_entries_and_not_in_false_zeros():
    found = data(flushing, "float16")

    assert max(found["scale"]["flushed"]) > 0.1
    assert max(found["scale"]["false_zero"]) == 0
    assert found["lost"][0]["agrees_with"] == ["flushed float16"]


def test_flushing_at_the_wrong_place_gives_false_zeros():
    """2^-14 is a normal number of bfloat16."""
    assert max(data(flushing, "bfloat16")["scale"]["false_zero"]) > 0.5
    assert max(data(right, "bfloat16")["scale"]["false_zero"]) == 0


def test_detached_rows_are_dead():
    found = data(every_second_row_detached, "float32")["scale"]

    assert found["dead"] == [0.5] * len(found["at"])
    assert min(found["top_lost"]) == 0.5
    assert found["false_zero"][0] == 0.5


def test_a_p_that_is_saved_in_bfloat16_shows_in_the_saturation():
    found = data(rounding(get_format("bfloat16")), "float32")

    assert found["saturation"][0]["agrees_with"] == ["rounded bfloat16"]
    assert max(found["scale"]["defect"]) > 0.3
    assert data(torch.softmax, "float32")["saturation"][0]["agrees_with"] == ["absorbed float32"]


def test_the_four_kernels_have_four_different_counts():
    kernels = (right, flushing, every_second_row_detached, rounding(get_format("bfloat16")))
    seen = [data(kernel, "float32") for kernel in kernels]
    curves = [found["scale"] for found in seen]
    signs = [(max(c["false_zero"]) > 0.4, c["dead"][0] > 0.4, max(c["defect"]) > 0.1) for c in curves]

    assert len(set(signs)) == 4


# Mitigations.


def by_name(found):
    return {one["name"]: one for one in found["mitigations"]}


def test_each_mitigation_helps_where_theory_says():
    """torch.softmax in float16 on logits of scale 16."""
    found = by_name(data(torch.softmax, "float16"))

    assert list(found) == [*MITIGATIONS, *LOSSES]
    assert found["none"]["zero"] > 0.9
    assert found["float32 inside"]["zero"] == pytest.approx(found["float32 inside"]["underflow"], abs=0.001)
    assert found["temperature 4"]["zero"] < 0.2
    assert found["QK-norm"]["zero"] == 0
    assert found["loss scaled by 1024"]["underflow"] < found["none"]["underflow"] - 0.05
    assert found["loss scaled by 1024"]["zero"] > 0.9  # the saved p of float16 is 0 already
    assert found["loss -log(p)"]["not_finite"] > 0.9
    assert found["loss from logits"]["not_finite"] == 0
    assert found["loss from logits"]["defect"] < 0.01


def test_a_scaled_loss_helps_a_kernel_that_is_wide_inside():
    found = by_name(data(right, "float16"))

    assert found["loss scaled by 1024"]["zero"] < found["none"]["zero"] - 0.05


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_float32_inside_keeps_what_a_kernel_in_the_format_loses(dtype):
    found = by_name(data(detached_maximum, dtype))

    if dtype == "float32":
        assert found["float32 inside"] == {**found["none"], "name": "float32 inside"}
    else:
        assert found["float32 inside"]["top_lost"] < found["none"]["top_lost"] / 2


# The measurement as a whole.


@pytest.mark.share(of=4)
@pytest.mark.parametrize("op", measured_by("vanishing"))
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_every_op_is_measured_and_fits_its_file(op, dtype):
    kernel = own_kernels(op)["sdpa_math" if op == "attention" else "fused"]
    measured = measure(kernel, dtype)

    assert Measurement.from_dict(json.loads(measured.to_json())) == measured
    assert len(measured.to_json()) < 20_000
    for axis in ("scale", "length", "gap"):
        assert {len(measured.data[axis][name]) for name in COLUMNS} == {len(measured.data[axis]["at"])}
    assert measured.data["lost"][0]["agrees_with"]
    assert (measured.data["saturation"] == []) == (op == "logsumexp")


def test_attention_is_asked_the_question_of_softmax():
    """The same logits and upstream gradients, in float64: to the last digits that the file keeps."""
    softmax, attention = (
        measure(own_kernels(op)["shifted"], "float64").data for op in ("softmax", "attention")
    )

    assert attention["scale"]["exact_gain"] == softmax["scale"]["exact_gain"]
    assert attention["scale"]["gain"] == softmax["scale"]["gain"]


@pytest.mark.parametrize(
    ("function", "declared", "words"),
    [
        (lambda x, dim=-1: 1 / 0, {}, "raised on 1 rows of 1024: ZeroDivisionError"),
        (
            lambda x, dim=-1: torch.softmax(x, dim).detach(),
            {},
            "unsupported on 1 rows of 1024: NotImplementedError",
        ),
        (torch.softmax, {"dtypes": ("float64",)}, "declares dtypes float64"),
        (torch.softmax, {"backward": False}, "declares that it has no backward"),
        (torch.softmax, {"adapter": "numpy"}, "a kernel of numpy has no backward"),
    ],
)
def test_what_cannot_be_measured_has_a_reason_and_nothing_else(function, declared, words):
    found = data(function, "float32", **declared)

    assert list(found) == ["reason"]
    assert words in found["reason"]


def test_a_length_that_fails_leaves_the_other_threshold():
    def short_only(x, dim=-1):
        if x.shape[-1] == 33:
            raise RuntimeError("33 is no multiple of 2")
        return torch.softmax(x, dim)

    found = data(short_only, "float32")

    assert ["reason" in entry for entry in found["saturation"]] == [False, True]


def test_slow_kernels_are_measured_at_fewer_points_and_say_so(monkeypatch):
    declared = data(torch.softmax, "bfloat16", slow=True)
    monkeypatch.setattr(vanishing, "SLOW_SECONDS", 0.0)
    found = data(torch.softmax, "bfloat16")
    monkeypatch.setattr(vanishing, "SLOW_SECONDS", 60.0)
    monkeypatch.setattr(vanishing, "LAST_SECONDS", 0.0)
    stopped = data(torch.softmax, "bfloat16")

    assert (declared["note"], declared["length"]["at"]) == ("declared slow", [2, 32])
    assert found["note"] == "the gradient of 1,024 takes more than 0 ms"
    assert found["scale"]["at"] == [0.25, 1, 4, 16, 64]
    assert stopped["length"]["at"] == [2]


def test_another_op_is_misuse():
    with pytest.raises(
        ValueError, match="kernel mutant is a kernel of merge_states; vanishing is measured of softmax, log_"
    ):
        measure(Kernel(id="mutant", op="merge_states", call=right), "float32")


def test_the_document_shows_what_the_command_prints():
    """Closed formulas and models of arithmetic; what torch gives depends on how this processor's
    vectors sum.
    """
    document = DOCUMENT.read_text(encoding="utf-8")
    lines = [line for line in threshold_table().splitlines() if "torch" not in line]

    assert len(lines) == 2 + 4 + 5 + 2
    assert [line for line in lines if line not in document] == []
