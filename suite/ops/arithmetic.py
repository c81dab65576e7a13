"""The arithmetics in which a definition is evaluated: float64, mpmath (the definition of truth) and
Arb balls (certified).

An arithmetic holds arrays: float64 ones, or numpy object arrays of mpf or arb numbers. +, - and /
are the arrays' own. flint and mpmath are imported where they are used; precision is set around each
computation, never for the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array


class Arithmetic(Protocol):
    """The operations that a definition may use on rows of logits, besides +, - and /."""

    def lift(self, x: Array) -> Any:
        """float64 to numbers of this arithmetic, exactly; x must be finite."""

    def exp(self, values: Any) -> Any: ...

    def log(self, values: Any) -> Any: ...

    def tanh(self, values: Any) -> Any: ...

    def matmul(self, a: Any, b: Any) -> Any:
        """[n, k] times [k, m]."""

    def masked_exp(self, values: Any, visible: NDArray[np.bool_]) -> Any:
        """exp where visible, exactly 0 elsewhere."""

    def row_sum(self, values: Any) -> Any:
        """[rows, n] to [rows, 1]."""

    def shifted(self, x: Array) -> Any:
        """x - max x of each row; 0 at -inf."""

    def shifted_exp(self, x: Array, temperature: float = 1.0) -> Any:
        """exp((x - max x) / temperature) of each row; exactly 0 at -inf."""


class Float64:
    """IEEE double precision with numpy's exp and log."""

    def lift(self, x: Array) -> Array:
        return x

    def exp(self, values: Array) -> Array:
        return np.exp(values)

    def log(self, values: Array) -> Array:
        return np.asarray(np.log(values))

    def tanh(self, values: Array) -> Array:
        return np.asarray(np.tanh(values))

    def matmul(self, a: Array, b: Array) -> Array:
        return np.asarray(a @ b)

    def masked_exp(self, values: Array, visible: NDArray[np.bool_]) -> Array:
        with np.errstate(under="ignore"):
            return np.where(visible, np.exp(np.where(visible, values, 0.0)), 0.0)

    def row_sum(self, values: Array) -> Array:
        return np.asarray(values.sum(axis=1, keepdims=True))

    def shifted(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.where(x > -np.inf, x - x.max(axis=1, keepdims=True), 0.0)

    def shifted_exp(self, x: Array, temperature: float = 1.0) -> Array:
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(np.exp((x - x.max(axis=1, keepdims=True)) / temperature))


class _ObjectArithmetic:
    """Elementwise arithmetic on numpy object arrays of some exact-enough number type."""

    number: Callable[[float], Any]
    exp_of: Callable[[Any], Any]
    log_of: Callable[[Any], Any]
    tanh_of: Callable[[Any], Any]

    def lift(self, x: Array) -> Any:
        return _elementwise(self.number, x)

    def exp(self, values: Any) -> Any:
        return _elementwise(self.exp_of, values)

    def log(self, values: Any) -> Any:
        return _elementwise(self.log_of, values)

    def tanh(self, values: Any) -> Any:
        return _elementwise(self.tanh_of, values)

    def matmul(self, a: Any, b: Any) -> Any:
        return a @ b

    def masked_exp(self, values: Any, visible: NDArray[np.bool_]) -> Any:
        result = np.full(visible.shape, self.number(0.0), dtype=object)
        result[visible] = self.exp(values[visible])
        return result

    def row_sum(self, values: Any) -> Any:
        return values.sum(axis=1, keepdims=True)

    def shifted(self, x: Array) -> Any:
        visible = x > -np.inf
        maximum = np.broadcast_to(x.max(axis=1, keepdims=True), x.shape)
        result = np.full(x.shape, self.number(0.0), dtype=object)
        result[visible] = self.lift(x[visible]) - self.lift(maximum[visible])
        return result

    def shifted_exp(self, x: Array, temperature: float = 1.0) -> Any:
        visible = x > -np.inf
        result = np.full(x.shape, self.number(0.0), dtype=object)
        result[visible] = self.exp(self.shifted(x)[visible] / self.number(temperature))
        return result


class Mpmath(_ObjectArithmetic):
    """mpmath at the working precision in force (see `precision`)."""

    def __init__(self) -> None:
        import mpmath

        self.number = mpmath.mpf
        self.exp_of = mpmath.exp
        self.log_of = mpmath.log
        self.tanh_of = mpmath.tanh

    @staticmethod
    @contextmanager
    def precision(bits: int) -> Iterator[None]:
        import mpmath

        with mpmath.workprec(bits):
            yield


class Arb(_ObjectArithmetic):
    """Arb balls: midpoint and rigorous radius, at the working precision in force (see `precision`)."""

    def __init__(self) -> None:
        from flint import arb

        self.number = arb
        self.exp_of = arb.exp
        self.log_of = arb.log
        self.tanh_of = arb.tanh

    def matmul(self, a: Any, b: Any) -> Any:
        from flint import arb_mat

        product = arb_mat(a.tolist()) * arb_mat(b.tolist())
        return np.array(product.entries(), dtype=object).reshape(a.shape[0], b.shape[1])

    @staticmethod
    @contextmanager
    def precision(bits: int) -> Iterator[None]:
        from flint import ctx

        with ctx.workprec(bits):
            yield


def _elementwise(function: Callable[[Any], Any], values: Any) -> Any:
    return np.frompyfunc(function, 1, 1)(values)
