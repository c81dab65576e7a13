"""The bound of attention's gradients (docs/gradients.md), first order. With the notation of
backward_definition.py, A = |dO| |V|^T, Abar_i = sum_j P_ij A_ij, x = dP - D + dlse, u of the arithmetic, u_F
of the tensors' format (0 where they are one), T tiles:

    weights   phi_ij = theta_ij + tau_i + u (3 |lse_i| + 3.25 ln s_i + ...)        exp(s - m) / sum and
              exp(s - lse) alike
    D         delta_i = sum_j P_ij (e^phi_ij - 1) |dP_ij| + u (n + Ev + T + 8) Abar_i + u_F (Abar_i +
              |dO_i|.|O_i|)
    dS        P (e^phi - 1) |x| + P (delta + nested + u (Ev + 8) (A + Abar + |dlse|)) + 2 u_F P |x|
    nested    2 max_j |dP_ij| (max_j phi_ij + ...) + u (Ev + 8) max_j A_ij
              (a part of the keys, normalised by itself)
    maxima    where s_ij may be a maximum that autograd goes through: the roundings of the dS that it
              is subtracted from
    softcap   dS (1 - tanh^2): twice the error of s over c, relatively, and u (24 |tanh| + 2 exp_ulp +
              8) beside 1
    dQ, dK, dV, dmask, dsink    the errors of their terms, u (n + 4) sum |terms| for the sum of n terms
                                in any order, and
                                u_F |.| for each head of a shared key

theta is the forward's error of a score (bound.py) with at most T rescales, tau that of its lse
(log_sum_exp.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format, compute_format
from suite.numerics import Numerics
from suite.ops.arithmetic import Float64
from suite.ops.attention import log_sum_exp
from suite.ops.attention.backward_definition import Terms, exact_gradients, pulled_back
from suite.ops.attention.backward_problem import Block, Gradient
from suite.ops.attention.bound import weight_error
from suite.ops.attention.definition import products
from suite.ops.rows import Allowed

SECOND_ORDER = 1 + 2.0**-6
"""What products of first-order terms may add: the largest of them is the square of a rounding to bfloat16."""

TILE, PARTS = 16, 4
"""The fewest keys of a tile, whose maximum a kernel may subtract; the parts of the keys that it may
normalise one by one.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Errors:
    """How far P, dS, dS times the slope of the scores [n, S] and the sink's dS [n, 1] may be off."""

    p: Array
    d_s: Array
    d_product: Array
    d_sink: Array


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def bound(problem: Gradient, numerics: Numerics, target: Format) -> Allowed:
    """The allowed absolute error of each entry of a gradient [rows, width], before rounding to the
    format `target`.
    """
    arithmetic = numerics.arithmetic(target)
    u, tiny = arithmetic.unit_roundoff, arithmetic.smallest_subnormal
    stored = _stored(numerics, target)
    off, magnitude, terms, by_head = (np.zeros((len(problem.rows), problem.width)) for _ in range(4))
    for live in problem.live_blocks():
        p, d_s, d_sink, steepness = exact_gradients(live)
        q = live.queries
        exact = Terms(
            p=p,
            d_s=d_s,
            d_sink=d_sink,
            d_product=d_s * steepness,
            query=q.query,
            key=live.key,
            upstream=live.upstream,
        )
        sizes = Terms(**{name: np.abs(value) for name, value in vars(exact).items()})
        wrong = replace(sizes, **vars(errors_of(live, numerics, target)))
        seen = q.visible.astype(np.float64)
        sinks = np.zeros_like(d_sink) if q.sink is None else (q.sink > -np.inf).astype(np.float64)[:, None]
        each = Terms(**{name: np.ones_like(value) for name, value in vars(exact).items()})
        each = replace(each, p=seen, d_s=seen, d_product=seen, d_sink=sinks)
        for total, linear in ((off, wrong), (magnitude, sizes), (terms, each)):
            np.add.at(total, *pulled_back(Float64(), problem, live, linear))
        place, of_block = pulled_back(Float64(), problem, live, exact)
        np.add.at(by_head, place, np.abs(of_block))
    off = np.where(np.isnan(off), np.inf, off)  # an error without a bound, times an entry of 0
    absolute = off + u * (terms + 4) * (magnitude + np.where(np.isfinite(off), off, 0.0))
    if problem.wrt in ("k", "v") and problem.heads > problem.groups:
        absolute = absolute + stored.unit_roundoff * by_head + stored.smallest_subnormal * problem.heads
    if problem.wrt in ("q", "k"):
        absolute = abs(problem.scale) * absolute
    absolute = np.where(terms > 0, SECOND_ORDER * absolute + tiny * (terms + 4), 0.0)
    return Allowed(absolute, np.full(absolute.shape, compute_format(target).smallest_normal))


_ERRORS: WeakKeyDictionary[Block, dict[tuple[Numerics, str], Errors]] = WeakKeyDictionary()


def errors_of(block: Block, numerics: Numerics, target: Format) -> Errors:
    """errors(), remembered for the last two: the tensors' format, and that of the reference."""
    known = _ERRORS.setdefault(block, {})
    key = (numerics, target.name)
    if key not in known:
        known[key] = errors(block, numerics, target)
        if len(known) > 2:
            del known[next(iter(known))]
    return known[key]


def errors(block: Block, numerics: Numerics, target: Format) -> Errors:
    """How far the coefficients of the gradients of a block of queries may be off."""
    arithmetic, stored = numerics.arithmetic(target), _stored(numerics, target)
    rows, queries = block.facts.rows, block.queries
    keys, width = queries.visible.shape[1], block.value.shape[1]
    more = rows.x.shape[1] - keys  # one column more where there is a sink, which has no value
    u, u_stored = arithmetic.unit_roundoff, stored.unit_roundoff if stored.bits < arithmetic.bits else 0.0
    scores = numerics.format_of("scores", target)
    cast_scores = scores.unit_roundoff if scores is not None else 0.0
    weights = _weights(block, numerics, target)
    p, grown, sees = weights.p, weights.grown, weights.sees
    centred = _centred(block, weights, u, stored if u_stored else None)

    held, x = p + grown, np.abs(centred.x)
    own = grown * x + held * centred.error + arithmetic.smallest_subnormal * (1 + held * (2 * width + keys))
    own = np.where(sees, own, 0.0)
    # Autograd through a maximum that is not detached takes the weights as they are: what is left
    # there is rounding alone.
    at_maxima = left_at_maxima(
        rows.x,
        keys,
        u * (width + 8 + 2 * weights.tiles) * p * (centred.magnitude + centred.largest_products),
        u * p * (centred.products + 2 * centred.largest + x),
    )
    cast = u_stored + cast_scores
    below = stored.smallest_subnormal if u_stored else 0.0
    rounded = held * (centred.stored_error + 2 * cast * x) + below * (x + 1)
    d_s = own + at_maxima + rounded
    unknown = sees & ~(grown.sum(axis=1, keepdims=True) < 0.5)
    d_s = np.where(unknown, np.inf, np.where(sees, d_s, 0.0))

    of_p = grown + cast * held + 3 * u * p + np.where(sees, below, 0.0)
    of_p = np.where(unknown, np.inf, of_p)[:, :keys]
    d_sink = d_s[:, keys:] if more else np.zeros((len(d_s), 1))
    d_s, d_product = d_s[:, :keys], d_s[:, :keys]
    if any(term.has_slope for term in queries.terms):
        _, exact, _, _ = exact_gradients(block)
        of_products = (u * (queries.query.shape[1] + 3) + 2 * cast_scores) * block.facts.products
        slope, of_slope = _slopes(block, of_products, numerics, u)
        d_product = d_s * (slope + of_slope) + np.abs(exact) * of_slope
        d_product = np.where(queries.visible, np.where(np.isnan(d_product), np.inf, d_product), 0.0)
    return Errors(p=of_p, d_s=d_s, d_product=d_product, d_sink=d_sink)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Weights:
    """P of a block, [n, S], with a column more where there is a sink."""

    p: Array
    sees: NDArray[np.bool_]
    grown: Array
    """How far each may be off."""
    worst: Array
    """[n, 1]: phi, the largest relative error of those that do not underflow."""
    tiles: int


def _weights(block: Block, numerics: Numerics, target: Format) -> _Weights:
    arithmetic, facts = numerics.arithmetic(target), block.facts
    rows, keys, u = facts.rows, block.queries.visible.shape[1], arithmetic.unit_roundoff
    theta = weight_error(facts, numerics, target)
    tiles = max(-(-keys // size) for size in tile_sizes(keys)) + rows.x.shape[1] - keys
    theta = theta - u * (2 * numerics.exp_ulp + 1) * np.maximum(rows.larger - tiles, 0.0)
    lse = log_sum_exp.bound(facts, numerics, target).absolute
    phi = theta + lse + u * (3 * np.abs(rows.log_sum_exp) + 3.25 * rows.log_total + 2 * numerics.exp_ulp + 4)
    sees, p = rows.x > -np.inf, np.where(rows.x > -np.inf, rows.probability, 0.0)
    gone = -rows.gap - rows.log_total + phi < np.log(arithmetic.smallest_normal)
    grown = np.where(p > 0, p * np.expm1(np.where(gone, 0.0, phi)), 0.0)
    grown = np.where(sees, grown + 2 * arithmetic.smallest_normal, 0.0)
    worst = np.where(gone, 0.0, phi).max(axis=1, keepdims=True, initial=0.0)
    return _Weights(p=p, sees=sees, grown=grown, worst=worst, tiles=tiles)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Centred:
    """x = dP - D + dlse of a block, as _Weights; dP is 0 for the sink."""

    x: Array
    error: Array
    stored_error: Array
    """[n, 1]: what storing O and D in the tensors' format costs."""
    magnitude: Array
    products: Array
    """A = |dO| |V|^T."""
    largest: Array
    """[n, 1]: the largest |dP|."""
    largest_products: Array
    """[n, 1]: the largest A."""


def _centred(block: Block, weights: _Weights, u: float, stored: Format | None) -> _Centred:
    rows, visible = block.facts.rows, block.queries.visible
    keys, width = visible.shape[1], block.value.shape[1]
    more, p, grown = rows.x.shape[1] - keys, weights.p, weights.grown
    upstream, value = np.abs(block.upstream), np.abs(block.value)
    d_p = _padded(np.where(visible, block.upstream @ block.value.T, 0.0), more)
    of_products = _padded(np.where(visible, upstream @ value.T, 0.0), more)
    d, mean = ((p * terms).sum(axis=1, keepdims=True) for terms in (d_p, of_products))
    d_lse = block.upstream_lse[:, None]
    magnitude = of_products + mean + np.abs(d_lse)
    lost = np.minimum(p * of_products, u * mean).sum(axis=1, keepdims=True)
    of_d = (
        (grown * np.abs(d_p)).sum(axis=1, keepdims=True)
        + lost
        + u * (width + 8 + np.minimum(rows.rescales, weights.tiles)) * mean
    )
    of_d_stored = np.zeros_like(mean)
    if stored is not None:
        output = (upstream * np.abs(p[:, :keys] @ block.value)).sum(axis=1, keepdims=True)
        lowest = of_products.sum(axis=1, keepdims=True) + upstream.sum(axis=1, keepdims=True)
        of_d_stored = stored.unit_roundoff * (mean + output) + stored.smallest_subnormal * lowest

    # a kernel that normalises a part of the keys by itself has that part's D, which may be as large
    # as its largest dP
    largest, largest_products = (
        np.abs(t).max(axis=1, keepdims=True, initial=0.0) for t in (d_p, of_products)
    )
    nested = 2 * largest * (weights.worst + u * 2.25 * np.log(keys)) + u * (width + 8) * largest_products
    return _Centred(
        x=np.where(weights.sees, d_p - d + d_lse, 0.0),
        error=u * (width + 8) * magnitude + of_d + nested,
        stored_error=of_d_stored,
        magnitude=magnitude,
        products=of_products,
        largest=largest,
        largest_products=largest_products,
    )


def _slopes(block: Block, error: Array, numerics: Numerics, u: float) -> tuple[Array, Array]:
    """The slope of the scores by scale q.k, and how far it may be off. error: of scale q.k."""
    slope, of_slope = np.ones((1, 1)), np.zeros((1, 1))
    scores, magnitude = products(Float64(), block.queries, block.key), block.facts.products
    for term in block.queries.terms:
        if term.has_slope:
            own = np.asarray(term.slope(Float64(), scores))
            of_own = term.slope_error(own, error, numerics, u)
            of_slope = slope * of_own + of_slope * own + of_slope * of_own
            slope = slope * own
        scores = term.finite().apply(Float64(), scores)
        error, magnitude = term.error(error, magnitude, numerics, u)
    return slope, of_slope


def _stored(numerics: Numerics, target: Format) -> Format:
    """The format of P, dS and O between products: the tensors' own, where it is not declared."""
    arithmetic = numerics.arithmetic(target)
    return numerics.format_of("probabilities", target) or (
        target if target.bits < arithmetic.bits else arithmetic
    )


def _padded(values: Array, columns: int) -> Array:
    return np.pad(values, ((0, 0), (0, columns)))


def tile_sizes(keys: int) -> tuple[int, ...]:
    """Of how many keys the tiles are that a kernel goes through: at least 16, or the square root of
    their number (Rabe and Staats 2021), or a part of all.
    """
    return min(TILE, keys), max(math.isqrt(keys), 1), max(-(-keys // PARTS), 1)


def left_at_maxima(x: Array, keys: int, errors: Array, roundings: Array) -> Array:
    """[rows, n]: what the gradient through a maximum, exactly 0, may leave at the entry that is the
    maximum: the errors of the entries that it is subtracted from, and what adding them up may lose,
    `roundings` for each addition.

    That of a tile has the entries of the tile. A running maximum, from the first tile to the last
    or back, and a sink have all that are no larger, or larger by less than the lag with which a
    maximum may follow (log_sum_exp.py).
    """
    scores = x[:, :keys]
    small, root, part = tile_sizes(keys)
    running = np.ones(x.shape, dtype=bool)
    running[:, :keys] = _is_largest(scores, small) | _is_largest(scores, root)
    running[:, :keys] &= (scores == np.maximum.accumulate(scores, axis=1)) | (
        scores == np.maximum.accumulate(scores[:, ::-1], axis=1)[:, ::-1]
    )
    found = np.where(running, _up_to(x, x + log_sum_exp.LAG, errors, roundings), 0.0)
    for size in (root, part, keys):
        starts, tile = np.arange(0, keys, size), np.arange(keys) // size
        sums, lost = (
            np.add.reduceat(values[:, :keys], starts, axis=1)[:, tile] for values in (errors, roundings)
        )
        of_tile = np.where(_is_largest(scores, size), sums + min(size, keys) * lost, 0.0)
        found[:, :keys] = np.maximum(found[:, :keys], of_tile)
    return found


def _is_largest(scores: Array, size: int) -> NDArray[np.bool_]:
    """[rows, S]: which are the largest of their tile of so many keys."""
    tiles = np.maximum.reduceat(scores, np.arange(0, scores.shape[1], size), axis=1)
    return np.asarray(scores == tiles[:, np.arange(scores.shape[1]) // size])


def _up_to(x: Array, limit: Array, errors: Array, roundings: Array) -> Array:
    """[rows, n]: the sum of the errors of all entries whose x is at most this limit, and what
    adding them up may lose.
    """
    order = np.argsort(x, axis=1, kind="stable")
    ordered = np.take_along_axis(x, order, axis=1)
    count = np.cumsum(ordered > -np.inf, axis=1)
    sums, lost = (
        np.cumsum(np.take_along_axis(values, order, axis=1), axis=1) for values in (errors, roundings)
    )
    last = np.array(
        [np.searchsorted(row, to, side="right") - 1 for row, to in zip(ordered, limit, strict=True)],
        dtype=np.intp,
    )
    return np.asarray(np.take_along_axis(sums + count * lost, last.reshape(x.shape), axis=1))
