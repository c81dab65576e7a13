"""A case: op, family, shape, options, laws and seed. Its id alone rebuilds its inputs; its
docstring states its law.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from suite.formats import DTYPES, Array, Format
from suite.inputs import upstream
from suite.inputs.draws import Draw
from suite.inputs.layouts import LAYOUT
from suite.inputs.targets import Target
from suite.inputs.upstream import UPSTREAM
from suite.ops import NAMES, get_op
from suite.ops.inputs import Wanted
from suite.settings import Level, Part, Shapes

PROFILES = ("smoke", "quick", "standard", "full")
DIRECTIONS = ("forward", "backward")
SEEDS = {"smoke": 1, "quick": 1, "standard": 1, "full": 20}
"""How many seeds each profile runs; cases of a smaller profile are part of every larger one."""

CASE_ATTRIBUTE = "__softmax_suite_case__"


class CaseError(ValueError):
    """A @case that makes no sense: the text names the function, what is wrong and what is valid."""


_ID = re.compile(
    r"(?P<op>\w+)/(?P<family>\w+)/(?P<shape>\d+(x\d+)*)(?P<settings>(/\w+=[\w.,+-]+)*)/s(?P<seed>\d+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input for one op."""

    op: str
    family: str
    """Its input family, "file" for tensors from a file."""
    shape: tuple[int, ...]
    """Of the first tensor."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the op, as given."""
    layout: str = LAYOUT.default
    """Of the op's tensors in memory."""
    target: str = Target.default
    """The kind of target, of an op that has one."""
    tensors: Mapping[str, Any] = field(default_factory=dict)
    """The kinds of optional tensors, and sizes that the shape does not tell, by name."""
    upstream: str = UPSTREAM.default
    """The kind of gradient of the output that is given, of a case of the backward."""
    laws: tuple[str, ...] = ()
    """Relations to check besides accuracy."""
    seed: int = 0
    profile: str = "smoke"
    """The smallest profile that runs it."""
    why: str = ""
    """The law, one sentence."""
    source: str = ""
    """Where it comes from."""

    def __post_init__(self) -> None:
        op = get_op(self.op)
        for name, level in self.named().items():
            op.setting(name).check_level(level)
        for name in self.tensors:
            if op.setting(name).part not in (Part.TENSOR, Part.SIZE):
                raise ValueError(f"{name} is no tensor and no size of {self.op}")
        op.inputs.shapes(self.wanted(self.options))

    def named(self) -> dict[str, Level]:
        """The settings that it names, in the order of its id."""
        beside = {"layout": self.layout, "target": self.target}, {"upstream": self.upstream}
        defaults = {"layout": LAYOUT.default, "target": Target.default, "upstream": UPSTREAM.default}
        before, after = (
            {name: level for name, level in some.items() if level != defaults[name]} for some in beside
        )
        return {**self.options, **before, **self.tensors, **after}

    @property
    def id(self) -> str:
        op = get_op(self.op)
        shown = "".join(f"/{name}={op.setting(name).text(level)}" for name, level in self.named().items())
        return f"{self.op}/{self.family}/{'x'.join(map(str, self.shape))}{shown}/s{self.seed}"

    @classmethod
    def from_id(cls, id: str, *, laws: tuple[str, ...] = ()) -> Case:
        """The case of an id. Raises ValueError where the id is malformed or names an unknown op or family."""
        match = _ID.fullmatch(id)
        if match is None:
            raise ValueError(f"case id {id!r} is not op/family/ROWSxN[/OPTION=VALUE...]/sSEED")
        op = get_op(match["op"])
        fixed = op.inputs.fixed_shape(match["family"])
        shape = tuple(int(n) for n in match["shape"].split("x"))
        if fixed not in (None, shape):
            raise ValueError(
                f"{match['family']} has the shape {'x'.join(map(str, fixed or ()))}, not {match['shape']}"
            )
        named = [setting.split("=") for setting in match["settings"].split("/")[1:]]
        if len(dict(named)) < len(named):
            raise ValueError(f"case id {id!r} has a setting twice")
        levels = [(op.setting(name), op.setting(name).read(text)) for name, text in named]

        def of(*parts: Part) -> dict[str, Level]:
            return {setting.name: level for setting, level in levels if setting.part in parts}

        case = cls(
            op=op.name,
            family=match["family"],
            shape=shape,
            options=of(Part.OPTION),
            tensors=of(Part.TENSOR, Part.SIZE),
            laws=laws,
            seed=int(match["seed"]),
            **of(Part.INPUT),
        )
        case.resolved_options()
        return case

    @property
    def direction(self) -> str:
        return "backward" if self.upstream else "forward"

    def wanted(self, options: Mapping[str, Any]) -> Wanted:
        """What its inputs are built from. options: as given, or in canonical form."""
        named = {**self.named(), **options}
        defaults = {setting.name: setting.default for setting in get_op(self.op).case_settings}
        return Wanted(
            family=self.family, shape=self.shape, settings={**named, **(defaults | named)}, seed=self.seed
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs, by argument."""
        shapes = dict(get_op(self.op).inputs.shapes(self.wanted(self.options)))
        return shapes | (self._upstream_shapes(shapes) if self.upstream else {})

    def _upstream_shapes(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """Those of the gradients of the outputs, by name."""
        op, options = get_op(self.op), self.resolved_options()
        parts = zip(op.upstreams, op.outputs(options), strict=False)
        return {name: part.output_shape(shapes, options) for name, part in parts}

    @property
    def unjudged(self) -> str:
        """Why no kernel's numbers can be judged on this case; empty where they can."""
        op = get_op(self.op)
        reasons = (op.setting(name).unjudged(level) for name, level in self.named().items())
        return next(filter(None, reasons), "")

    def resolved_options(self) -> dict[str, Any]:
        """The options with defaults. Raises ValueError for one that has no meaning for this shape."""
        op, implied = get_op(self.op), dict[str, Any]()
        for name, level in self.named().items():
            implied |= op.setting(name).implied(level, self.shape)
        return op.resolve_options({**implied, **self.options}, op.inputs.shapes(self.wanted(self.options)))

    def inputs(self, format: Format) -> dict[str, Array]:
        """The inputs by argument, the same bits on every machine: float64 logits of `shape`, every
        finite value a number of `format`, and what else the op takes; of a case of the backward,
        the gradients of its outputs.
        """
        op, options = get_op(self.op), self.resolved_options()
        wanted = self.wanted(options)
        found = op.inputs.build(wanted, format)
        shapes = self._upstream_shapes(op.inputs.shapes(wanted)) if self.upstream else {}
        for part, (name, shape) in zip(op.outputs(options), shapes.items(), strict=False):
            draw = Draw(f"{name}|{self.upstream}|{self.family}|{shape}|{self.seed}")
            along = op.axis(options, shape) if op.keeps_length else len(shape) - 1
            found[name] = upstream.build(self.upstream, shape, along, part.output_format(format), draw)
        return found


def fixed_shape(op: str, family: str) -> tuple[int, ...] | None:
    """The shape of the op's family of captured data, None for one that has any. Raises ValueError
    with the valid names.
    """
    return get_op(op).inputs.fixed_shape(family)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSpecification:
    """What @case puts on a test function: the cases that it stands for."""

    ops: tuple[str, ...]
    family: str
    shapes: Mapping[str, Sequence[tuple[int, ...]]]
    options: tuple[Mapping[str, Any], ...]
    layout: str
    target: str
    upstream: tuple[str, ...]
    tensors: tuple[Mapping[str, Any], ...]
    dtypes: tuple[str, ...]
    laws: tuple[str, ...]
    why: str
    source: str

    def check(self) -> None:
        """Raises ValueError, with the valid choices, for anything in it that is unknown or means nothing."""
        from suite.laws import get_law

        for what in ("ops", "upstream", "dtypes", "laws"):
            given = getattr(self, what)
            if isinstance(given, str) or not all(isinstance(name, str) for name in given):
                raise ValueError(f"{what}={given!r} must be a tuple of names, such as ({given!r},)")
        for law in self.laws:
            get_law(law)
        known = (("ops", self.ops, NAMES), ("shapes", self.shapes, PROFILES), ("dtypes", self.dtypes, DTYPES))
        for what, given, valid in known:
            if not given:
                raise ValueError(f"{what} is empty; expected some of {', '.join(valid)}")
            if unknown := [name for name in given if name not in valid]:
                raise ValueError(f"{what} has {unknown[0]!r}; expected some of {', '.join(valid)}")
        for profile, shapes in self.shapes.items():
            for shape in shapes:
                if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape):
                    raise ValueError(f"shapes of {profile} has {shape!r}; expected tuples of sizes")
        if not any(self.shapes.values()):
            raise ValueError(f"shapes={dict(self.shapes)!r} has no shape")
        if not self.why:
            raise ValueError("it needs a docstring: its law in one sentence")
        for case in replace(self, shapes=self._smallest()).cases("full", seeds=1):
            case.resolved_options()

    def _smallest(self) -> Mapping[str, Sequence[tuple[int, ...]]]:
        return {name: shapes[:1] for name, shapes in self.shapes.items()}

    def may_have(self, ids: Sequence[str]) -> bool:
        """Whether one of these ids could name a case of this specification, by its op and family."""
        return any(id.startswith(f"{op}/{self.family}/") for id in ids for op in self.ops)

    def cases(self, profile: str, *, seeds: int | None = None) -> list[Case]:
        """Every case of the profile and of the smaller ones, of as many seeds as the profile has."""
        chosen = PROFILES[: PROFILES.index(profile) + 1]
        return [
            Case(
                op=op,
                family=self.family,
                shape=shape,
                options=options,
                layout=self.layout,
                target=self.target,
                tensors=tensors,
                upstream=upstream,
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
            for tensors in self.tensors
            for upstream in self.upstream
            for seed in range(1 if fixed_shape(op, self.family) else seeds or SEEDS[profile])
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
    tensors: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ({},),
    upstream: tuple[str, ...] = ("",),
    dtypes: tuple[str, ...] = DTYPES,
    laws: tuple[str, ...] = (),
) -> Callable[[T], T]:
    """Makes a test function a case: it runs for every op, shape, seed, kernel and dtype that the run selects.

    shapes: profile -> shapes; the default is LADDER, or the shape of the captured data. options: of
    the op, or several of them, each of which makes a case; tensors: of attention, upstream: of the
    backward, likewise. dtypes: in which it says something. The function's docstring is the law.
    Raises CaseError for an unknown op, family, profile, format, law, option, layout or level of one,
    and without a docstring.
    """

    def specification(function: T) -> CaseSpecification:
        fixed = {fixed_shape(get_op(op).name, family) for op in ops} - {None}
        found = CaseSpecification(
            ops=ops,
            family=family,
            shapes=shapes or ({"smoke": [shape for shape in fixed if shape]} if fixed else LADDER),
            options=_several(options),
            tensors=_several(tensors),
            layout=layout,
            target=target,
            upstream=upstream,
            dtypes=dtypes,
            laws=laws,
            why=" ".join((function.__doc__ or "").split()),
            source=source,
        )
        found.check()
        return found

    def declare(function: T) -> T:
        try:
            setattr(function, CASE_ATTRIBUTE, specification(function))
        except ValueError as error:
            file = Path(function.__code__.co_filename).name
            raise CaseError(f"case {function.__name__} of {file}: {error}") from None
        return function

    return declare


def _several(given: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Raises ValueError for what is neither a mapping of settings nor several of them."""
    several = (given,) if isinstance(given, Mapping) else tuple(given)
    if wrong := [one for one in several if not isinstance(one, Mapping)]:
        raise ValueError(f"{wrong[0]!r} is no mapping of settings, such as {{'dim': 0}}")
    return tuple(dict(one) for one in several)


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
"""For the families at tile boundaries, which must be met at every length, those of vocabularies
among them.
"""

VOCABULARY: Mapping[str, Sequence[tuple[int, ...]]] = {"standard": [(2, 151936)]}
"""The row length of a language model's vocabulary."""
