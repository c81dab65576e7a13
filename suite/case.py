"""A case: op, family, shape, options, laws and seed. Its id alone rebuilds its inputs; its
docstring states its law.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from suite import inputs
from suite.formats import DTYPES, Array, Format
from suite.inputs import attention, attention_tensors, states, upstream
from suite.inputs.draws import Draw
from suite.inputs.layouts import LAYOUTS
from suite.inputs.targets import TARGETS, indices, probabilities
from suite.inputs.upstream import UPSTREAMS
from suite.ops import AnyOp, get_op, parse_option

PROFILES = ("smoke", "quick", "standard", "full")
DIRECTIONS = ("forward", "backward")
SEEDS = {"smoke": 1, "quick": 1, "standard": 1, "full": 20}
"""How many seeds each profile runs; cases of a smaller profile are part of every larger one."""

SIZES = ("keys", "key_heads", "value_size")
"""The sizes of attention that its queries do not tell; the queries' own by default."""

LOWEST = (
    "unjudged by contract: a row masked by the format's lowest number has another result in exact arithmetic"
    " than in any kernel"
)

CASE_ATTRIBUTE = "__softmax_suite_case__"


class CaseError(ValueError):
    """A @case that makes no sense: the text names the function, what is wrong and what is valid."""


_ID = re.compile(
    r"(?P<op>\w+)/(?P<family>\w+)/(?P<shape>\d+(x\d+)*)(?P<settings>(/\w+=[\w.,+-]+)*)/s(?P<seed>\d+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input for one op.

    family: input family. shape: of the first tensor. options: of the op, as given. layout: of the
    op's tensors in memory.
    target: what cross_entropy's targets are, "indices" or "probabilities". tensors: of attention,
    the sizes that the queries do not tell (keys, key_heads, value_size) and the kinds of its
    further tensors, by name. upstream: the kind of gradient of the output that is given, of a case
    of the backward. laws: relations to check besides accuracy.
    profile: the smallest profile that runs it. why: the law, one sentence. source: where it comes from.
    """

    op: str
    family: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "contiguous"
    target: str = "indices"
    tensors: Mapping[str, Any] = field(default_factory=dict)
    upstream: str = ""
    laws: tuple[str, ...] = ()
    seed: int = 0
    profile: str = "smoke"
    why: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for name, valid in (("layout", LAYOUTS), ("target", TARGETS), ("upstream", ("", "file", *UPSTREAMS))):
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is not one of {', '.join(filter(None, valid))}"
                )
        if self.target != "indices" and self.op != "cross_entropy":
            raise ValueError(f"target={self.target!r} is cross_entropy's; {self.op} has none")
        if self.op == "attention":
            if self.family != "file":
                attention.check_sizes(self.family, self.sizes())
            self._kinds()
        elif self.tensors:
            raise ValueError(f"tensors={dict(self.tensors)!r} is attention's; {self.op} has none")

    @property
    def id(self) -> str:
        settings = dict(self.options)
        settings |= {"layout": self.layout} if self.layout != "contiguous" else {}
        settings |= {"target": self.target} if self.target != "indices" else {}
        settings |= self.tensors
        settings |= {"upstream": self.upstream} if self.upstream else {}
        shown = "".join(f"/{name}={setting_text(value)}" for name, value in settings.items())
        return f"{self.op}/{self.family}/{'x'.join(map(str, self.shape))}{shown}/s{self.seed}"

    @classmethod
    def from_id(cls, id: str, *, laws: tuple[str, ...] = ()) -> Case:
        """The case of an id. Raises ValueError where the id is malformed or names an unknown op or family."""
        match = _ID.fullmatch(id)
        if match is None:
            raise ValueError(f"case id {id!r} is not op/family/ROWSxN[/OPTION=VALUE...]/sSEED")
        op = get_op(match["op"])
        fixed = fixed_shape(op.name, match["family"])
        shape = tuple(int(n) for n in match["shape"].split("x"))
        if fixed not in (None, shape):
            raise ValueError(
                f"{match['family']} has the shape {'x'.join(map(str, fixed or ()))}, not {match['shape']}"
            )
        settings = [setting.split("=") for setting in match["settings"].split("/")[1:]]
        options = dict(settings)
        if len(options) < len(settings):
            raise ValueError(f"case id {id!r} has a setting twice")
        layout, target = options.pop("layout", "contiguous"), options.pop("target", "indices")
        upstream = options.pop("upstream", "")
        if "upstream=" in id and not upstream:
            raise ValueError(
                f"case id {id!r} has an upstream without a name; expected one of {', '.join(UPSTREAMS)}"
            )
        tensors = (
            {name: options.pop(name) for name in list(options) if name in (*SIZES, *op.optional)}
            if op.optional
            else {}
        )
        case = cls(
            op=op.name,
            family=match["family"],
            shape=shape,
            options={name: _option(op, name, text) for name, text in options.items()},
            layout=layout,
            target=target,
            tensors={name: _size(name, text) if name in SIZES else text for name, text in tensors.items()},
            upstream=upstream,
            laws=laws,
            seed=int(match["seed"]),
        )
        case.resolved_options()
        return case

    @property
    def direction(self) -> str:
        return "backward" if self.upstream else "forward"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs, by argument."""
        shapes = self._forward_shapes()
        return shapes | (self._upstream_shapes(shapes) if self.upstream else {})

    def _upstream_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Those of the gradients of the outputs, by name."""
        op = get_op(self.op)
        options = self.resolved_options()
        parts = op.outputs(options)
        return {
            name: part.output_shape(shapes, options) for name, part in zip(op.upstreams, parts, strict=False)
        }

    def _forward_shapes(self) -> dict[str, tuple[int, ...]]:
        op = get_op(self.op)
        if self.op == "attention":
            return _shapes(self.sizes(), self._kinds())
        if self.op == "merge_states":
            return {name: self.shape if name.startswith("o") else self.shape[:-1] for name in op.arguments}
        shapes = {op.arguments[0]: self.shape}
        if "target" in op.arguments:
            axis = op.axis(self.options, self.shape)
            classless = self.shape[:axis] + self.shape[axis + 1 :]
            shapes["target"] = self.shape if self.target == "probabilities" else classless
        return shapes

    @property
    def unjudged(self) -> str:
        """Why no kernel's numbers can be judged on this case; empty where they can."""
        return LOWEST if self.op == "attention" and self.tensors.get("mask") == "lowest" else ""

    def resolved_options(self) -> dict[str, Any]:
        """The options with defaults. Raises ValueError for one that has no meaning for this shape."""
        shared = (
            {"enable_gqa": True}
            if "key_heads" in self.tensors and self.tensors["key_heads"] != self.shape[1]
            else {}
        )
        return get_op(self.op).resolve_options({**shared, **self.options}, self._forward_shapes())

    def sizes(self) -> attention.Sizes:
        """The sizes of attention's tensors. Raises ValueError for a name or a number that is none."""
        if len(self.shape) != 4:
            raise ValueError(
                f"attention has q of four dims, batch, heads, length, head size; got {list(self.shape)}"
            )
        batch, heads, length, head_size = self.shape
        return attention.Sizes(
            batch=batch,
            heads=heads,
            length=length,
            head_size=head_size,
            key_heads=self.tensors.get("key_heads", heads),
            keys=self.tensors.get("keys", length),
            value_size=self.tensors.get("value_size", head_size),
        )

    def _kinds(self) -> dict[str, str]:
        """The kinds of attention's further tensors, by name. Raises ValueError for one that there is not."""
        kinds = {name: kind for name, kind in self.tensors.items() if name not in SIZES}
        for name, kind in kinds.items():
            attention_tensors.get_kind(name, kind)
        return kinds

    def inputs(self, format: Format) -> dict[str, Array]:
        """The inputs by argument, the same bits on every machine: float64 logits of `shape`, every
        finite value a number of `format`, and what else the op takes; of a case of the backward,
        the gradients of its outputs.
        """
        found = self._forward_inputs(format)
        op, options = get_op(self.op), self.resolved_options()
        shapes = self._upstream_shapes(self._forward_shapes()) if self.upstream else {}
        for part, (name, shape) in zip(op.outputs(options), shapes.items(), strict=False):
            draw = Draw(f"{name}|{self.upstream}|{self.family}|{shape}|{self.seed}")
            along = op.axis(options, shape) if op.keeps_length else len(shape) - 1
            found[name] = upstream.build(self.upstream, shape, along, part.output_format(format), draw)
        return found

    def _forward_inputs(self, format: Format) -> dict[str, Array]:
        op, options = get_op(self.op), self.resolved_options()
        if self.op == "attention":
            sizes, kinds = self.sizes(), self._kinds()
            further = {
                name: attention_tensors.tensor(name, kind, sizes, format, self.seed)
                for name, kind in kinds.items()
            }
            return attention.build(self.family, sizes, format, self.seed) | further
        if self.op == "merge_states":
            return states.build(self.family, self.shape, format, self.seed)
        axis = op.axis(options, self.shape)
        others, n = self.shape[:axis] + self.shape[axis + 1 :], self.shape[axis]
        rows = inputs.build(self.family, int(np.prod(others)), n, format, self.seed)
        if self.layout == "expanded":  # its slices along the first dim are one, so their rows must be equal
            rows = (
                np.tile(rows[: len(rows) // others[0]], (others[0], 1))
                if axis != 0
                else np.tile(rows[:, :1], (1, n))
            )
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


def fixed_shape(op: str, family: str) -> tuple[int, ...] | None:
    """The shape of the op's family of captured data, None for one that has any. Raises ValueError
    with the valid names.
    """
    if op == "attention":
        sizes = attention.get_family(family).fixed
        return None if sizes is None else sizes.q
    if op == "merge_states":
        states.get_family(family)
        return None
    return inputs.get_family(family).fixed_shape


def _shapes(sizes: attention.Sizes, kinds: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The shapes of attention's tensors; of a mask, the one that it broadcasts to."""
    further = {
        "mask": (sizes.batch, sizes.heads, sizes.length, sizes.keys),
        "alibi_slopes": (sizes.heads,),
        "sink": (sizes.heads,),
        "kv_lengths": (sizes.batch,),
    }
    return {"q": sizes.q, "k": sizes.k, "v": sizes.v} | {name: further[name] for name in kinds}


def setting_text(value: Any) -> str:
    """A setting as it stands in a case id."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _size(name: str, text: str) -> int:
    if not text.isdecimal() or str(int(text)) != text:
        raise ValueError(f"{name}={text!r} must be a whole number")
    return int(text)


def _unrows(rows: Array, others: tuple[int, ...], axis: int) -> Array:
    return np.ascontiguousarray(np.moveaxis(rows.reshape(*others, rows.shape[1]), -1, axis))


def _option(op: AnyOp, name: str, text: str) -> Any:
    """The value of an option in a case id. Raises ValueError for an unknown option or a value that
    cannot be one.
    """
    if name not in op.options:
        settings = (*op.options, "layout", *((*SIZES, *op.optional) if op.optional else ("target",)))
        raise ValueError(f"{op.name} has no option {name!r}; valid options: {', '.join(settings)}")
    value = parse_option(op, name, text)
    if setting_text(value) != text:
        raise ValueError(
            f"{name}={text} must be written {setting_text(value)} in a case id: an id names one case, and a"
            " case has one id"
        )
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
    upstream: tuple[str, ...]
    tensors: tuple[Mapping[str, Any], ...]
    dtypes: tuple[str, ...]
    laws: tuple[str, ...]
    why: str
    source: str

    def check(self) -> None:
        """Raises ValueError, with the valid choices, for anything in it that is unknown or means nothing."""
        from suite.laws import get_law

        for law in self.laws:
            get_law(law)
        for what, given, valid in (("shapes", self.shapes, PROFILES), ("dtypes", self.dtypes, DTYPES)):
            if unknown := [name for name in given if name not in valid]:
                raise ValueError(f"{what} has {unknown[0]!r}; expected some of {', '.join(valid)}")
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
    return (dict(given),) if isinstance(given, Mapping) else tuple(dict(one) for one in given)


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
