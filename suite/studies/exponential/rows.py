"""The rows that a profile gives to a kernel: numbers of the format, whose exact sum is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from suite.formats import LN2, Array, Format, bfloat16, compute_format, float16, float64
from suite.ops.arithmetic import Float64
from suite.studies.exponential.exact import exact_arithmetic

RUNS = (0.17329, 0.33331, 0.34657, 0.38, 0.45, 0.51986, 0.68, 1.0397)
"""Where neighbouring numbers are tried for inversions: halves of ln 2, where reductions of the
argument change step.
"""


@dataclass(frozen=True, slots=True)
class Density:
    """How many rows there are."""

    octave: int
    """For each octave of e^-g."""

    run: int
    """In a run of neighbouring numbers."""

    threshold: int
    """Around each threshold."""

    offset: int
    """For each offset."""

    judged: int
    """Given to the judge, of all."""


def density(format: Format, *, slow: bool) -> Density:
    """The density of the rows: about 2^17 rows in all, 2^15 for float64 (1022 octaves), 2^11 for a
    slow kernel.
    """
    if slow:
        return Density(octave=8 if format is not float64 else 1, run=64, threshold=8, offset=16, judged=512)
    if format is float64:
        return Density(octave=24, run=1024, threshold=64, offset=128, judged=512)
    return Density(octave=512, run=4096, threshold=256, offset=256, judged=4096)


class Rows:
    """The rows for one format. wide: the output shows the arithmetic, not only its rounding to 16 bits."""

    def __init__(self, format: Format, *, slow: bool) -> None:
        self.format, self.slow, self.arithmetic = format, slow, compute_format(format)
        self.wide = format is self.arithmetic
        self.density = density(format, slow=slow)

    @property
    def last_normal(self) -> float:
        """The gap to which e^-g is a normal number of the output's format."""
        return self.format.exp_subnormal

    def by_purpose(self) -> dict[str, Array]:
        """The rows by purpose, [rows, 3] each, numbers of the format: [0, -g, -h], or [0, -g, far below]."""
        count = self.density.threshold
        thresholds = [self._around(at, count) for at in self._thresholds()]
        thresholds.append(np.linspace(1.0, self._thresholds()[0] + 4, 2 * count))
        thresholds.append(np.linspace(self.last_normal, self.format.exp_underflow + 2, count))
        if self.wide:
            runs = np.concatenate([self._around(at, self.density.run // 2) for at in RUNS])
            deep = self._around(0.8 * self.last_normal, self.density.run // 4)
            parts = {"curve": self.paired(self._octaves()), "deep": self._single(deep)}
        else:
            runs = self._every_number()
            parts = {"curve": self._single(runs), "argument": self._unrounded()}
        neighbours = self._single(runs[:-1])
        neighbours[:, 2] = -runs[1:]
        parts["neighbours"] = neighbours
        parts["thresholds"] = self._single(np.asarray(self.format.round(np.concatenate(thresholds))))
        return parts

    def _thresholds(self) -> tuple[float, ...]:
        """The gaps at which something may happen: the largest saturation first, the underflow last."""
        formats = {f.name: f for f in (self.arithmetic, self.format, float16, bfloat16)}.values()
        saturations = [at for f in formats for at in (f.saturation_rounded(), f.saturation_in_format)]
        return (*saturations, self.format.exp_subnormal, self.format.exp_underflow)

    def _around(self, gap: float, count: int) -> Array:
        """2 count neighbouring numbers of the format around a gap."""
        spacing = float(self.format.ulp(gap))
        return self.format.round(gap + spacing * np.arange(-count, count, dtype=np.float64))

    def _octaves(self) -> Array:
        """Gaps evenly over each octave of e^-g, [k ln 2, (k+1) ln 2): errors of period 1 in g log2
        e have no say in a mean.
        """
        count = self.density.octave
        octave = np.arange(int(self.last_normal / LN2) - 1)
        start = (octave * 0.6180339887498949) % 1.0
        place = (np.arange(count, dtype=np.float64) + start[:, None]) / count
        gaps = self.format.round(np.asarray((octave[:, None] + place) * LN2)).ravel()
        return gaps[gaps > 2.0**-12]

    def _every_number(self) -> Array:
        """Every number of a 16-bit format from 2^-8 to past the underflow; evenly chosen ones for a
        slow kernel.
        """
        first, last = -8, int(np.floor(np.log2(self.format.exp_underflow)))
        steps = 1 + np.arange(2 ** (self.format.precision - 1)) * 2.0 ** (1 - self.format.precision)
        gaps = np.concatenate([steps * 2.0**e for e in range(first, last + 1)])
        gaps = gaps[gaps < 1.05 * self.format.exp_underflow]
        return gaps[:: -(-len(gaps) // 512)] if self.slow else gaps

    def _single(self, gaps: Array) -> Array:
        far = np.full(len(gaps), float(self.format.round(-4 * self.format.exp_underflow)))
        return np.stack([np.zeros(len(gaps)), -gaps, far], axis=1)

    def paired(self, gaps: Array) -> Array:
        """[0, -g, -h] with e^-g + e^-h = 1 + u/2 as nearly as h can be a number of the format.

        The half u more than 1 lets a sum of rounded exponentials round to 2 from both sides.
        """
        rows = self._single(gaps)
        near = gaps < (self.format.precision + 4) * LN2
        arithmetic = exact_arithmetic(self.format)
        with arithmetic.precision(128) if not isinstance(arithmetic, Float64) else np.errstate():
            exponential = arithmetic.exp(arithmetic.lift(-gaps[near]))
            rest = (1 - exponential) + self.format.unit_roundoff / 2
            partner = -np.asarray(arithmetic.log(rest), dtype=np.float64)
        partner = np.asarray(self.format.round(partner))
        rows[near, 2] = np.where(partner > self.format.smallest_normal, -partner, 0.0)
        return rows

    def _unrounded(self) -> Array:
        """Rows [a, -b, far] of 16-bit numbers whose gap a + b needs more bits than the format has."""
        top = 8.0 if self.format is float16 else 64.0
        fine = 0.5 if self.format is float16 else 1.0
        count = 2 ** (self.format.precision - 1)
        a = fine * (1 + np.arange(count) / count)
        b = top + top / 8 * ((np.arange(count) * 0.6180339887498949) % 1.0)
        rows = self._single(np.asarray(self.format.round(b)))
        rows[:, 0] = a
        return rows

    def gaps_on_grid(self, offset: float) -> Array:
        """Gaps g for which offset - g and -g are numbers of the format, so that both rows have the
        same differences.
        """
        if offset > self.format.largest:
            return np.zeros(0)
        spacing = float(self.format.ulp(abs(offset) + self.last_normal))
        steps = int(self.last_normal / 2 / spacing)
        chosen = np.unique(np.linspace(1, max(steps, 1), self.density.offset).round())
        gaps = chosen * spacing
        kept = self.format.contains(gaps) & self.format.contains(offset - gaps) & (gaps <= self.last_normal)
        return np.asarray(gaps[kept])
