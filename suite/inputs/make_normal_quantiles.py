"""Makes data/normal_quantiles.txt: quantiles of the standard normal distribution as exact float64
hexadecimals.

Line k = 0 .. 1024 holds the quantile of 1/2 + k/2048; the last line holds that of 1 - 2^-20 = 4.76
sigma instead of infinity. Inputs interpolate between the lines, so generators need no exp, log or
cos, whose bits differ between machines.

    python suite/inputs/make_normal_quantiles.py        (about 2 s; 50 digits by mpmath, rounded once)
"""

from pathlib import Path

import mpmath

KNOTS = 1024


def quantile(probability: mpmath.mpf) -> float:
    return float(mpmath.sqrt(2) * mpmath.erfinv(2 * probability - 1))


def main() -> None:
    with mpmath.workdps(50):
        half = mpmath.mpf(1) / 2
        values = [quantile(half + mpmath.mpf(k) / (2 * KNOTS)) for k in range(KNOTS)]
        values.append(quantile(1 - mpmath.mpf(2) ** -20))
    path = Path(__file__).parent / "data" / "normal_quantiles.txt"
    path.write_text("".join(value.hex() + "\n" for value in values))


if __name__ == "__main__":
    main()
