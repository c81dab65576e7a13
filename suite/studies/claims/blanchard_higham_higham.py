"""Blanchard, Higham and Higham, "Accurately computing the log-sum-exp and softmax functions", IMA
J. Numer. Anal. 41(4), 2021.

Their 2,500 vectors of length 10 are the last layer of a network on MNIST and stay theirs. Here the
experiment is repeated on seeded normal vectors of the same shape, spread so that about as many rows
overflow in float16; what carries over is the order of the algorithms and the theorems, not the
digits. The arithmetic is theirs: every operation rounded to the format.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from suite.formats import Array, Format, bfloat16, float16, float32
from suite.inputs.draws import Draw
from suite.studies.claims import Finding, claim

PAPER = "Blanchard, Higham and Higham 2021, doi 10.1093/imanum/draa038, arXiv 1909.03469"
CODE = "github.com/higham/logsumexp-softmax-tests"
ROWS, N, SPREAD = 2500, 10, 5.5
ALGORITHMS = ("unshifted division", "unshifted subtraction", "shifted division", "shifted subtraction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """One algorithm family on rows x [rows, n]."""

    total: Array
    """[rows]: the sum of exponentials."""

    lse: Array
    """[rows]."""

    division: Array
    """[rows, n]: softmax as e_i / s."""

    subtraction: Array
    """[rows, n]: softmax as exp(x_i - lse)."""


def unshifted(x: Array, f: Format) -> Computed:
    """exp(x_i) summed from left to right; e_i / s and exp(x_i - lse)."""
    with np.errstate(over="ignore", invalid="ignore"):
        e = f.round(np.exp(x))
        s = _sum(e, f)
        lse = f.round(np.log(s))
        return Computed(
            total=s,
            lse=lse,
            division=f.round(e / s[:, None]),
            subtraction=f.round(np.exp(f.round(x - lse[:, None]))),
        )


def shifted(x: Array, f: Format) -> Computed:
    """exp(x_i - max) with the maximum's own term left out of the sum; e_i / (1 + s) and exp(x_i -
    (max + log1p(s))).
    """
    a, rows, k = x.max(axis=1), np.arange(len(x)), x.argmax(axis=1)
    e = f.round(np.exp(f.round(x - a[:, None])))
    e[rows, k] = 0.0
    s = _sum(e, f)
    lse = f.round(a + f.round(np.log1p(s)))
    e[rows, k] = 1.0
    return Computed(
        total=s,
        lse=lse,
        division=f.round(e / f.round(1 + s)[:, None]),
        subtraction=f.round(np.exp(f.round(x - lse[:, None]))),
    )


def _sum(terms: Array, f: Format) -> Array:
    total = np.zeros(len(terms))
    for column in terms.T:
        total = f.round(total + column)
    return total


def exact(x: Array) -> tuple[Array, Array]:
    """lse [rows] and softmax [rows, n] in float64, whose own error is 10^-10 u of the formats here."""
    m = x.max(axis=1, keepdims=True)
    e = np.exp(x - m)
    s = e.sum(axis=1, keepdims=True)
    return (m + np.log(s))[:, 0], e / s


def vectors(f: Format) -> Array:
    return f.round(Draw("claims: Blanchard, Higham and Higham").normal(ROWS, N) * SPREAD)


def kept(f: Format) -> Array:
    """The rows on which no algorithm overflows, as in the paper."""
    x = vectors(f)
    return x[np.isfinite(unshifted(x, f).lse)]


def softmax_errors(x: Array, f: Format) -> list[Array]:
    """max |computed - exact| / (u max exact) of every row, for each of ALGORITHMS."""
    _, g = exact(x)
    plain, safe = unshifted(x, f), shifted(x, f)
    outputs = (plain.division, plain.subtraction, safe.division, safe.subtraction)
    return [np.abs(output - g).max(axis=1) / (f.unit_roundoff * g.max(axis=1)) for output in outputs]


def softmax_bounds(x: Array) -> list[Array]:
    """The first-order bounds of Theorems 3.3, 3.4, 4.3 and 4.4, in units of u, as coded by the authors."""
    y, _ = exact(x)
    n, low, high = x.shape[1], x.min(axis=1), x.max(axis=1)
    far = np.abs(x - y[:, None]).max(axis=1)
    return [
        np.full(len(x), n + 3.0),
        np.abs(y) + far + n + 2,
        n + 2 + 2 * (high - low),
        1 + far + np.abs(y + n - low),
    ]


@claim(
    name="bhh-overflow",
    source=f"{PAPER}; the count is a comment of {CODE}/chop_test_softmax.m",
    published="475 of 2500; shifted 0",
    criterion="only the sign: some rows overflow without the shift, none with it (the data differ)",
    seconds=0.1,
)
def overflow() -> Finding:
    """In float16 the unshifted log-sum-exp overflows on a fifth of the rows of a network's logits,
    the shifted one on none.
    """
    x = vectors(float16)
    plain, safe = (int(np.isinf(algorithm(x, float16).lse).sum()) for algorithm in (unshifted, shifted))
    return Finding(measured=f"{plain} of {len(x)}; shifted {safe}", agrees=plain > 0 and safe == 0)


def ordering(f: Format, errors: list[Array]) -> Finding:
    """Whether division beats subtraction in both forms, and shifting costs at most a factor of 2."""
    plain_division, plain_subtraction, safe_division, safe_subtraction = worst = [
        float(e.max()) for e in errors
    ]
    better = plain_division < plain_subtraction and safe_division < safe_subtraction
    similar = safe_division <= 2 * plain_division and safe_subtraction <= 2 * plain_subtraction
    return Finding(
        measured=" / ".join(f"{error:.2f}" for error in worst),
        agrees=better and similar,
        note=f"{len(errors[0])} rows; {', '.join(ALGORITHMS)}",
    )


def _declare_ordering(f: Format, published: str) -> None:
    @claim(
        name=f"bhh-softmax-error-{f.name}",
        source=(
            f"{PAPER}; numbers: the authors' program and data, {CODE}, evaluated once with this arithmetic"
        ),
        stated=(
            f"In {f.name}, softmax without division is less accurate than with it, and the shifted forms are"
            " of similar accuracy to the unshifted ones or better: largest normwise error in units of u."
        ),
        published=published,
        criterion=(
            "ordering: division below subtraction in both forms; each shifted form at most twice its"
            " unshifted one"
        ),
        seconds=0.2,
    )
    def measure() -> Finding:
        x = kept(f)
        return ordering(f, softmax_errors(x, f))


_declare_ordering(float16, "4.70 / 10.30 / 2.05 / 8.30")
_declare_ordering(bfloat16, "3.07 / 9.50 / 1.80 / 8.37")


@claim(
    name="bhh-row-sums",
    source=f"{PAPER}; numbers: the authors' program and data, {CODE}, evaluated once with this arithmetic",
    published="2.35e-3 / 5.03e-3 / 8.68e-4 / 4.04e-3",
    criterion="ordering: division below subtraction in both forms (the data differ)",
    seconds=0.2,
)
def row_sums() -> Finding:
    """In float16 the results of the division-free softmax sum to 1 less well than those with
    division: max |sum - 1|.
    """
    x = kept(float16)
    outputs = [
        getattr(a(x, float16), form) for a in (unshifted, shifted) for form in ("division", "subtraction")
    ]
    worst = [float(np.abs(output.sum(axis=1) - 1).max()) for output in outputs]
    return Finding(
        measured=" / ".join(f"{e:.2e}" for e in worst), agrees=worst[0] < worst[1] and worst[2] < worst[3]
    )


@claim(
    name="bhh-theorems",
    source=f"{PAPER}, equation 3.3 and Theorems 3.3, 3.4, 4.3, 4.4 as coded in {CODE}",
    published="at most 1",
    criterion="no row exceeds its first-order bound, in float16 and bfloat16",
    seconds=0.4,
)
def theorems() -> Finding:
    """The rounding errors of the sum and of the four forms of softmax stay within the theorems'
    first-order bounds.
    """
    worst = np.zeros(5)
    for f in (float16, bfloat16):
        x = kept(f)
        total = np.exp(x).sum(axis=1)
        sum_ratio = np.abs(unshifted(x, f).total / total - 1) / ((N + 1) * f.unit_roundoff)
        ratios = [e / b for e, b in zip(softmax_errors(x, f), softmax_bounds(x), strict=True)]
        worst = np.maximum(worst, [r.max() for r in (sum_ratio, *ratios)])
    text = ", ".join(
        f"{name} {w:.2f}"
        for name, w in zip(("equation 3.3", "Theorem 3.3", "3.4", "4.3", "4.4"), worst, strict=True)
    )
    return Finding(measured=text, agrees=bool((worst <= 1).all()), note="largest error in times of its bound")


def offset_ratios() -> tuple[Array, Array]:
    """Largest error in times of the bounds of Theorems 4.2 and 4.4, as coded and with |y| u added,
    on rows of two entries.
    """
    coded, repaired = np.zeros(2), np.zeros(2)
    for offset in (0, 5, 1000):
        x = float32.round(Draw(f"claims: two entries {offset}").normal(20_000, 2) * 4 + offset)
        y, _ = exact(x)
        errors = np.abs(shifted(x, float32).lse - y) / float32.unit_roundoff, softmax_errors(x, float32)[3]
        bounds = np.abs(y + 2 - x.min(axis=1)), softmax_bounds(x)[3]
        coded = np.maximum(coded, [(e / b).max() for e, b in zip(errors, bounds, strict=True)])
        repaired = np.maximum(
            repaired, [(e / (b + np.abs(y))).max() for e, b in zip(errors, bounds, strict=True)]
        )
    return coded, repaired


@claim(
    name="bhh-theorems-4.2-4.4-two-entries",
    source=f"Theorems 4.2 and 4.4 as coded in {CODE}/chop_test_softmax.m; the printed theorems were not read",
    published="at most 1",
    criterion="no row exceeds its bound: float32, n = 2, 4 N(0,1) + offset for offsets 0, 5 and 1000",
    seconds=0.3,
)
def offsets() -> Finding:
    """The shifted log-sum-exp has a relative error of at most |y + n - min x| / |y| u, and the
    shifted softmax by subtraction a normwise one of at most (1 + max|x - y| + |y + n - min x|) u.
    The rounding |y| u of max + log1p(s) is in neither.
    """
    coded, repaired = offset_ratios()
    holds = "so that they hold" if (repaired <= 1).all() else "and still violated"
    return Finding(
        measured=f"4.2: {coded[0]:.3g}, 4.4: {coded[1]:.3g}",
        agrees=bool((coded <= 1).all()),
        note=(
            f"in times of the bound; with |y| u added 4.2: {repaired[0]:.2f}, 4.4: {repaired[1]:.2f}, {holds}"
        ),
    )
