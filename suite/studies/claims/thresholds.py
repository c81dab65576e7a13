"""Where softmax overflows, underflows, saturates and stagnates: closed formulas against torch and
emulated arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from suite.formats import DTYPES, Array, Format, bfloat16, float16, float32, get_format
from suite.studies.claims import Finding, claim, same_digits

PAPER = "Blanchard, Higham and Higham 2021, Table 2"
OWN = "closed formula of suite/formats.py"


@claim(
    name="float16-exp-overflow",
    source=f"{PAPER} (log r_max), and {OWN}",
    published="11.09",
    criterion=(
        "the formula ln Omega has the printed digits and lies between the last finite and the first infinite"
        " result"
    ),
    seconds=0.1,
)
def exp_overflow() -> Finding:
    """In float16 exp(x), hence a softmax without the shift, overflows above x = 11.09."""
    import torch

    x = np.arange(0, 16, 2.0**-7)
    finite = torch.isfinite(torch.exp(torch.from_numpy(x).half())).numpy()
    last, first = float(x[finite].max()), float(x[~finite].min())
    between = last < float16.ln_omega < first
    return Finding(
        measured=f"finite at {last:.4f}, infinite at {first:.4f}",
        agrees=between and same_digits(float16.ln_omega, "11.09"),
        note=f"formula {float16.ln_omega:.5f}",
    )


def sum_of_ones(terms: int, f: Format) -> float:
    """1 + 1 + ... in the format, in order."""
    total = 0.0
    for _ in range(terms):
        total = float(f.round(total + 1.0))
    return total


@claim(
    name="sum-stagnation",
    source=f"pull request pytorch/executorch#20090, and {OWN}",
    published="bfloat16 256; float16 2048",
    criterion="equal",
    seconds=0.2,
)
def stagnation() -> Finding:
    """A sum of equal terms in the format itself stops growing at 2^p terms, one after another."""
    reached = {f.name: sum_of_ones(f.stagnation + 100, f) for f in (bfloat16, float16)}
    return Finding(
        measured="; ".join(f"{name} {total:.0f}" for name, total in reached.items()),
        agrees=reached == {"bfloat16": 256.0, "float16": 2048.0},
    )


def first_gap(condition: Callable[[Array], Any], f: Format, *, low: float, high: float, step: float) -> float:
    """The smallest multiple g of `step` in [low, high) that the format holds and that satisfies
    condition(g).
    """
    gaps = np.arange(low, high, step)
    gaps = gaps[f.contains(gaps)]
    return float(gaps[np.asarray(condition(gaps))].min())


def torch_softmax(f: Format, gaps: Array, terms: int) -> Array:
    """torch.softmax of the rows (0, -g, ..., -g) with `terms` entries, float64 [gaps, terms]."""
    import torch

    x = torch.zeros(len(gaps), terms, dtype=getattr(torch, f.name))
    x[:, 1:] = -torch.from_numpy(gaps).to(x.dtype)[:, None]
    return np.asarray(torch.softmax(x, 1).double().numpy())


def saturation(f: Format, terms: int, *, high: float) -> float:
    """The smallest gap, in steps of 1/64, at which torch gives the largest of `terms` entries exactly 1."""
    return first_gap(
        lambda g: torch_softmax(f, g, terms)[:, 0] == 1, f, low=high - 8, high=high, step=2.0**-6
    )


def on_grid(threshold: float, f: Format) -> float:
    """The smallest multiple of 1/64 that the format holds and that reaches the threshold."""
    return first_gap(lambda g: g >= threshold, f, low=np.floor(threshold), high=threshold + 1, step=2.0**-6)


SATURATION = {
    ("bfloat16", 2): (6.25, bfloat16.saturation_rounded(2)),
    ("bfloat16", 4096): (14.5625, bfloat16.saturation_rounded(4096)),
    ("float16", 2): (8.328125, float16.saturation_rounded(2)),
    ("float16", 4096): (16.640625, float16.saturation_rounded(4096)),
    ("float32", 2): (16.640625, float32.saturation_in_format),
}


@claim(
    name="softmax-saturation",
    source=(
        f"{OWN}: ln(2^(p+1) - 1) + ln(n - 1) for 16-bit formats, whose kernels are wider inside; p ln 2 for"
        " float32"
    ),
    published="bfloat16 6.25, 14.5625 (n = 2, 4096); float16 8.3281, 16.6406; float32 16.6406 (n = 2)",
    criterion="equal on a grid of 1/64, and equal to the formula rounded up to the grid",
    seconds=0.5,
)
def saturation_points() -> Finding:
    """torch.softmax gives the largest entry exactly 1 from a gap to the other entries that is known
    in advance.
    """
    found = {
        key: saturation(get_format(key[0]), key[1], high=np.ceil(SATURATION[key][1]) + 1)
        for key in SATURATION
    }
    expected = {key: on_grid(formula, get_format(key[0])) for key, (_, formula) in SATURATION.items()}
    return Finding(
        measured=", ".join(f"{name} n={n} {gap:.4f}" for (name, n), gap in found.items()),
        agrees=found == expected and all(found[key] == SATURATION[key][0] for key in found),
    )


def underflow(f: Format) -> float:
    """The smallest gap, in steps of 1/4, at which torch gives the smaller of two entries exactly 0."""
    low = np.floor(f.exp_underflow) - 8
    return first_gap(lambda g: torch_softmax(f, g, 2)[:, 1] == 0, f, low=low, high=low + 12, step=0.25)


@claim(
    name="softmax-underflow",
    source=f"{OWN}: (p - emin) ln 2",
    published="float64 745.25, float32 104, bfloat16 93, float16 17.5",
    criterion="equal on a grid of 1/4",
    seconds=0.2,
)
def underflow_points() -> Finding:
    """torch.softmax gives a smaller entry exactly 0 from a gap that is known in advance."""
    found = {name: underflow(get_format(name)) for name in DTYPES}
    return Finding(
        measured=", ".join(f"{name} {gap:g}" for name, gap in found.items()),
        agrees=found == {"float64": 745.25, "float32": 104.0, "bfloat16": 93.0, "float16": 17.5},
    )
