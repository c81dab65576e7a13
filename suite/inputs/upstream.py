"""Upstream gradients: what comes back from behind an op's output, by kind, named and seeded like
the input families.

Each kind is one function (shape, along, format, draw) -> float64 array of the output's shape;
`along`: the dim of a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from suite.formats import Array, Format
from suite.inputs import first_sentence, rounded
from suite.inputs.draws import Draw
from suite.settings import Kind, Part, Wording

Generator = Callable[[tuple[int, ...], int, Format, Draw], Array]


def ones(shape: tuple[int, ...], along: int, format: Format, draw: Draw) -> Array:
    """All 1, as y.sum().backward() gives them: through softmax the exact result is 0."""
    return np.ones(shape)


def one_hot(shape: tuple[int, ...], along: int, format: Format, draw: Draw) -> Array:
    """One 1 a row, of a single entry the 1 itself: a row of the Jacobian; nothing may leak from the
    other entries.
    """
    if not shape:
        return np.ones(shape)
    upstream = np.zeros(shape)
    lines = np.moveaxis(upstream, along, -1)
    np.put_along_axis(lines, draw.integers(shape[along], *lines.shape[:-1], 1), 1.0, axis=-1)
    return upstream


def normal(shape: tuple[int, ...], along: int, format: Format, draw: Draw) -> Array:
    """Normal, of both signs: what training has."""
    return draw.normal(*shape)


def huge(shape: tuple[int, ...], along: int, format: Format, draw: Draw) -> Array:
    """Normal, times 2^(3/4 of the largest exponent): a loss scale; small weights come back to
    normal numbers by it.
    """
    return draw.normal(*shape) * 2.0 ** (format.emax * 3 // 4)


def tiny(shape: tuple[int, ...], along: int, format: Format, draw: Draw) -> Array:
    """Normal, times 2^(3/4 of the smallest exponent): products with weights fall below the format's
    normal numbers.
    """
    return draw.normal(*shape) * 2.0 ** (format.emin * 3 // 4)


def constant(shape: tuple[int, ...], along: int, format: Format, draw: Draw) -> Array:
    """One number for each row, not 1: through softmax the exact result is 0, of terms that cancel."""
    if not shape:
        return draw.normal(1).reshape(())
    of_row = draw.normal(*(size for dim, size in enumerate(shape) if dim != along % len(shape)))
    return np.broadcast_to(np.expand_dims(of_row, along), shape).copy()


UPSTREAMS: dict[str, Generator] = {
    kind.__name__: kind for kind in (ones, one_hot, normal, huge, tiny, constant)
}


class Upstream(Kind):
    """The kind of the gradient of the output that is given; "": none, so that the forward is judged."""

    name = "upstream"
    part = Part.INPUT
    default = ""
    levels = ("", *UPSTREAMS)
    wordings = (Wording("upstream", "back", "backward", "in the backward"),)

    def summary(self, level: str) -> str:
        return first_sentence(UPSTREAMS[level])

    def check_level(self, level: str) -> None:
        if level != "file":  # that of a file of saved tensors
            super().check_level(level)


UPSTREAM = Upstream()


def build(name: str, shape: tuple[int, ...], along: int, format: Format, draw: Draw) -> Array:
    """The upstream gradient of this kind, numbers of the format. Raises ValueError with the valid names."""
    if name not in UPSTREAMS:
        raise ValueError(f"unknown kind of upstream {name!r}; expected one of {', '.join(UPSTREAMS)}")
    return rounded(UPSTREAMS[name](shape, along, format, draw), format)
