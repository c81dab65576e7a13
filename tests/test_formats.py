"""formats.py against all 65,536 patterns of the 16-bit formats, all 256 of the 8-bit ones, and
exact rational arithmetic.
"""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suite.formats import FORMATS, bfloat16, float16, float32, float64, get_format, two_sum

NARROW = [f for f in FORMATS.values() if f.bits <= 16]


def all_numbers(format):
    """Every finite number of the format, increasing, -0 left out, from the bit patterns themselves."""
    dtype = getattr(torch, format.name)
    integer, view = (np.uint8, torch.uint8) if format.bits == 8 else (np.uint16, torch.uint16)
    patterns = torch.from_numpy(np.arange(2**format.bits, dtype=integer)).view(view).view(dtype)
    values = patterns.to(torch.float64).numpy()
    return np.unique(values[np.isfinite(values)])


def nearest_by_search(format, value: Fraction) -> float:
    """Rounding by definition: the nearest number of the format, the one with even last bit on a tie."""
    numbers = all_numbers(format)
    right = int(np.searchsorted(numbers, float(value)))
    window = numbers[max(right - 2, 0) : right + 2]
    distance = [abs(Fraction(float(n)) - value) for n in window]
    best = min(distance)
    tied = [float(n) for n, d in zip(window, distance, strict=True) if d == best]
    return min(tied, key=lambda n: int(n / float(format.ulp(n))) % 2)


@pytest.mark.parametrize("format", NARROW, ids=lambda f: f.name)
def test_every_number_is_its_own_rounding(format):
    numbers = all_numbers(format)

    assert np.array_equal(format.round(numbers), numbers)
    assert format.contains(numbers).all()
    assert numbers[-1] == format.largest
    assert numbers[numbers > 0][0] == format.smallest_subnormal


@pytest.mark.parametrize("format", NARROW, ids=lambda f: f.name)
def test_every_midpoint_goes_to_even_and_its_sides_go_apart(format):
    numbers = all_numbers(format)
    below, above = numbers[:-1], numbers[1:]
    middle = (below + above) / 2
    even = np.where((np.abs(below) / format.ulp(below)) % 2 == 0, below, above)
    even = np.where(below == -above, 0.0, even)

    assert np.array_equal(format.round(middle), even)
    assert np.array_equal(format.round(middle, np.full_like(middle, 1e-300)), above)
    assert np.array_equal(format.round(middle, np.full_like(middle, -1e-300)), below)


@pytest.mark.parametrize("format", NARROW, ids=lambda f: f.name)
def test_neighbours_and_ulp_agree_with_the_list_of_all_numbers(format):
    numbers = all_numbers(format)
    below, above = format.neighbours(numbers)

    assert np.array_equal(above[:-1], numbers[1:])
    assert np.array_equal(below[1:], numbers[:-1])
    assert above[-1] == np.inf
    assert below[0] == -np.inf
    positive = numbers >= 0
    assert np.array_equal(format.ulp(numbers)[positive][:-1], np.diff(numbers[positive]))


@pytest.mark.parametrize("format", [f for f in NARROW if f.bits == 16], ids=lambda f: f.name)
@given(st.floats(width=64, allow_nan=False, allow_infinity=False, min_value=-7e4, max_value=7e4))
def test_round_is_the_nearest_number_by_definition(format, value):
    if abs(value) < format.largest:
        assert float(format.round(value)) == nearest_by_search(format, Fraction(value))


def test_round_is_not_done_twice():
    """1 + 2^-8 + 2^-40: torch's cast goes through float32 and loses the last bit, then ties to even."""
    value = 1 + 2.0**-8 + 2.0**-40

    assert float(bfloat16.round(value)) == 1.0078125
    assert float(torch.tensor(value, dtype=torch.float64).to(torch.bfloat16)) == 1.0


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(NARROW[:2]))
def test_round_agrees_with_torch_where_torch_rounds_once(value, format):
    once = torch.tensor(value, dtype=torch.float32).to(getattr(torch, format.name))

    assert float(format.round(value)) == float(once)


@given(st.floats(width=64, allow_nan=False, allow_infinity=False))
def test_round_to_float32_agrees_with_numpy(value):
    with np.errstate(over="ignore"):
        assert float(float32.round(value)) == float(np.float32(value))


def test_overflow_goes_to_infinity_or_to_nan():
    assert float(float16.round(65519.99)) == 65504.0
    assert float(float16.round(65520.0)) == np.inf
    assert float(float16.round(-65520.0)) == -np.inf
    assert np.isnan(FORMATS["float8_e4m3fn"].round(464.0001))
    assert float(FORMATS["float8_e4m3fn"].round(463.9)) == 448.0
    assert np.isnan(float16.round(np.nan))


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_two_sum_is_exact(a, b):
    s, e = two_sum(np.float64(a), np.float64(b))

    assert Fraction(float(s)) + Fraction(float(e)) == Fraction(a) + Fraction(b)


@pytest.mark.parametrize("format", FORMATS.values(), ids=lambda f: f.name)
def test_thresholds_agree_with_fifty_digits(format):
    with mpmath.workdps(50):
        omega = mpmath.mpf(format.largest) + mpmath.mpf(2) ** (format.emax - format.precision)
        eta = mpmath.mpf(2) ** (format.emin - format.precision + 1)
        expected = {
            "ln_omega": mpmath.log(omega),
            "exp_underflow": -mpmath.log(eta / 2),
            "exp_subnormal": -mpmath.log(mpmath.mpf(2) ** format.emin),
            "saturation_in_format": format.precision * mpmath.log(2),
        }
        measured = {name: getattr(format, name) for name in expected}
        expected |= {
            "sum": mpmath.log(omega) - mpmath.log(4096),
            "saturation": mpmath.log(mpmath.mpf(2) ** (format.precision + 1) - 1) + mpmath.log(4095),
        }
        measured |= {"sum": format.sum_overflow(4096), "saturation": format.saturation_rounded(4096)}
        assert measured == {name: pytest.approx(float(value), rel=4e-15) for name, value in expected.items()}


@pytest.mark.parametrize(
    ("format", "ln_omega", "underflow", "saturated", "stagnates"),
    [
        ("float64", 709.7827, 745.133, 37.430, 2**53),
        ("float32", 88.72284, 103.972, 17.3287, 2**24),
        ("bfloat16", 88.72088, 92.8817, 6.2364, 256),
        ("float16", 11.09011, 17.3287, 8.3175, 2048),
        ("float8_e5m2", 11.02582, 11.7835, 2.7081, 8),
        ("float8_e4m3fn", 6.139885, 6.9315, 3.4340, 16),
    ],
)
def test_thresholds_are_the_known_ones(format, ln_omega, underflow, saturated, stagnates):
    f = get_format(format)

    assert f.ln_omega == pytest.approx(ln_omega, rel=1e-6)
    assert f.exp_underflow == pytest.approx(underflow, rel=1e-5)
    assert f.saturation_rounded() == pytest.approx(saturated, rel=1e-4)
    assert f.stagnation == stagnates


@pytest.mark.parametrize("format", [bfloat16, float16], ids=lambda f: f.name)
def test_thresholds_are_where_exact_rounding_changes(format):
    """Just below and just above each closed threshold, exact arithmetic rounded once gives the two sides."""
    with mpmath.workdps(60):
        for x, below, above in [
            (format.ln_omega, format.largest, np.inf),
            (-format.exp_underflow, 0.0, format.smallest_subnormal),
        ]:
            for step, expected in ((-1e-9, below), (1e-9, above)):
                exact = mpmath.exp(mpmath.mpf(x) + step)
                hi = float(exact)
                assert float(format.round(hi, float(exact - hi))) == expected
        for step, expected in ((-1e-9, 1 - format.unit_roundoff), (1e-9, 1.0)):
            exact = 1 / (1 + mpmath.exp(-(mpmath.mpf(format.saturation_rounded()) + step)))
            hi = float(exact)
            assert float(format.round(hi, float(exact - hi))) == expected


@pytest.mark.parametrize("format", [bfloat16, float16], ids=lambda f: f.name)
def test_a_sum_of_ones_stagnates_at_two_to_the_precision(format):
    total = 0.0
    for _ in range(format.stagnation + 10):
        total = float(format.round(total + 1.0))

    assert total == format.stagnation


def test_unknown_format_is_answered_with_the_valid_names():
    with pytest.raises(ValueError, match=r"unknown format 'fp16'; expected one of float64, .*float16"):
        get_format("fp16")


def test_float64_rounding_of_an_unevaluated_sum_is_one_addition():
    assert float(float64.round(1.0, 2.0**-53 + 2.0**-60)) == 1 + 2.0**-52
