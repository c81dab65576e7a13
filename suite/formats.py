"""Floating-point formats: exact rounding, ulp and the closed thresholds of softmax.

Everything here is float64 numpy on the bits themselves. A library's cast is not used: torch rounds
float64 to bfloat16 and float16 through float32, that is twice, so 1 + 2^-8 + 2^-40 becomes 1.0
where the nearest bfloat16 is 1.0078125.

Notation: p = precision in bits with the hidden one, u = 2^-p = unit roundoff, eta = smallest subnormal,
Omega = largest finite number + half an ulp = where rounding to nearest first gives infinity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LN2 = math.log(2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A binary floating-point format.

    precision: bits of the significand, the hidden one counted.
    emin, emax: exponents of the smallest normal 2^emin and of the largest binade 2^emax.
    largest: the largest finite number. bits: storage size.
    has_infinity: False for float8_e4m3fn, where an overflow rounds to NaN.
    """

    name: str
    precision: int
    emin: int
    emax: int
    largest: float
    bits: int
    has_infinity: bool = True

    @property
    def unit_roundoff(self) -> float:
        return 2.0**-self.precision

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.emin

    @property
    def smallest_subnormal(self) -> float:
        return 2.0 ** (self.emin - self.precision + 1)

    def ulp(self, value: Array | float) -> Array:
        """Spacing of the format in the binade of `value`: 2^(max(floor(log2 |value|), emin) - p +
        1) (Muller, RR-5504).
        """
        value = np.asarray(value, dtype=np.float64)
        _, exponent = np.frexp(value)
        binade = np.where(value == 0, self.emin, np.maximum(exponent - 1, self.emin))
        return np.asarray(np.ldexp(1.0, binade - self.precision + 1))

    def round(self, value: Array | float, error: Array | float = 0.0) -> Array:
        """The number of the format nearest to the real value + error, ties to even, rounded once.

        value: float64. error: float64, at most half an ulp of value, so that (value, error) is an
        unevaluated sum. Overflow gives infinity (NaN in a format without one); NaN and infinity are
        kept.
        """
        value = np.asarray(value, dtype=np.float64)
        if self.precision == 53:
            return np.asarray(value + error, dtype=np.float64)
        odd = _round_to_odd(value, np.asarray(error, dtype=np.float64))
        _, exponent = np.frexp(odd)
        shift = self.precision - 1 - np.maximum(exponent - 1, self.emin)
        with np.errstate(over="ignore", invalid="ignore"):
            nearest = np.ldexp(np.rint(np.ldexp(odd, shift)), -shift)
        overflow = np.inf if self.has_infinity else np.nan
        nearest = np.where(np.abs(nearest) > self.largest, np.copysign(overflow, nearest), nearest)
        return np.where(np.isfinite(value), nearest, value)

    def contains(self, value: Array | float) -> NDArray[np.bool_]:
        """Which finite values are numbers of the format, exactly."""
        return np.asarray(self.round(value) == value)

    def holds(self, values: Array) -> bool:
        """Whether every finite one of these values is a number of the format."""
        return bool(np.all(self.contains(values) | ~np.isfinite(values)))

    def neighbours(self, value: Array | float) -> tuple[Array, Array]:
        """The numbers of the format next below and next above each number `value` of the format;
        +-inf past the ends.
        """
        value = np.asarray(value, dtype=np.float64)
        if self.precision == 53:
            return np.nextafter(value, -np.inf), np.nextafter(value, np.inf)
        ulp = self.ulp(value)
        mantissa, _ = np.frexp(value)
        toward_zero = np.where(
            (np.abs(mantissa) == 0.5) & (np.abs(value) > self.smallest_normal), ulp / 2, ulp
        )
        below = np.where(value > 0, value - toward_zero, value - ulp)
        above = np.where(value < 0, value + toward_zero, value + ulp)
        return (
            np.where(below < -self.largest, -np.inf, np.where(value == np.inf, self.largest, below)),
            np.where(above > self.largest, np.inf, np.where(value == -np.inf, -self.largest, above)),
        )

    # Closed thresholds of softmax in this format, natural-log units. Each docstring is its derivation.

    @property
    def ln_omega(self) -> float:
        """exp(x) rounds to infinity iff x > ln Omega, Omega = largest + ulp/2."""
        half_ulp = 2.0 ** (self.emax - self.precision)
        return math.log(self.largest) + math.log1p(half_ulp / self.largest)

    def sum_overflow(self, terms: int) -> float:
        """The sum of n equal exponentials exp(x) overflows iff x > ln Omega - ln n."""
        return self.ln_omega - math.log(terms)

    @property
    def shifted_sum_overflow(self) -> float:
        """A shifted sum of equal entries is n itself: it overflows iff n >= Omega, and never in a
        format with Omega > 2^53.
        """
        return self.largest + 2.0 ** (self.emax - self.precision)

    @property
    def stagnation(self) -> int:
        """1 + 1 + ... summed in order in the format stops growing at n = 2^p, where the next 1 is
        half an ulp (tie to even).
        """
        return int(2**self.precision)

    @property
    def exp_underflow(self) -> float:
        """exp(-g) rounds to 0 iff g > -ln(eta/2) = (p - emin) ln 2."""
        return (self.precision - self.emin) * LN2

    @property
    def exp_subnormal(self) -> float:
        """exp(-g) is below the normal numbers, where a device that flushes gives 0, iff g > -emin ln 2."""
        return -self.emin * LN2

    @property
    def saturation_in_format(self) -> float:
        """1 + exp(-g) evaluated in the format is 1, so that p = 1 exactly, iff g >= p ln 2."""
        return self.precision * LN2

    def saturation_rounded(self, terms: int = 2) -> float:
        """With wide internals the output 1/(1 + (n-1) exp(-g)) rounds to 1 iff g >= ln(2^(p+1) - 1)
        + ln(n - 1).
        """
        if terms < 2:
            raise ValueError(f"terms={terms!r} must be at least 2: one entry has no competitor")
        return (self.precision + 1) * LN2 + math.log1p(-(2.0 ** -(self.precision + 1))) + math.log(terms - 1)


def _round_to_odd(value: Array, error: Array) -> Array:
    """value + error rounded to an odd last bit when inexact: a later rounding to at most 51 bits is
    then the only one.

    Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Trans. Computers 57(4), 2008.
    """
    is_even = (value.view(np.int64) & 1) == 0
    toward = np.nextafter(value, np.where(error > 0, np.inf, -np.inf))
    return np.where(is_even & (error != 0) & np.isfinite(value), toward, value)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """(s, e) with s = fl(a + b) and s + e = a + b exactly (Knuth, TAOCP 2, section 4.2.2). Error 0
    where s is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        s = a + b
        bb = s - a
        error = (a - (s - bb)) + (b - bb)
    return s, np.where(np.isfinite(s), error, 0.0)


float64 = Format(
    name="float64", precision=53, emin=-1022, emax=1023, largest=float(np.finfo(np.float64).max), bits=64
)
float32 = Format(
    name="float32", precision=24, emin=-126, emax=127, largest=(2 - 2.0**-23) * 2.0**127, bits=32
)
bfloat16 = Format(
    name="bfloat16", precision=8, emin=-126, emax=127, largest=(2 - 2.0**-7) * 2.0**127, bits=16
)
float16 = Format(name="float16", precision=11, emin=-14, emax=15, largest=65504.0, bits=16)
float8_e5m2 = Format(name="float8_e5m2", precision=3, emin=-14, emax=15, largest=57344.0, bits=8)
float8_e4m3fn = Format(
    name="float8_e4m3fn", precision=4, emin=-6, emax=8, largest=448.0, bits=8, has_infinity=False
)

FORMATS: dict[str, Format] = {
    f.name: f for f in (float64, float32, bfloat16, float16, float8_e4m3fn, float8_e5m2)
}


DTYPES = ("float64", "float32", "bfloat16", "float16")
"""The formats that kernels are run in, widest first; float8 is a format only."""


def get_format(name: str) -> Format:
    """The format of that name. Raises ValueError with the valid names."""
    try:
        return FORMATS[name]
    except KeyError:
        raise ValueError(f"unknown format {name!r}; expected one of {', '.join(FORMATS)}") from None


def compute_format(format: Format) -> Format:
    """The arithmetic that best practice uses inside for tensors of `format`: float32, or the format
    itself from float64 on.
    """
    return format if format.precision >= float64.precision else float32
