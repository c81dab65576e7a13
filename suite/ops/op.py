"""What an op is: the class that every op's object has."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format
from suite.inputs.layouts import LAYOUT
from suite.inputs.upstream import UPSTREAM as UPSTREAM_KIND
from suite.numerics import Numerics, Semantics
from suite.ops.arithmetic import Arithmetic
from suite.ops.inputs import OpInputs
from suite.ops.places import column_places
from suite.ops.rows import Allowed, RowFacts
from suite.settings import Part, Setting
from suite.settings import Shapes as Shapes

UPSTREAM = "upstream"
"""The input of a backward op that holds the gradient of its forward op's output."""

SECOND = "second"
"""The input of a double backward: the upstream of the gradient that the first backward gives."""

Mask = NDArray[np.bool_]
Describe = Callable[[Mask, Array, Array], str]
"""Where a kernel goes wrong, by which entries of the rows fail, the rows, and the exact ones."""

Options = Mapping[str, Any]


class Problem(Protocol):
    """The inputs of one call in canonical form, as rows. Two calls with equal problems share a
    reference, whatever their shapes and options were.
    """

    @property
    def x(self) -> Array:
        """[rows, n]: what is exponentiated."""

    @property
    def ordinary(self) -> Mask:
        """[rows]: whether the row has a value to compute, rather than a special one."""

    def take(self, rows: NDArray[np.intp]) -> Self:
        """The problem of these rows alone."""

    def content(self) -> bytes:
        """Bytes that are equal exactly where the problem is."""

    def describe(self, row: int, column: int | None) -> str:
        """What is behind an entry of the output, for a message."""


class Facts(Protocol):
    """The ingredients of an op's bound, computed once for a problem."""

    @property
    def x(self) -> Array:
        """[rows, n]: the problem's, zeros in rows without a value to compute."""


ProblemT = TypeVar("ProblemT", bound=Problem)
FactsT = TypeVar("FactsT", bound=Facts)


class Values(NamedTuple):
    """Exact values as rows: hi + lo within radius, where `special` is Special.FINITE."""

    hi: Array
    lo: Array
    radius: Array
    special: NDArray[np.int8]


class Compared(NamedTuple):
    """An output as rows, beside the exact values: what statistics are made of."""

    y: Array
    finite: Mask
    """Where both the output and the exact value are finite."""
    lost: Mask
    """Where a finite output is 0 although the exact value rounds to something else."""
    certain: Array
    """The smallest magnitude that the exact value may have."""
    format: Format


class Counts(TypedDict, total=False):
    """Counts of an output that are recorded and not judged: fields of a Judgement."""

    inversions: int
    """Neighbours in the order of x whose outputs are in the wrong order."""
    saturated: int
    """Entries of exactly 1 where p < 1."""
    flushed: int
    """Entries of exactly 0 where the exact result rounds to something else."""
    false_zeros: int
    """Of a gradient, entries of exactly 0 where the exact one is a normal number of the format."""
    dead_rows: int
    """Of a gradient, rows of nothing but 0 where the exact ones round to others."""


class Result(Enum):
    """What the entries of an op's output are. Chapters of the report ask for it."""

    PROBABILITY = "probability"
    LOG_PROBABILITY = "log probability"
    LOG_SUM = "log-sum-exp"
    LOSS = "loss"
    AVERAGE = "average of values"
    GRADIENT = "gradient"


@dataclass(frozen=True, slots=True)
class TorchKernel:
    """torch's own kernel for an op."""

    function: str
    """Where it is: "torch.softmax"."""
    names: tuple[str, ...]
    """This suite's kernels that call it, one for each backend; the one that torch takes first."""
    differentiated: str = ""
    """The one whose gradients are measured where nobody names a kernel; empty for none."""
    parameters: frozenset[str] | None = None
    """The names it can be called with, None for those of the op."""

    def load(self) -> Callable[..., Any]:
        """The function. Imports torch."""
        module, _, name = self.function.rpartition(".")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function


class Op(ABC, Generic[ProblemT, FactsT]):
    """An operation with a definition.

    A problem holds the inputs of one call in canonical form, as rows (suite.ops.rows.Rows or a
    class of its own). Facts are what the bound is made of. Both are computed once and shared by
    every kernel that is judged on these inputs.
    """

    name: str
    summary: str
    """The formula, in one line."""
    arguments: tuple[str, ...]
    """The names of its input tensors, the logits first."""
    settings: tuple[Setting, ...] = ()
    """What changes the meaning of a call, and the sizes that the first tensor does not tell."""
    inputs: OpInputs
    """Where the inputs of its cases come from."""
    optional: tuple[str, ...] = ()
    """The names of the settings that are tensors, which are given by name."""
    options: Options = MappingProxyType({})
    """The names and defaults of the settings that are options."""
    upstreams: tuple[str, ...] = (UPSTREAM,)
    """The names of the gradients of its outputs, in order."""
    differentiable: tuple[str, ...] = ()
    """The inputs that have a gradient."""
    result: Result
    """What the entries of its output are."""
    of_rows: bool = False
    """Whether it works on rows of logits."""
    keeps_length: bool = False
    """Whether the output has the logits' shape."""
    lower_limit: float = float("-inf")
    """No exact result is below it."""
    options_by_row: Options = MappingProxyType({})
    """Options with which each row has a result of its own."""
    dims: tuple[str, ...] = ("ROWS", "LENGTH")
    """The names of the dims of the first tensor, of the plainest case."""
    plain_family: str = "normal"
    """The input family whose numbers are easy."""
    operations_by_entry: tuple[int, int] = (0, 0)
    """Floating-point operations of the definition for an entry of the first tensor, forward and
    backward: a comparison, subtraction, exponential, addition and division (or subtraction) each
    count one.
    """
    limited_by: str = "bytes"
    """What a call costs on fast hardware: "bytes" moved, or "operations"."""
    torch: TorchKernel | None = None
    """torch's own kernel for it."""
    measured: tuple[str, ...] = ()
    """The chapters of measurements, beside cases, that know it (suite/studies)."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "settings" in cls.__dict__:
            cls.options = MappingProxyType({s.name: s.default for s in cls.settings if s.part is Part.OPTION})
            cls.optional = tuple(s.name for s in cls.settings if s.part is Part.TENSOR)

    @property
    def case_settings(self) -> tuple[Setting, ...]:
        """Its settings and those that cases of all ops have."""
        return (*self.settings, LAYOUT, UPSTREAM_KIND)

    def setting(self, name: str) -> Setting:
        """The setting of a case of that name. Raises ValueError with the valid names."""
        for setting in self.case_settings:
            if setting.name == name:
                return setting
        valid = ", ".join(setting.name for setting in self.case_settings)
        raise ValueError(f"{self.name} has no setting {name!r}; valid settings: {valid}")

    def of(self, tensors: Mapping[str, Any]) -> AnyOp:
        """This op; or its backward, where the gradient of an output is among the tensors of a call;
        or its double backward, where the gradient of that is. Raises NotImplementedError where an
        op has none.
        """
        if UPSTREAM not in tensors:
            alone = [name for name in (*self.upstreams, SECOND) if name in tensors]
            if alone:
                raise ValueError(f"{alone[0]} is given without {UPSTREAM}, the gradient of the first output")
            return self
        module_name = f"suite.ops.{self.name}.backward"
        if importlib.util.find_spec(module_name) is None:
            raise NotImplementedError(f"{self.name} has no backward here")
        module = importlib.import_module(module_name)
        backward: AnyOp = module.backward(self.wanted(tensors))
        if SECOND not in tensors:
            return backward
        doubled: AnyOp | None = getattr(module, "DOUBLE_BACKWARD", None)
        if doubled is None:
            raise NotImplementedError(f"{backward.name} has no double backward here")
        return doubled

    def wanted(self, tensors: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the tensors whose gradients its backward gives, in order: the floating ones
        that have one.
        """
        return tuple(
            name for name in self.differentiable if name in tensors and "bool" not in str(tensors[name].dtype)
        )

    def check_shapes(self, shapes: Shapes) -> None:
        """Raises ValueError for arguments of shapes that do not belong together."""

    def check_options(self, options: Options, shapes: Shapes) -> dict[str, Any]:
        """The options in canonical form. Raises ValueError for a value that has no meaning for
        inputs of these shapes, and for shapes that the op cannot have.
        """
        self.check_shapes(shapes)
        resolved = dict(options)
        for setting in self.settings:
            if setting.name in options:
                resolved[setting.name] = setting.check(options[setting.name], shapes)
            elif setting.part is Part.TENSOR and setting.name in shapes:
                setting.check_shape(shapes[setting.name], shapes)
        return resolved

    @abstractmethod
    def axis(self, options: Options, shape: tuple[int, ...]) -> int:
        """The dim of logits of this shape that the op works along, counted from 0."""

    @abstractmethod
    def problem(self, inputs: Mapping[str, Array], options: Options) -> ProblemT:
        """The canonical form of these inputs."""

    @abstractmethod
    def special(self, problem: ProblemT, semantics: Semantics) -> NDArray[np.int8]:
        """[rows, k]: which kind of value the definition has at each position (suite.ops.special)."""

    @abstractmethod
    def facts(self, problem: ProblemT) -> FactsT:
        """The ingredients of the bound; rows without a finite largest logit count as zeros."""

    def audited(self, problem: ProblemT, radius: Array) -> NDArray[np.intp]:
        """The rows whose float64 reference is compared with a certified one, as a check of the
        oracle itself; most ops need none, as their bounds are checked on all kinds of rows by
        tests.
        """
        return np.zeros(0, dtype=np.intp)

    @abstractmethod
    def scores(self, facts: FactsT) -> RowFacts:
        """The facts of what is exponentiated, by which a kernel may declare its domain."""

    @abstractmethod
    def define(self, arithmetic: Arithmetic, problem: ProblemT) -> Any:
        """The values [rows, k] of rows with a finite largest logit, in the numbers of `arithmetic`."""

    @abstractmethod
    def bound(self, facts: FactsT, numerics: Numerics, target: Format) -> Allowed:
        """What is allowed, in the shape of the rows that define() gives, before rounding to `target`."""

    def vanished(self, facts: FactsT) -> Mask | None:
        """[rows, k]: where the exact value is below every positive float64; None for nowhere."""
        return None

    def reduce(self, problem: ProblemT, rows: Values) -> Values:
        """The output's values from those of the rows; most ops have one for one."""
        return rows

    def reduced_bound(self, facts: FactsT, numerics: Numerics, target: Format) -> Allowed:
        """What is allowed, in the shape of what reduce() gives."""
        return self.bound(facts, numerics, target)

    @abstractmethod
    def output_shape(self, shapes: Shapes, options: Options) -> tuple[int, ...]:
        """The shape of the output for inputs of these shapes."""

    @abstractmethod
    def output_rows(self, output: NDArray[Any], problem: ProblemT, options: Options) -> NDArray[Any]:
        """An output of the right shape as the rows of the reference."""

    @abstractmethod
    def output_index(
        self, row: int, column: int, problem: ProblemT, shapes: Shapes, options: Options
    ) -> tuple[int, ...]:
        """The index in the output tensor of an entry of its rows."""

    def places(self, failed: Mask, problem: ProblemT) -> Mapping[str, str]:
        """Where the failing entries [rows, k] sit, in words, by tile size or kind of place."""
        return column_places(failed)

    def marking(self, inputs: Mapping[str, Array]) -> tuple[Mapping[str, Array], Describe] | None:
        """Inputs for one more call of a kernel that failed, and what its output rows then say about
        where; or None.
        """
        return None

    def telling(self, problem: ProblemT, finite: Mask) -> Mask:
        """[rows, k]: which of the finite entries say something of a kernel."""
        return finite

    def statistics(self, facts: FactsT, compared: Compared) -> Counts:
        """What is counted of an output and not judged."""
        return {}

    def row_note(self, row: Array) -> str:
        """What a message says of the row of an output that is most wrong; empty for nothing."""
        return ""

    def operations(self, shapes: Shapes, options: Options, *, backward: bool) -> int:
        """Floating-point operations of the definition, with those of its backward."""
        once, back = self.operations_by_entry
        return int(np.prod(shapes[self.arguments[0]])) * (once + (back if backward else 0))

    def outputs(self, options: Options) -> tuple[AnyOp, ...]:
        """The ops of the outputs, in order: most have one, their own."""
        return (self,)

    def input_format(self, name: str, format: Format) -> Format:
        """The format of this floating input where the first one has `format`."""
        return format

    def output_format(self, format: Format) -> Format:
        """The format of the output for inputs of this format."""
        return format

    def beyond_rows(self, output: NDArray[Any], problem: ProblemT, options: Options) -> Mask | None:
        """Where the reference has a sample of the rows only: which entries of all the output cannot
        be right whatever the reference would be; in the output's shape.
        """
        return None

    def resolve_options(self, options: Options | None, shapes: Shapes) -> dict[str, Any]:
        """The options with defaults filled in. Raises ValueError for an unknown name or a value
        without a meaning.
        """
        given = dict(options or {})
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise ValueError(
                f"{self.name} has no option {unknown[0]!r}; valid options: {', '.join(self.options)}"
            )
        return self.check_options({**self.options, **given}, shapes)


AnyOp: TypeAlias = Op[Any, Any]
"""An op of whatever problem and facts: what get_op() gives."""
