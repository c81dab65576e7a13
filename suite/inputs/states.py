"""Families of attention states for merge_states: two outputs with their log-sum-exps, the same bits
on every machine.

A family is one function (shape [..., E], format, draw) -> (o_a, lse_a, o_b, lse_b), float64;
build() rounds the outputs to the format and the log-sum-exps to the format that kernels keep them
in: float32, float64 for float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from suite.formats import Array, Format, compute_format
from suite.inputs import rounded
from suite.inputs.draws import Draw

Shape = tuple[int, ...]
Pair = tuple[Array, Array, Array, Array]
Generator = Callable[[Shape, Format, Draw], Pair]


def alike(shape: Shape, format: Format, draw: Draw) -> Pair:
    """Two states of about the same weight, as halves of one attention are."""
    return (
        draw.normal(*shape),
        4 + draw.normal(*shape[:-1]),
        draw.normal(*shape),
        4 + draw.normal(*shape[:-1]),
    )


def far_apart(shape: Shape, format: Format, draw: Draw) -> Pair:
    """One state outweighs the other by e^0 to e^120: the lighter one vanishes without a NaN."""
    gap = 120 * draw.uniform(*shape[:-1]) * (1 - 2 * draw.integers(2, *shape[:-1]))
    lse = 8 * draw.normal(*shape[:-1])
    return draw.normal(*shape), lse, draw.normal(*shape), lse + gap


def one_empty(shape: Shape, format: Format, draw: Draw) -> Pair:
    """One of the states has seen no key: its log-sum-exp is -inf and whatever its output holds
    weighs nothing.
    """
    o_a, lse_a, o_b, lse_b = alike(shape, format, draw)
    empty = draw.integers(4, *shape[:-1])
    return (
        o_a,
        np.where(empty % 2 == 1, -np.inf, lse_a),
        np.where((empty == 0)[..., None], 0.0, o_b),
        np.where(empty % 2 == 0, -np.inf, lse_b),
    )


def both_empty(shape: Shape, format: Format, draw: Draw) -> Pair:
    """Rows in which neither state has seen a key, beside others: their result is 0 with a
    log-sum-exp of -inf, never NaN.
    """
    o_a, lse_a, o_b, lse_b = alike(shape, format, draw)
    empty = draw.integers(2, *shape[:-1]) == 1
    return (
        np.where(empty[..., None], 0.0, o_a),
        np.where(empty, -np.inf, lse_a),
        np.where(empty[..., None], 0.0, o_b),
        np.where(empty, -np.inf, lse_b),
    )


def large(shape: Shape, format: Format, draw: Draw) -> Pair:
    """Log-sum-exps of 90 to 1,000 in magnitude: exp of them overflows, or is 0."""
    lse = (90 + 910 * draw.uniform(*shape[:-1])) * (1 - 2 * draw.integers(2, *shape[:-1]))
    return draw.normal(*shape), lse, draw.normal(*shape), lse + draw.normal(*shape[:-1])


def equal(shape: Shape, format: Format, draw: Draw) -> Pair:
    """Equal log-sum-exps: the mean of both outputs, and a sum larger by log 2."""
    lse = 3 * draw.normal(*shape[:-1])
    return draw.normal(*shape), lse, draw.normal(*shape), lse


def opposite(shape: Shape, format: Format, draw: Draw) -> Pair:
    """Outputs of opposite sign and nearly equal weight: the merged one is small beside both."""
    o_a, lse = 2 + draw.normal(*shape), draw.normal(*shape[:-1])
    return o_a, lse, -o_a + 2.0**-6 * draw.normal(*shape), lse + 2.0**-6 * draw.normal(*shape[:-1])


def huge(shape: Shape, format: Format, draw: Draw) -> Pair:
    """Outputs near half the format's largest number: weights are normalised before they are
    applied, or it overflows.
    """
    lse_a, lse_b = 60 + draw.normal(*shape[:-1]), 60 + draw.normal(*shape[:-1])
    largest = min(format.largest, 2.0**127) / 2
    return (
        largest * (0.5 + draw.uniform(*shape) / 2),
        lse_a,
        largest * (0.5 + draw.uniform(*shape) / 2),
        lse_b,
    )


FAMILIES: dict[str, Generator] = {
    function.__name__: function
    for function in (alike, far_apart, one_empty, both_empty, large, equal, opposite, huge)
}


def get_family(name: str) -> Generator:
    """The family of that name. Raises ValueError with the valid names."""
    if name not in FAMILIES:
        raise ValueError(
            f"unknown input family of merge_states {name!r}; expected one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def build(name: str, shape: Shape, format: Format, seed: int) -> dict[str, Array]:
    """The family's states for this seed: o_a, o_b of `shape`, lse_a, lse_b without its last dim,
    numbers of their formats.
    """
    o_a, lse_a, o_b, lse_b = get_family(name)(shape, format, Draw(f"states|{name}|{shape}|{seed}"))
    wide = compute_format(format)
    values = {"o_a": (o_a, format), "lse_a": (lse_a, wide), "o_b": (o_b, format), "lse_b": (lse_b, wide)}
    return {name: rounded(x, form) for name, (x, form) in values.items()}
