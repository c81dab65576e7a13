"""What a setting of attention may do: hide keys, change scores, and say what changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array
from suite.inputs import attention_tensors, first_sentence
from suite.numerics import Numerics
from suite.ops.arithmetic import Arithmetic
from suite.settings import Kind, Part, Setting, Shapes

Mask = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """Where queries stand: index arrays that broadcast together, their last dim 1, for the keys."""

    batch: Index
    head: Index
    query: Index
    shape: tuple[int, int, int, int]
    """B, H, L, S of the call."""
    offset: int
    """The position of the first query among the keys."""

    @classmethod
    def of_all(cls, shape: tuple[int, int, int, int], offset: int) -> Self:
        """Every query, [B, H, L, 1]."""
        batch, head, query = np.ogrid[: shape[0], : shape[1], : shape[2]]
        return cls(
            batch=batch[..., None], head=head[..., None], query=query[..., None], shape=shape, offset=offset
        )

    @property
    def position(self) -> Index:
        """Of the queries, among the keys."""
        return self.query + self.offset

    @cached_property
    def keys(self) -> Index:
        """[S]."""
        return np.arange(self.shape[3])

    def of(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """The queries' rows [..., S] of a tensor that broadcasts to [B, H, L, S]."""
        whole = np.broadcast_to(tensor, self.shape)
        return np.asarray(whole[self.batch[..., 0], self.head[..., 0], self.query[..., 0]])


Reach = tuple[NDArray[Any] | None, NDArray[Any] | None]
"""The first and the last key that queries see, in the shape of a Place; None: no limit on that side."""


class Term:
    """How a setting changes scores [rows, S], for some queries: a dataclass whose arrays have a row
    for each.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    has_slope: ClassVar[bool] = False
    """Whether the changed scores grow otherwise than the scores before."""

    def apply(self, arithmetic: Arithmetic, scores: Any) -> Any:
        """The changed scores, in the numbers of `arithmetic`."""
        raise NotImplementedError

    def added(self) -> Array | None:
        """[rows, S]: the magnitude of what is added to the scores; None for nothing."""
        return None

    def error(
        self, error: Array, magnitude: Array, numerics: Numerics, unit_roundoff: float
    ) -> tuple[Array, Array]:
        """(error, magnitude) of the changed scores, from those of the scores before. What adding
        costs is no part of it.
        """
        return error, magnitude

    def slope(self, arithmetic: Arithmetic, scores: Any) -> Any:
        """The derivative of the changed scores by the scores before, where that is not 1."""
        raise NotImplementedError

    def slope_error(self, slope: Array, error: Array, numerics: Numerics, unit_roundoff: float) -> Array:
        """How far the slope may be off. slope: the exact one. error: of the scores before."""
        return np.zeros_like(slope)

    def take(self, rows: Index) -> Self:
        """Of these rows alone."""
        return self._with({name: values[rows] for name, values in self.arrays().items()})

    def finite(self) -> Self:
        """With zeros in the place of what is not finite, which belongs to keys that are not visible."""
        return self._with(
            {name: np.where(np.isfinite(values), values, 0.0) for name, values in self.arrays().items()}
        )

    def arrays(self) -> dict[str, Array]:
        """Its fields that have a row for each query."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in own.items() if isinstance(value, np.ndarray)}

    def content(self) -> bytes:
        """Bytes that are equal exactly where the term is."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value for name, value in own.items() if name not in self.arrays()}
        head = f"{type(self).__name__}|{plain}|{[values.shape for values in self.arrays().values()]}|"
        return head.encode() + b"|".join(
            np.ascontiguousarray(values).tobytes() for values in self.arrays().values()
        )

    def _with(self, changed: Mapping[str, Array]) -> Self:
        return replace(self, **changed)


class AttentionSetting(Setting):
    """A setting of attention. `value` is an option's value, or the tensor itself."""

    hides_keys: bool = False
    """Whether it lets queries see some of the keys only."""
    stage: int = 0
    """The order in which settings change scores, for those that do."""
    uses_positions: bool = False
    """Whether it depends on where queries stand among the keys."""
    places_queries: bool = False
    """Whether it says where queries stand among the keys."""
    counts_keys: bool = False
    """Whether it depends on the order of the keys alone."""
    differentiable: bool = False
    """Whether it is a tensor that has a gradient."""
    minus_infinity_hides: bool = False
    """Whether -inf in this tensor hides a key, or leaves something out, and is no special value."""

    def reach(self, value: Any, place: Place) -> Reach | None:
        """The first and the last key that it lets each query see; None where it is no such limit."""
        return None

    def visible(self, value: Any, place: Place) -> Mask | None:
        """[..., S]: the keys that it lets each query see; None for all of them."""
        reach = self.reach(value, place)
        return None if reach is None else within(reach, place)

    def equivalent(self, value: Any, place: Place) -> Mask | None:
        """[..., S]: the boolean mask that says the same; None where none does."""
        return self.visible(value, place)

    def term(self, value: Any, place: Place) -> Term | None:
        """How it changes scores; None where it does not."""
        return None

    def neutral(self, shapes: Shapes) -> Mapping[str, Any]:
        """Values that change nothing, for inputs of these shapes, by how a message calls them."""
        return {}

    def expected_shape(self, sizes: tuple[int, int, int, int]) -> tuple[int, ...]:
        """The shape of a tensor, of a mask the one that it broadcasts to. sizes: B, H, L, S."""
        raise NotImplementedError(f"{self.name} is no tensor")

    def check_shape(self, shape: tuple[int, ...], shapes: Shapes) -> None:
        expected = self.expected_shape(sizes_of(shapes))
        if shape != expected:
            raise ValueError(f"{self.name} has shape {list(shape)}; expected {list(expected)}")

    def check_tensor(self, value: NDArray[Any], shapes: Shapes) -> None:
        """Raises ValueError for values that have no meaning."""

    def entry(self, value: NDArray[Any], batch: int) -> NDArray[Any]:
        """What this tensor is for one batch entry alone."""
        return value


class TensorSetting(AttentionSetting, Kind):
    """An optional tensor of attention."""

    part = Part.TENSOR

    def summary(self, level: Any) -> str:
        return first_sentence(attention_tensors.get_kind(self.name, level))

    def check_level(self, level: Any) -> None:
        if level not in self.levels:
            raise ValueError(
                f"unknown kind {level!r} of {self.name}; expected one of {', '.join(self.names())}"
            )


def sizes_of(shapes: Shapes) -> tuple[int, int, int, int]:
    """B, H, L, S of inputs of these shapes."""
    batch, heads, length, _ = shapes["q"]
    return batch, heads, length, shapes["k"][2]


def within(reach: Reach, place: Place) -> Mask:
    """[..., S]: the keys from the first to the last."""
    first, last = reach
    visible = np.ones((*place.query.shape[:-1], place.shape[3]), dtype=np.bool_)
    if first is not None:
        visible = visible & (place.keys >= first)
    if last is not None:
        visible = visible & (place.keys <= last)
    return visible
