"""A case: op, family, shape, options, laws and seed. Its id alone rebuilds its inputs; its docstring states its law."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from suite import inputs
from suite.formats import DTYPES, Array, Format
from suite.inputs.draws import Draw
from suite.inputs.layouts import LAYOUTS
from suite.inputs.targets import TARGETS, indices, probabilities
from suite.ops import Op, get_op, parse_option

PROFILES = ("smoke", "quick", "standard", "full")
SEEDS = {"smoke": 1, "quick": 1, "standard": 1, "full": 20}
"""How many seeds each profile runs; cases of a smaller profile are part of every larger one."""

CASE_ATTRIBUTE = "__softmax_suite_case__"
_ID = re.compile(r"(?P<op>\w+)/(?P<family>\w+)/(?P<shape>\d+(x\d+)*)(?P<settings>(/\w+=[\w.+-]+)*)/s(?P<seed>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input for one op.

    family: input family. shape: of the logits. options: of the op, as given. layout: of the logits in memory. target: what
    cross_entropy's targets are, "indices" or "probabilities". laws: relations to check besides accuracy.
    profile: the smallest profile that runs it. why: the law, one sentence. source: where it comes from.
    """

    op: str
    family: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "contiguous"
    target: str = "indices"
    laws: tuple[str, ...] = ()
    seed: int = 0
    profile: str = "smoke"
    why: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for name, valid in (("layout", LAYOUTS), ("target", TARGETS)):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(valid)}")

    @property
    def id(self) -> str:
        settings = dict(self.options)
        settings |= {"layout": self.layout} if self.layout != "contiguous" else {}
        settings |= {"target": self.target} if self.target != "indices" else {}
        shown = "".join(f"/{name}={value}" for name, value in settings.items())
        return f"{self.op}/{self.family}/{'x'.join(map(str, self.shape))}{shown}/s{self.seed}"

    @classmethod
    def from_id(cls, id: str, *, laws: tuple[str, ...] = ()) -> Case:
        """The case of an id. Raises ValueError where the id is malformed or names an unknown op or family."""
        match = _ID.fullmatch(id)
        if match is None:
            raise ValueError(f"case id {id!r} is not op/family/ROWSxN[/OPTION=VALUE...]/sSEED")
        op = get_op(match["op"])
        family = inputs.get_family(match["family"])
        shape = tuple(int(n) for n in match["shape"].split("x"))
        if family.fixed_shape is not None and family.fixed_shape != shape:
            raise ValueError(f"{family.name} has the shape {'x'.join(map(str, family.fixed_shape))}, not {match['shape']}")
        options = dict(setting.split("=") for setting in match["settings"].split("/")[1:])
        layout, target = options.pop("layout", "contiguous"), options.pop("target", "indices")
        case = cls(
            op=op.name,
            family=family.name,
            shape=shape,
            options={name: _option(op, name, text) for name, text in options.items()},
            layout=layout,
            target=target,
            laws=laws,
            seed=int(match["seed"]),
        )
        case.resolved_options()
        return case

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs, by argument."""
        op = get_op(self.op)
        shapes = {op.arguments[0]: self.shape}
        if "target" in op.arguments:
            axis = op.axis(self.options, self.shape)
            classless = self.shape[:axis] + self.shape[axis + 1 :]
            shapes["target"] = self.shape if self.target == "probabilities" else classless
        return shapes

    def resolved_options(self) -> dict[str, Any]:
        """The options with defaults. Raises ValueError for one that has no meaning for this shape."""
        return get_op(self.op).resolve_options(self.options, self.shapes())

    def inputs(self, format: Format) -> dict[str, Array]:
        """The inputs by argument, the same bits on every machine: float64 logits of `shape`, every finite value a number of
        `format`, and what else the op takes.
        """
        op, options = get_op(self.op), self.resolved_options()
        axis = op.axis(options, self.shape)
        others, n = self.shape[:axis] + self.shape[axis + 1 :], self.shape[axis]
        rows = inputs.build(self.family, int(np.prod(others)), n, format, self.seed)
        if self.layout == "expanded":  # its slices along the first dim are one, so their rows must be equal
            rows = np.tile(rows[: len(rows) // others[0]], (others[0], 1)) if axis != 0 else np.tile(rows[:, :1], (1, n))
        found: dict[str, Any] = {op.arguments[0]: _unrows(rows, others, axis)}
        if "target" in op.arguments:
            draw = Draw(f"target|{self.target}|{self.family}|{self.shape}|{self.seed}")
            if self.target == "probabilities":
                found["target"] = _unrows(probabilities(rows, format, draw), others, axis)
            else:
                found["target"] = indices(rows, options["ignore_index"], draw).reshape(others)
            if self.target == "ignored":
                found["target"][...] = options["ignore_index"]
        return found


def _unrows(rows: Array, others: tuple[int, ...], axis: int) -> Array:
    return np.ascontiguousarray(np.moveaxis(rows.reshape(*others, rows.shape[1]), -1, axis))


def _option(op: Op, name: str, text: str) -> Any:
    """The value of an option in a case id. Raises ValueError for an unknown option or a value that cannot be one."""
    if name not in op.options:
        raise ValueError(f"{op.name} has no option {name!r}; valid options: {', '.join(op.options)}, layout, target")
    value = parse_option(op, name, text)
    if str(value) != text:
        raise ValueError(f"{name}={text} must be written {value} in a case id: an id names one case, and a case has one id")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSpecification:
    """What @case puts on a test function: the cases that it stands for."""

    ops: tuple[str, ...]
    family: str
    shapes: Mapping[str, Sequence[tuple[int, ...]]]
    options: tuple[Mapping[str, Any], ...]
    layout: str
    target: str
    dtypes: tuple[str, ...]
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
                options=options,
                layout=self.layout,
                target=self.target,
                laws=self.laws,
                seed=seed,
                profile=name,
                why=self.why,
                source=self.source,
            )
            for op in self.ops
            for name in chosen
            for shape in self.shapes.get(name, ())
            for options in self.options
            for seed in range(1 if inputs.get_family(self.family).fixed_shape else SEEDS[profile])
        ]


T = TypeVar("T", bound=Callable[..., None])


def case(
    *ops: str,
    family: str,
    source: str,
    shapes: Mapping[str, Sequence[tuple[int, ...]]] | None = None,
    options: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ({},),
    layout: str = "contiguous",
    target: str = "indices",
    dtypes: tuple[str, ...] = DTYPES,
    laws: tuple[str, ...] = (),
) -> Callable[[T], T]:
    """Makes a test function a case: it runs for every op, shape, seed, kernel and dtype that the run selects.

    shapes: profile -> shapes; the default is LADDER, or the shape of the captured data. options: of the op,
    or several of them, each of which makes a case. dtypes: in which it says something.
    The function's docstring is the law. Raises ValueError for an unknown op, family, profile or law, and without a docstring.
    """
    from suite.laws import get_law

    chosen = inputs.get_family(family)
    for op in ops:
        get_op(op)
    for law in laws:
        get_law(law)
    ladder = shapes or ({"smoke": [chosen.fixed_shape]} if chosen.fixed_shape else LADDER)
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
            options=(dict(options),) if isinstance(options, Mapping) else tuple(dict(chosen) for chosen in options),
            layout=layout,
            target=target,
            dtypes=dtypes,
            laws=laws,
            why=why,
            source=source,
        )
        setattr(function, CASE_ATTRIBUTE, specification)
        return function

    return declare


LADDER: Mapping[str, Sequence[tuple[int, ...]]] = {
    "smoke": [(8, 257)],
    "quick": [(16, 33)],
    "standard": [(4, 2), (8, 7), (8, 1000), (4, 4096)],
}
"""Enough rows for every variant of a family, at lengths 2 to 4096: odd ones, and those around tile sizes."""

EVERY_LENGTH: Mapping[str, Sequence[tuple[int, ...]]] = {
    "smoke": [(8, 257)],
    "quick": [(8, n) for n in (7, 31, 33, 129, 1000, 1025)],
    "standard": [
        *((8, n) for n in (3, 16, 63, 64, 65, 127, 256, 1023, 1024, 2047, 3000, 4096, 5003)),
        *((4, 32768), (2, 50257), (2, 128256), (2, 151936)),
    ],
}
"""For the families at tile boundaries, which must be met at every length, those of vocabularies among them."""

VOCABULARY: Mapping[str, Sequence[tuple[int, ...]]] = {"standard": [(2, 151936)]}
"""The row length of a language model's vocabulary."""
