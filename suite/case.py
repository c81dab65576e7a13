"""A case: op, family, shape, options, laws and seed. Its id alone rebuilds its inputs; its docstring states its law."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from suite import inputs
from suite.formats import Array, Format
from suite.ops import get_op

PROFILES = ("smoke", "quick", "standard", "full")
SEEDS = {"smoke": 1, "quick": 1, "standard": 3, "full": 20}
"""How many seeds each profile runs; cases of a smaller profile are part of every larger one."""

CASE_ATTRIBUTE = "__softmax_suite_case__"
_ID = re.compile(r"(?P<op>\w+)/(?P<family>\w+)/(?P<shape>\d+(x\d+)*)(/dim=(?P<dim>-?\d+))?/s(?P<seed>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input for one op.

    family: input family. shape: of the tensor x. options: of the op, as given. laws: relations to check besides accuracy.
    profile: the smallest profile that runs it. why: the law, one sentence. source: where it comes from.
    """

    op: str
    family: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
    seed: int = 0
    profile: str = "smoke"
    why: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        dim = f"/dim={self.options['dim']}" if "dim" in self.options else ""
        return f"{self.op}/{self.family}/{'x'.join(map(str, self.shape))}{dim}/s{self.seed}"

    @classmethod
    def from_id(cls, id: str, *, laws: tuple[str, ...] = ()) -> Case:
        """The case of an id. Raises ValueError where the id is malformed or names an unknown op or family."""
        match = _ID.fullmatch(id)
        if match is None:
            raise ValueError(f"case id {id!r} is not op/family/ROWSxN[/dim=D]/sSEED")
        get_op(match["op"])
        family = inputs.get_family(match["family"])
        shape = tuple(int(n) for n in match["shape"].split("x"))
        if family.fixed_shape is not None and family.fixed_shape != shape:
            raise ValueError(f"{family.name} has the shape {'x'.join(map(str, family.fixed_shape))}, not {match['shape']}")
        options = {"dim": int(match["dim"])} if match["dim"] else {}
        case = cls(op=match["op"], family=match["family"], shape=shape, options=options, laws=laws, seed=int(match["seed"]))
        get_op(case.op).resolve_options(options, len(shape))
        return case

    def inputs(self, format: Format) -> dict[str, Array]:
        """{"x": float64 of `shape`}, every finite value a number of `format`: the same bits on every machine."""
        dim = self.options.get("dim", -1) % len(self.shape)
        others = self.shape[:dim] + self.shape[dim + 1 :]
        rows = inputs.build(self.family, int(np.prod(others)), self.shape[dim], format, self.seed)
        return {"x": np.ascontiguousarray(np.moveaxis(rows.reshape(*others, self.shape[dim]), -1, dim))}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSpecification:
    """What @case puts on a test function: the cases that it stands for."""

    ops: tuple[str, ...]
    family: str
    shapes: Mapping[str, Sequence[tuple[int, ...]]]
    options: Mapping[str, Any]
    laws: tuple[str, ...]
    why: str
    source: str

    def may_have(self, ids: Sequence[str]) -> bool:
        """Whether one of these ids could name a case of this specification, by its op and family."""
        return any(id.startswith(f"{op}/{self.family}/") for id in ids for op in self.ops)

    def cases(self, profile: str) -> list[Case]:
        """Every case of the profile and of the smaller ones."""
        chosen = PROFILES[: PROFILES.index(profile) + 1]
        return [
            Case(
                op=op,
                family=self.family,
                shape=shape,
                options=self.options,
                laws=self.laws,
                seed=seed,
                profile=name,
                why=self.why,
                source=self.source,
            )
            for op in self.ops
            for name in chosen
            for shape in self.shapes.get(name, ())
            for seed in range(1 if inputs.get_family(self.family).fixed_shape else SEEDS[profile])
        ]


T = TypeVar("T", bound=Callable[..., None])


def case(
    *ops: str,
    family: str,
    source: str,
    shapes: Mapping[str, Sequence[tuple[int, ...]]] | None = None,
    options: Mapping[str, Any] | None = None,
    laws: tuple[str, ...] = (),
) -> Callable[[T], T]:
    """Makes a test function a case: it runs for every op, shape, seed, kernel and dtype that the run selects.

    shapes: profile -> shapes; the default is LADDER, or the shape of the captured data. The function's docstring is the law.
    Raises ValueError for an unknown op, family, profile or law, or a function without a docstring.
    """
    from suite.laws import get_law

    chosen = inputs.get_family(family)
    for op in ops:
        get_op(op)
    for law in laws:
        get_law(law)
    ladder = {"smoke": [chosen.fixed_shape]} if chosen.fixed_shape else (shapes or LADDER)
    if not set(ladder) <= set(PROFILES):
        raise ValueError(f"shapes has the profiles {sorted(ladder)}; expected some of {', '.join(PROFILES)}")

    def declare(function: T) -> T:
        why = " ".join((function.__doc__ or "").split())
        if not why:
            raise ValueError(f"case {function.__name__} needs a docstring: its law in one sentence")
        specification = CaseSpecification(
            ops=ops,
            family=family,
            shapes=ladder,
            options=dict(options or {}),
            laws=laws,
            why=why,
            source=source,
        )
        setattr(function, CASE_ATTRIBUTE, specification)
        return function

    return declare


LADDER: Mapping[str, Sequence[tuple[int, ...]]] = {
    "smoke": [(16, 33), (8, 257)],
    "quick": [(4, 1), (4, 2), *((8, n) for n in (7, 31, 61, 64, 100, 127, 128, 129, 1000, 1006, 1025, 2048, 4096))],
    "standard": [(8, n) for n in (3, 16, 63, 65, 255, 256, 1023, 1024, 2047, 4095)],
}
"""Lengths 1 to 4096, odd ones and those around tile sizes among them; enough rows for every variant of a family."""

VOCABULARY: Mapping[str, Sequence[tuple[int, ...]]] = {"quick": [(4, 151936)]}
"""The row length of a language model's vocabulary."""
