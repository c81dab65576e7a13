"""A setting: one dimension of how an op is called, and all that anything needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

Level = Any
"""A value that a setting can have in a case: of an option the value itself, of an optional tensor
the name of its kind, of a size the number.
"""

Shapes = Mapping[str, tuple[int, ...]]


class Part(Enum):
    """Where a call, and a case, has a setting."""

    OPTION = "option"
    """An argument of the call."""
    TENSOR = "tensor"
    """An optional tensor. The case names its kind."""
    SIZE = "size"
    """A size of the tensors that the first one's shape does not tell."""
    INPUT = "input"
    """How the tensors are made: their layout, the kind of target, of upstream gradient."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How a person says that a case has a level that is not the default."""

    name: str
    """The column of a report."""
    code: str
    """The column's heading in a terminal."""
    heading: str
    """The column's heading on a page."""
    where: str
    """In a sentence, after "not safe"."""


class Setting:
    """One setting. A subclass says what differs from the plain case: an option of any value."""

    name: str
    """As calls, case ids and commands have it."""
    part: Part = Part.OPTION
    default: Level = None
    """What a case has that does not name the setting."""
    levels: tuple[Level, ...]
    """What covers it, from simple to hard, the default first."""
    wordings: tuple[Wording, ...] = ()

    def check(self, value: Any, shapes: Shapes) -> Any:
        """An option's value in canonical form. Raises ValueError for one that has no meaning for
        inputs of these shapes.
        """
        return value

    def check_shape(self, shape: tuple[int, ...], shapes: Shapes) -> None:
        """Raises ValueError where a tensor of this shape does not fit the other inputs."""

    def check_level(self, level: Level) -> None:
        """Raises ValueError, with the valid ones, for a level that no case can have."""
        if self.part in (Part.INPUT, Part.TENSOR) and level not in self.levels:
            raise ValueError(f"{self.name}={level!r} is not one of {', '.join(self.names())}")

    def names(self) -> tuple[str, ...]:
        """The texts of the levels that a case can name."""
        return tuple(self.text(level) for level in self.levels if level not in (None, ""))

    def permits(self, level: Level, others: Mapping[str, Any]) -> bool:
        """Whether a call can have this level beside these levels of other settings and these sizes
        (batch, heads, length, head_size, keys, ...). One that is not named has its default.
        """
        return True

    def implied(self, level: Level, shape: tuple[int, ...]) -> Mapping[str, Any]:
        """Options that a case with this level has where it does not name them. shape: of the first
        tensor.
        """
        return {}

    def unjudged(self, level: Level) -> str:
        """Why no kernel's numbers can be judged with this level; empty where they can."""
        return ""

    def summary(self, level: Level) -> str:
        """What a list says of a level that is a name."""
        return ""

    def text(self, level: Level) -> str:
        """The level as it stands in a case id and on a command line."""
        return ",".join(map(str, level)) if isinstance(level, tuple | list) else str(level)

    def parse(self, text: str) -> Level:
        """The level that a text names, by the type of the default. Raises ValueError where it names none.

        Where the default is None: None, an integer, a number, two of these joined by a comma, or
        the text itself.
        """
        if self.default is None:
            parts = [_plain(part) for part in text.split(",")]
            return parts[0] if len(parts) == 1 else tuple(parts)
        kind = type(self.default)
        if kind is bool:
            if text not in ("True", "False"):
                raise ValueError(f"{self.name}={text!r} must be True or False")
            return text == "True"
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"{self.name}={text!r} must be a {kind.__name__}") from None

    def read(self, text: str) -> Level:
        """The level in a case id. Raises ValueError for a text that names none, or names one in
        another way than text() does.
        """
        level = self.parse(text)
        if self.text(level) != text:
            raise ValueError(
                f"{self.name}={text} must be written {self.text(level)} in a case id: an id names one"
                " case, and a case has one id"
            )
        self.check_level(level)
        return level

    def wording(self, level: Level) -> Wording | None:
        """How to say it; None for a level that asks for nothing."""
        asks = level is not None and level != self.default and self.wordings
        return self.wordings[0] if asks else None


class Kind(Setting):
    """A setting whose levels are names: of the kinds of a tensor, or of ways to make one."""

    def parse(self, text: str) -> str:
        return text


class Size(Setting):
    """A size of the tensors; None: what the first tensor's shape has."""

    part = Part.SIZE

    def parse(self, text: str) -> int:
        if not text.isdecimal() or str(int(text)) != text:
            raise ValueError(f"{self.name}={text!r} must be a whole number")
        return int(text)


def is_number(value: Any) -> bool:
    """Whether a value is an integer or a float, and no boolean."""
    kinds: Any = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool)


def _plain(text: str) -> Any:
    if text == "None":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
