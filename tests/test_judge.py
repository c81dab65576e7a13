"""judge(): the verdict on tensors alone, and the two lines that people put into their own tests."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import suite
from suite import JudgementError, Numerics, Semantics, judge
from suite.formats import FORMATS, bfloat16, float32
from suite.numerics import BEST_PRACTICE
from suite.ops import get_op
from suite.oracle import Oracle
from suite.verdict.tensors import check_output

INF, NAN = float("inf"), float("nan")


def rows(*values, dtype=torch.float32):
    return torch.tensor([list(v) for v in values], dtype=dtype)


def test_two_lines_in_somebodys_own_test():
    x = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))

    judge("softmax", x, torch.softmax(x, -1)).raise_if_failed()
    with pytest.raises(JudgementError, match="inaccurate"):
        judge("softmax", x, torch.softmax(x, -1) * 1.01).raise_if_failed()


def test_judge_is_the_function_however_it_is_imported():
    from suite.verdict.judge import judge as from_module

    assert suite.judge is from_module is judge


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_the_rounded_reference_uses_none_of_the_bound(op, dtype):
    """The correctly rounded result passes with ratio 0, and each entry moved past its interval fails."""
    format = FORMATS[dtype]
    x = format.round(np.linspace(-6, 6, 60).reshape(4, 15))
    definition = get_op(op)
    reference = Oracle().reference(definition, {"x": x}, {"dim": -1}, format)
    best = format.round(reference.hi, reference.lo)
    output = best if definition.keeps_length else best[:, 0]
    judgement = judge(op, tensor(x, dtype), tensor(output, dtype))
    assert (judgement.status, judgement.ratio) == ("passed", 0.0)

    allowed = definition.bound(reference.facts, BEST_PRACTICE, format).absolute
    for sign in (-1, 1):
        beyond = format.round(reference.hi + sign * (1.01 * allowed + 1.6 * format.ulp(reference.hi)))
        wrong = beyond if definition.keeps_length else beyond[:, 0]
        judgement = judge(op, tensor(x, dtype), tensor(wrong, dtype))
        assert judgement.status == "inaccurate"
        assert judgement.failed == judgement.entries
        assert judgement.ratio > 1


def tensor(values, dtype):
    return torch.from_numpy(np.ascontiguousarray(values)).to(getattr(torch, dtype))


@settings(max_examples=50)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=8),
    st.integers(0, 7),
    st.sampled_from([-1, 1]),
)
def test_the_ratio_exceeds_one_exactly_where_the_verdict_fails(row, place, sign):
    x = torch.tensor([row])
    y = torch.softmax(x.double(), -1).float()
    place %= y.shape[1]
    for _ in range(12):
        judgement = judge("softmax", x, y)
        assert (judgement.ratio > 1) == (judgement.status == "inaccurate")
        y[0, place] = torch.nextafter(y[0, place], torch.tensor(sign * INF))


def test_flush_to_zero_is_accepted_where_the_arithmetic_may_flush():
    """0 for p = e^-88 < 2^-126 passes in float32 and bfloat16; 0 for p = e^-87 > 2^-126 does not;
    float16 has no relief.
    """
    for dtype in (torch.float32, torch.bfloat16):
        below, above = rows([0.0, -88.0], dtype=dtype), rows([0.0, -87.0], dtype=dtype)
        assert judge("softmax", below, rows([1.0, 0.0], dtype=dtype)).passed
        assert judge("softmax", above, rows([1.0, 0.0], dtype=dtype)).status == "inaccurate"
    half = rows([0.0, -12.0], dtype=torch.float16)
    assert judge("softmax", half, torch.softmax(half, -1)).passed
    assert judge("softmax", half, rows([1.0, 0.0], dtype=torch.float16)).status == "inaccurate"
    double = rows([0.0, -709.0], dtype=torch.float64)
    assert judge("softmax", double, rows([1.0, 0.0], dtype=torch.float64)).passed


def test_overflow_of_the_output_format_is_the_intervals_own_business():
    """logsumexp of 65504 twice rounds to infinity in float16, so infinity is right, and 65504 is not."""
    x = rows([65504.0, 65504.0], dtype=torch.float16)
    assert judge("logsumexp", x, torch.tensor([65504.0], dtype=torch.float16)).passed
    wide = torch.full((1, 2**17), 65504.0, dtype=torch.float16)
    assert judge("logsumexp", wide, torch.tensor([65504.0], dtype=torch.float16)).passed
    assert judge("logsumexp", wide, torch.tensor([INF], dtype=torch.float16)).status == "nonfinite"
    log = rows([65504.0, -65504.0], dtype=torch.float16)
    assert judge("log_softmax", log, rows([0.0, -INF], dtype=torch.float16)).passed
    assert judge("log_softmax", log, rows([0.0, -65504.0], dtype=torch.float16)).status == "inaccurate"


def test_a_second_rounding_of_bfloat16_is_seen():
    """1/(1 + e^-x) just above the midpoint of two bfloat16 numbers, rounded to float16 first, lands
    on the wrong side.
    """
    x = rows([0.0, 1.0, 2.0, 3.0] * 64, dtype=torch.bfloat16)
    right = torch.softmax(x.double(), -1)
    assert judge("softmax", x, tensor(bfloat16.round(right.numpy()), "bfloat16")).passed
    grid = torch.linspace(-4, 4, 4000, dtype=torch.float64).reshape(40, 100)
    x = grid.to(torch.bfloat16)
    exact = torch.softmax(x.double(), -1)
    twice = (exact * 2**20).round() / 2**20
    assert judge("softmax", x, twice.to(torch.bfloat16)).status == "inaccurate"


@pytest.mark.parametrize(
    ("op", "x", "y", "status"),
    [
        ("softmax", [0.0, -INF], [1.0, 0.0], "passed"),
        ("softmax", [0.0, -INF], [1.0, -0.0], "passed"),
        ("softmax", [0.0, -INF], [1.0, 1e-45], "inaccurate"),
        ("softmax", [0.0, -INF], [1.0, NAN], "nonfinite"),
        ("softmax", [-INF, -INF], [NAN, NAN], "passed"),
        ("softmax", [-INF, -INF], [0.0, 0.0], "law_broken"),
        ("softmax", [-INF, -INF], [0.5, NAN], "law_broken"),
        ("softmax", [NAN, 0.0], [NAN, NAN], "passed"),
        ("softmax", [NAN, 0.0], [NAN, 1.0], "law_broken"),
        ("softmax", [INF, 0.0], [NAN, NAN], "passed"),
        ("softmax", [INF, 0.0], [1.0, 0.0], "law_broken"),
        ("softmax", [0.0, 0.0], [NAN, NAN], "nonfinite"),
        ("softmax", [0.0, 0.0], [INF, 0.5], "nonfinite"),
        ("log_softmax", [0.0, -INF], [0.0, -INF], "passed"),
        ("log_softmax", [0.0, -INF], [0.0, -3e38], "law_broken"),
        ("log_softmax", [0.0, -INF], [0.0, INF], "law_broken"),
        ("log_softmax", [-INF, -INF], [NAN, NAN], "passed"),
        ("log_softmax", [-INF, -INF], [-INF, -INF], "law_broken"),
        ("log_softmax", [INF, 0.0], [NAN, NAN], "passed"),
        ("log_softmax", [INF, 0.0], [NAN, -INF], "passed"),
        ("log_softmax", [INF, 0.0], [0.0, -INF], "law_broken"),
        ("logsumexp", [-INF, -INF], -INF, "passed"),
        ("logsumexp", [-INF, -INF], NAN, "law_broken"),
        ("logsumexp", [INF, -INF], INF, "passed"),
        ("logsumexp", [INF, -INF], NAN, "law_broken"),
        ("logsumexp", [INF, NAN], NAN, "passed"),
        ("logsumexp", [INF, NAN], INF, "law_broken"),
        ("logsumexp", [0.0, NAN], 1.0, "law_broken"),
    ],
)
def test_special_values_by_position(op, x, y, status):
    assert judge(op, torch.tensor([x]), torch.tensor([y])).status == status


def test_safe_softmax_passes_where_it_is_declared_and_only_there():
    x, y = rows([-INF, -INF], [0.0, 0.0]), rows([0.0, 0.0], [0.5, 0.5])

    assert judge("softmax", x, y, semantics=Semantics(empty_row="zero")).passed
    assert judge("softmax", x, y).status == "law_broken"
    nan = rows([NAN, NAN], [0.5, 0.5])
    assert judge("softmax", x, nan, semantics=Semantics(empty_row="zero")).status == "nonfinite"


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_any_dim(op, dim):
    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = getattr(torch, op)(x, dim)

    assert judge(op, x, y, options={"dim": dim}).passed
    assert judge(op, {"x": x.numpy()}, y.numpy(), options={"dim": dim}).passed
    index = (1, 2, 3) if y.ndim == 3 else (1, 2)
    y[index] += 1.0
    worst = judge(op, x, y, options={"dim": dim}).worst
    assert worst.index == index


def test_strided_and_grad_tensors_are_judged_by_their_values():
    base = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    x = base.t()[::2].requires_grad_()

    assert judge("softmax", x, torch.softmax(x, -1)).passed


def test_empty_tensors():
    empty = torch.zeros(0, 5)
    assert judge("softmax", empty, empty).passed
    assert judge("logsumexp", empty, torch.zeros(0)).passed
    no_entries = torch.zeros(2, 0)
    assert judge("softmax", no_entries, no_entries).passed
    assert judge("logsumexp", no_entries, torch.full((2,), -INF)).passed
    assert judge("logsumexp", no_entries, torch.zeros(2)).status == "law_broken"


@pytest.mark.parametrize(
    ("output", "status", "text"),
    [
        ([1.0, 2.0], "wrong_type", "returned a list"),
        (None, "wrong_type", "returned a NoneType"),
        ((torch.zeros(2, 3),), "wrong_type", "returned a tuple"),
        (torch.zeros(2, 3, device="meta"), "wrong_type", "on meta; the input is on cpu"),
        (torch.zeros(3, 2), "wrong_shape", r"shape \[3, 2\]; expected \[2, 3\]"),
        (torch.zeros(2, 3).double(), "wrong_dtype", "returned float64; expected float32"),
        (torch.zeros(2, 3, dtype=torch.int32), "wrong_dtype", "returned int32; expected float32"),
    ],
)
def test_an_output_of_the_wrong_kind_is_a_status(output, status, text):
    judgement = judge("softmax", torch.zeros(2, 3), output)

    assert judgement.status == status
    assert judgement.broken == (status,)
    with pytest.raises(JudgementError, match=text):
        judgement.raise_if_failed()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: judge("softmin", torch.zeros(2), torch.zeros(2)),
            ValueError,
            "unknown op 'softmin'; expected one of softmax",
        ),
        (lambda: judge("softmax", [1.0], torch.zeros(1)), TypeError, r"input x is a list \(\[1\.0\]\)"),
        (lambda: judge("softmax", torch.zeros(2).int(), torch.zeros(2)), ValueError, "dtype int32"),
        (lambda: judge("softmax", torch.tensor(1.0), torch.tensor(1.0)), ValueError, r"shape \(\)"),
        (lambda: judge("softmax", {"q": torch.zeros(2)}, torch.zeros(2)), ValueError, "softmax takes x"),
        (
            lambda: judge("softmax", torch.zeros(2), torch.zeros(2), options={"axis": 0}),
            ValueError,
            "no option 'axis'",
        ),
        (
            lambda: judge("softmax", torch.zeros(2), torch.zeros(2), options={"dim": 1}),
            ValueError,
            "dim=1 must be",
        ),
    ],
)
def test_misuse_is_an_exception_that_shows_the_value(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_failure_says_where_got_expected_how_bad_how_many_and_where_in_the_tile():
    x = torch.zeros(3, 300)
    y = torch.softmax(x, -1)
    y[1, 127] = 0.5
    y[2, 255] = 0.5
    message = judge("softmax", x, y).message

    assert "index [1, 127]" in message
    assert "got       0.5" in message
    assert "expected  0.003333333333333333333" in message
    assert "× the bound" in message
    assert "ulp" in message
    assert "2 of 900 entries, in 2 of 3 rows" in message
    assert "first failing column 127" in message
    assert "100% of the failures at column = 127 (mod 128)" in message


def test_what_a_kernel_looks_like_is_said():
    x = torch.randn(16, 100, generator=torch.Generator().manual_seed(3))
    e = torch.exp(x - x.amax(-1, keepdim=True)).to(torch.bfloat16).float()
    judgement = judge("softmax", x, e / e.sum(-1, keepdim=True))

    assert judgement.status == "inaccurate"
    assert judgement.fits == "probabilities=bfloat16"
    assert judge("softmax", x, torch.softmax(x, -1)).fits == "exp_ulp=1.0, log_ulp=1.0"


def test_declared_numerics_widen_and_are_named():
    x = torch.full((2, 64), 1000.0) + torch.arange(64)
    y = torch.exp(x - torch.logsumexp(x, -1, keepdim=True))

    assert judge("softmax", x, y).status == "inaccurate"
    declared = judge("softmax", x, y, numerics=Numerics(shift="lse"))
    assert declared.passed
    assert declared.numerics == "shift=lse"


def test_statistics_are_recorded_and_not_judged():
    x = torch.tensor([[0.0, 20.0, -200.0, 1.0]])
    judgement = judge("softmax", x, torch.softmax(x, -1))

    assert judgement.passed
    assert judgement.saturated == 1
    assert judgement.flushed == 0
    assert judgement.inversions == 0
    assert judgement.max_ulp < 8
    assert judgement.bias_ulp is not None
    swapped = torch.softmax(x, -1)[:, [3, 1, 2, 0]]
    assert judge("softmax", x, swapped).inversions == 1
    assert judge("softmax", x, swapped).digest != judgement.digest


def test_a_row_behind_a_sentinel_stays_judged():
    """Behind -1e9 the first-order bound says nothing, and yet only 0 is right."""
    x = rows([0.0, -1e9, 1.0])
    right = torch.softmax(x, -1)
    assert judge("softmax", x, right).judged == 1.0
    leaking = right.clone()
    leaking[0, 1] = 1e-30
    assert judge("softmax", x, leaking).status == "inaccurate"


def test_nan_never_passes_even_where_nothing_is_judged():
    x = torch.zeros(1, 1000)
    numerics = Numerics(accumulate="bfloat16")
    y = torch.softmax(x, -1)
    y[0, 5] = NAN

    assert judge("softmax", x, y, numerics=numerics).status == "nonfinite"


def test_check_output_accepts_what_the_contract_says():
    def check(output, dim):
        return check_output(get_op("logsumexp"), output, {"x": (2, 3)}, "float32", "cpu", {"dim": dim})

    assert check(torch.zeros(2), -1) is None
    assert check(torch.zeros(3), 0) is None
    assert check(torch.zeros(2, 1), -1)[0] == "wrong_shape"


def test_a_vocabulary_row_in_float32_is_decided_by_the_float64_tier():
    x = np.zeros((1, 151936))
    reference = Oracle().reference(get_op("softmax"), {"x": x}, {"dim": -1}, float32)

    assert reference.tier == "float64"
    assert reference.hi[0, 0] == pytest.approx(1 / 151936, rel=1e-12)


@pytest.mark.parametrize(
    "row",
    [
        [2.4722671508789062, 2.3706462383270264, -61.989681243896484],
        [2.6256580352783203, 2.220734119415283, -42.08257293701172],
    ],
)
def test_a_second_subtraction_in_base_2_is_honest(row):
    """exp2((d - ln s) log2 e) and exp2(t - log2 s) round the exponent once more: the bound has a
    term for it.
    """
    x = torch.tensor([row])
    d = x - x.amax(-1, keepdim=True)
    t = d * 1.4426950408889634
    first = torch.exp2((d - torch.log(torch.exp(d).sum(-1, keepdim=True))) * 1.4426950408889634)
    second = torch.exp2(t - torch.log2(torch.exp2(t).sum(-1, keepdim=True)))

    assert judge("softmax", x, first).passed
    assert judge("softmax", x, second).passed


def test_what_a_flushing_thread_would_hide_is_seen():
    x, y = rows([0.0, -720.0], dtype=torch.float64), rows([0.0, -100.0])
    wrong = (
        torch.softmax(x, -1) * torch.tensor([1.0, 2.0], dtype=torch.float64),
        torch.softmax(y, -1) * torch.tensor([1.0, 8.0]),
    )
    torch.set_flush_denormal(True)
    try:
        statuses = judge("softmax", x, wrong[0]).status, judge("softmax", y, wrong[1]).status
    finally:
        torch.set_flush_denormal(False)

    assert statuses == ("inaccurate", "inaccurate")


def test_entries_behind_the_lowest_finite_number_are_judged():
    lowest = torch.finfo(torch.float32).min
    x = rows([0.0, 0.0, lowest])
    right = torch.log_softmax(x, -1)

    assert judge("log_softmax", x, right).passed
    assert judge("log_softmax", x, rows([*right[0, :2].tolist(), -INF])).passed
    assert judge("log_softmax", x, rows([*right[0, :2].tolist(), INF])).status == "nonfinite"
    assert judge("log_softmax", x, rows([*right[0, :2].tolist(), 5.0])).status == "inaccurate"
    assert judge("logsumexp", rows([3e38, -3e38]), torch.tensor([5.0])).status == "inaccurate"
    assert judge("logsumexp", rows([3e38, -3e38]), torch.tensor([INF])).passed


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_a_gap_beyond_float64_is_judged(op):
    x = rows([1.7e308, -1.7e308, 0.0], [1.0, 2.0, 3.0], dtype=torch.float64)
    right = getattr(torch, op)(x, -1)
    wrong = right.clone()
    wrong[0] = 0.3

    assert judge(op, x, right).passed
    assert judge(op, x, wrong).status == "inaccurate"


def test_masked_entries_do_not_count_as_judged():
    """200 entries of 2048 hold a number; with a bfloat16 accumulator none of them can be judged."""
    x = torch.full((1, 2048), -INF)
    x[0, :200] = 0.0
    judgement = judge("softmax", x, torch.softmax(x, -1), numerics=Numerics(accumulate="bfloat16"))

    assert (judgement.status, judgement.judged) == ("unjudged", 0.0)


def test_misuse_of_what_is_declared_and_of_layouts():
    x = torch.zeros(2, 2)
    with pytest.raises(TypeError, match="numerics='lse'"):
        judge("softmax", x, x, numerics="lse")
    with pytest.raises(ValueError, match=r"layout torch\.sparse_coo"):
        judge("softmax", x.to_sparse(), x)
    big_endian = np.zeros((2, 2), dtype=">f4")
    assert judge(
        "softmax", big_endian, np.full((2, 2), 0.5, dtype=np.float32), options={"dim": np.int64(0)}
    ).passed


def test_the_input_is_shown_beside_the_output():
    message = judge("softmax", rows([1.0, INF, -INF]), rows([0.0, 1.0, 0.0])).message

    assert "input     x = 1.0 in a row of 3, largest finite 1.0, 1 +inf, 1 -inf" in message


def test_a_slip_of_one_entry_is_not_explained_by_numerics():
    x = torch.zeros(4, 300)
    y = torch.softmax(x, -1)
    y[2, 7] *= 1.001

    assert judge("softmax", x, y).fits is None
    assert judge("softmax", x, y).tiles == {}


def test_kernels_that_share_a_reference_are_each_judged_by_their_own_declaration():
    """Intervals are kept with the reference: one declaration must not answer for another, nor one format."""
    x = np.linspace(-60, 0, 64).astype(np.float32)[None, :] + np.float32(500)
    y = torch.exp(torch.from_numpy(x) - torch.logsumexp(torch.from_numpy(x), -1, keepdim=True))
    oracle = Oracle()

    def found(declared):
        return judge("softmax", x, y.numpy(), numerics=declared, oracle=oracle)

    for _ in range(2):
        strict, declared = found(BEST_PRACTICE), found(Numerics(shift="lse"))
        assert (strict.status, declared.status) == ("inaccurate", "passed")
        assert strict.ratio > 1 > declared.ratio
    narrow = judge("softmax", torch.from_numpy(x).bfloat16(), y.bfloat16(), oracle=oracle)
    alone = judge("softmax", torch.from_numpy(x).bfloat16(), y.bfloat16(), oracle=Oracle())
    assert narrow == alone


def test_an_entry_that_is_the_nearest_number_has_ratio_0_and_its_neighbours_do_not():
    x = np.log(np.array([[1.0, 2.0, 5.0]]))
    reference = Oracle().reference(get_op("softmax"), {"x": x}, {"dim": -1}, FORMATS["float64"])
    nearest = reference.hi.copy()
    assert judge("softmax", x, nearest).ratio == 0.0
    for column in range(3):
        for direction in (0.0, 1.0):
            moved = nearest.copy()
            moved[0, column] = np.nextafter(moved[0, column], direction)
            judgement = judge("softmax", x, moved)
            assert 0 < judgement.ratio < 1
            assert judgement.worst is not None
            assert judgement.worst.index == (0, column)
