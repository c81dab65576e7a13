"""FlashAttention-4's polynomial for 2^x on [0, 1), in place of the hardware's exponential."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suite.formats import Array, bfloat16
from suite.studies.claims import Finding, NotRunHereError, claim, same_digits

PAPER = "FlashAttention-4, arXiv 2603.05451"
CODE = "POLY_EX2 of flash_attn/cute/utils.py, github.com/Dao-AILab/flash-attention"
GRID = 2**24
CHUNK = 2**20

COEFFICIENTS = {
    3: (1.0, 0.695146143436431884765625, 0.227564394474029541015625, 0.077119089663028717041015625),
    4: (1.0, 0.693042695522308349609375, 0.2412912547588348388671875, 5.2225358784198760986328125e-2,
        1.3434938155114650726318359375e-2),
    5: (1.0, 0.693151414394378662109375, 0.24016360938549041748046875, 5.5802188813686370849609375e-2,
        9.01452265679836273193359375e-3, 1.86810153536498546600341796875e-3),
}  # fmt: skip
"""Float32 coefficients by ascending power, minimax in relative error by Sollya's fpminimax."""


def polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    """Horner's rule with float32 fused multiply-adds. x: numbers of float32.

    The product of two float32 is exact in float64; the float64 rounding of the sum before the one
    to float32 can only decide a tie, where both neighbours are equally good.
    """
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = (result * x + coefficient).astype(np.float32).astype(np.float64)
    return result


def largest_errors(coefficients: Sequence[float], *, points: int) -> tuple[float, float]:
    """Largest relative error on `points` (a power of 2) equally spaced numbers of [0, 1): in
    float32, after bfloat16.
    """
    worst = worst_rounded = 0.0
    for start in range(0, points, CHUNK):
        x = np.arange(start, min(start + CHUNK, points)) / points
        exact, value = np.exp2(x), polynomial(x, coefficients)
        worst = max(worst, float(np.abs(value / exact - 1).max()))
        worst_rounded = max(worst_rounded, float(np.abs(bfloat16.round(value) / exact - 1).max()))
    return worst, worst_rounded


def measure_polynomial(
    coefficients: Sequence[float], published: tuple[str, str], *, points: int = GRID
) -> Finding:
    """The two errors beside the published ones."""
    measured = largest_errors(coefficients, points=points)
    return Finding(
        measured=" / ".join(f"{error:.3e}" for error in measured),
        agrees=all(same_digits(m, p) for m, p in zip(measured, published, strict=True)),
        note=f"{points} points",
    )


def _declare(degree: int, published: tuple[str, str]) -> None:
    @claim(
        name=f"fa4-exp2-degree-{degree}",
        source=f"{PAPER}, table of exp2 errors; coefficients: {CODE}",
        stated=(
            f"The polynomial of degree {degree} approximates 2^x on [0, 1) with this largest relative error,"
            " in float32 and after rounding to bfloat16."
        ),
        published=" / ".join(published),
        criterion="equal to the printed digits, on all multiples of 2^-24 in [0, 1)",
        seconds=3,
    )
    def measure(points: int = GRID) -> Finding:
        return measure_polynomial(COEFFICIENTS[degree], published, points=points)


_declare(3, ("8.77e-5", "3.90e-3"))
_declare(4, ("3.05e-6", "3.89e-3"))
_declare(5, ("1.44e-7", "3.89e-3"))


@claim(
    name="fa4-mufu-ex2",
    source=f"{PAPER}, table of exp2 errors",
    published="1.41e-7 / 3.89e-3",
    criterion="equal to the printed digits",
    seconds=0,
)
def hardware_exp2() -> Finding:
    """The hardware's ex2.approx has this largest relative error on [0, 1), in float32 and after
    rounding to bfloat16.
    """
    raise NotRunHereError("needs CUDA and a kernel around ex2.approx, which this suite does not have yet")
