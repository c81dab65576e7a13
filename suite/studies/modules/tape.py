"""Numbers of any precision that remember how they were computed, for exact gradients.

Reverse accumulation (Linnainmaa 1970): each Number keeps its parents and the local derivatives, and
gradients() walks back. numpy arrays of them (dtype object) add, multiply, sum, and `@`; np.exp,
np.tanh and np.sqrt call the methods below. The arithmetic is mpmath's, at the precision that holds
where it is used: callers set it by mp.workprec.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Objects = Any
"""A numpy array of dtype object, of Numbers or of mpf: numpy's types know no arithmetic of such arrays."""
Operand = Any
"""A Number, or a number of Python or mpmath, which is a constant."""

_count = itertools.count()


class Number:
    """A value and the derivatives with respect to what it was computed from."""

    __slots__ = ("order", "parents", "value")

    def __init__(self, value: Any, *parents: tuple[Number, Any]) -> None:
        self.value = value
        self.parents = parents
        self.order = next(_count)

    def __add__(self, other: Operand) -> Number:
        if isinstance(other, Number):
            return Number(self.value + other.value, (self, 1), (other, 1))
        return Number(self.value + other, (self, 1))

    def __mul__(self, other: Operand) -> Number:
        if isinstance(other, Number):
            return Number(self.value * other.value, (self, other.value), (other, self.value))
        return Number(self.value * other, (self, other))

    def __neg__(self) -> Number:
        return Number(-self.value, (self, -1))

    def __sub__(self, other: Operand) -> Number:
        return self.__add__(-other)

    def __rsub__(self, other: Operand) -> Number:
        return self.__neg__().__add__(other)

    def __truediv__(self, other: Operand) -> Number:
        import mpmath

        return self.__mul__(other.reciprocal() if isinstance(other, Number) else mpmath.mpf(1) / other)

    def __rtruediv__(self, other: Operand) -> Number:
        return self.reciprocal().__mul__(other)

    __radd__ = __add__
    __rmul__ = __mul__

    def reciprocal(self) -> Number:
        y = 1 / self.value
        return Number(y, (self, -y * y))

    def exp(self) -> Number:
        import mpmath

        y = mpmath.exp(self.value)
        return Number(y, (self, y))

    def tanh(self) -> Number:
        import mpmath

        y = mpmath.tanh(self.value)
        return Number(y, (self, 1 - y * y))

    def sqrt(self) -> Number:
        import mpmath

        y = mpmath.sqrt(self.value)
        return Number(y, (self, 1 / (2 * y)))


def numbers(values: NDArray[Any]) -> Objects:
    """An array of Numbers with these float64 values, exactly."""
    import mpmath

    flat = [Number(mpmath.mpf(float(v))) for v in values.ravel()]
    return np.array([*flat, None], dtype=object)[:-1].reshape(values.shape)


def values(array: Objects) -> Objects:
    """The mpf values of an array of Numbers."""
    return np.array([*(number.value for number in array.ravel()), None], dtype=object)[:-1].reshape(
        array.shape
    )


def gradients(outputs: Objects, upstream: Objects, leaves: Sequence[Objects]) -> list[Objects]:
    """For each array of leaves the derivative of sum(outputs * upstream), upstream of mpf; 0 where
    nothing depends on it.
    """
    gradient: dict[int, Any] = {}
    reached: dict[int, Number] = {}
    for number, factor in zip(outputs.ravel(), upstream.ravel(), strict=True):
        gradient[number.order] = gradient.get(number.order, 0) + factor
        reached[number.order] = number
    stack = list(reached.values())
    while stack:
        for parent, _ in stack.pop().parents:
            if parent.order not in reached:
                reached[parent.order] = parent
                stack.append(parent)
    for order in sorted(reached, reverse=True):  # what was computed later comes first
        for parent, derivative in reached[order].parents:
            gradient[parent.order] = gradient.get(parent.order, 0) + gradient[order] * derivative
    found = []
    for array in leaves:
        flat = [gradient.get(number.order, 0) for number in array.ravel()]
        found.append(np.array([*flat, None], dtype=object)[:-1].reshape(array.shape))
    return found
