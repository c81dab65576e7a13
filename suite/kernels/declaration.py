"""What a kernel declares: @kernel on a plain function, and the Kernel that it makes."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from suite.formats import FORMATS, Format
from suite.numerics import BEST_PRACTICE, CONTRACT, Numerics, Semantics
from suite.ops import UPSTREAM, get_op
from suite.ops.rows import RowFacts

ATTRIBUTE = "__softmax_suite_kernels__"
"""The attribute of a function that holds what was declared of it."""

ADAPTERS = ("torch", "numpy", "jax")
EXTRAS = {"triton": "triton"}
"""The extra of this package that installs a requirement; "zoo" for those that are not named."""

INTERPRETER = "_interpreter"
"""What the name of a Triton kernel ends with where it is interpreted."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a kernel declares that it is not meant to work. A row in neither mask may go either way."""

    works: NDArray[np.bool_]
    """[rows]: on these rows the kernel must pass."""

    fails: NDArray[np.bool_]
    """[rows]: on these rows theory says that the kernel must fail."""

    why: str
    """The theory, in one clause."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kernel:
    """One implementation under test, of one op."""

    id: str
    """The name in reports and commands."""

    op: str

    call: Callable[..., Any]
    """The function of torch tensors, or of the arrays of `adapter`'s library."""

    numerics: Numerics = BEST_PRACTICE
    semantics: Semantics = CONTRACT

    version: str = ""
    """A hash of the source file, or the version of the package."""

    dtypes: tuple[str, ...] | None = None
    """What it supports; None: every format that the op has."""

    devices: tuple[str, ...] | None = None
    """What it supports; None: every device."""

    requires: tuple[str, ...] = ()
    """Packages that must be installed."""

    adapter: str = "torch"

    domain: Callable[[RowFacts, Format], Domain] | None = None

    slow: bool = False
    """A call takes so long that the kernel runs the smoke cases only, by default from standard on."""

    backward: bool | None = None
    """Whether it has a backward pass; None: autograd tells."""

    outside: bool = False
    """Not one of this suite's own."""

    declared: bool = True
    """Declared with @kernel, so that its op is its own word."""

    parameters: frozenset[str] | None = field(default=None)
    """The names that a caller can pass by keyword; None: every name."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Argument of the op -> the kernel's own name for it."""

    def supports(
        self, options: Mapping[str, Any], format: Format, device: str, *, further: Iterable[str] = ()
    ) -> str | None:
        """None, or the reason why this call is unsupported; decided before any input exists.
        further: the names of the optional tensors that it gets.
        """
        if UPSTREAM in further and self.backward is False:
            return "declares that it has no backward"
        if UPSTREAM in further and self.adapter != "torch":
            return f"a kernel of {self.adapter} has no backward here: gradients are those of torch's autograd"
        missing = [name for name in self.requires if not _is_installed(name)]
        if missing:
            return (
                f"{missing[0]} is not installed: pip install 'softmax-suite[{EXTRAS.get(missing[0], 'zoo')}]'"
            )
        if self.dtypes is not None and format.name not in self.dtypes:
            return f"declares dtypes {', '.join(self.dtypes)}"
        if self.devices is not None and device.split(":")[0] not in self.devices:
            return f"declares devices {', '.join(self.devices)}"
        if self.adapter == "numpy" and format.name == "bfloat16":
            return "numpy has no bfloat16"
        if self.adapter == "numpy" and device != "cpu":
            return "numpy runs on the CPU only"
        for name in further:
            if name in get_op(self.op).optional and not self._takes(name):
                return f"takes no argument {name}"
        defaults = get_op(self.op).options
        for name, value in options.items():
            if value != defaults[name] and not self._takes(name):
                if name == "causal" and self._takes("is_causal"):
                    if value == "top_left":
                        continue
                    return f"takes is_causal, which is top_left, not causal={value}"
                return f"takes no argument {name}"
        return None

    def _takes(self, name: str) -> bool:
        return self.parameters is None or self._name(name) in self.parameters

    def _name(self, name: str) -> str:
        """By which name the function takes an argument of the op; attn_mask, torch's for mask,
        needs no declaration.
        """
        parameters = self.parameters or frozenset()
        if name == "mask" and "mask" not in parameters and "attn_mask" in parameters:
            return "attn_mask"
        return self.names.get(name, name)

    def __call__(self, tensors: Mapping[str, Any], *, options: Mapping[str, Any]) -> Any:
        """Calls the function as f(*tensors, option=value, ...), optional tensors by name, less
        options that it does not take.

        One that takes every name gets dim, and what else differs from the op's default.
        """
        op = get_op(self.op)
        given = {name: value for name, value in options.items() if self._takes(name)}
        if self.parameters is None:
            given = {
                name: value for name, value in given.items() if name == "dim" or value != op.options[name]
            }
        elif "causal" in options and not self._takes("causal") and "is_causal" in self.parameters:
            given["is_causal"] = options["causal"] is not None
        given |= {name: tensor for name, tensor in tensors.items() if name in op.optional}
        return self.call(
            *(tensors[name] for name in op.arguments),
            **{self._name(name): value for name, value in given.items()},
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # the package around it is missing; no name at all
        return False


def describe(kernel: Kernel) -> dict[str, Any]:
    """What a kernel declares, JSON-ready, for a process that does not load it; of its domain,
    whether there is one.
    """
    described: dict[str, Any] = {name: getattr(kernel, name) for name in _DESCRIBED}
    return described | {
        "numerics": asdict(kernel.numerics),
        "semantics": asdict(kernel.semantics),
        "domain": kernel.domain is not None,
        "parameters": None if kernel.parameters is None else sorted(kernel.parameters),
        "names": dict(kernel.names),
    }


def from_description(
    description: Mapping[str, Any], *, call: Callable[..., Any], domain: Callable[[RowFacts, Format], Domain]
) -> Kernel:
    """The kernel of a description, outside as it must be. call: what stands in for its function;
    domain: for its domain.
    """
    parameters = description["parameters"]
    plain: dict[str, Any] = {name: description[name] for name in _DESCRIBED}
    for name in ("dtypes", "devices", "requires"):
        plain[name] = None if plain[name] is None else tuple(plain[name])
    return Kernel(
        **plain,
        numerics=Numerics(**description["numerics"]),
        semantics=Semantics(**description["semantics"]),
        domain=domain if description["domain"] else None,
        parameters=None if parameters is None else frozenset(parameters),
        names=description["names"],
        call=call,
        outside=True,
    )


_DESCRIBED = (
    "id",
    "op",
    "version",
    "dtypes",
    "devices",
    "requires",
    "adapter",
    "slow",
    "backward",
    "declared",
)


def kernel(
    *ops: str,
    name: str | None = None,
    numerics: Numerics = BEST_PRACTICE,
    semantics: Semantics = CONTRACT,
    dtypes: tuple[str, ...] | None = None,
    devices: tuple[str, ...] | None = None,
    requires: tuple[str, ...] = (),
    adapter: str = "torch",
    domain: Callable[[RowFacts, Format], Domain] | None = None,
    slow: bool = False,
    backward: bool | None = None,
    names: Mapping[str, str] | None = None,
    constants: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Declares that a plain function is a kernel of each of `ops`; returns the function unchanged.

    A function of several ops has a parameter `op`, which gets the name of the op.
    name: the kernel's id; the function's name by default.
    names: the function's own names of arguments, as {"scale": "softmax_scale"}.
    backward: whether it has a backward pass. Where it does not say, an output without a gradient
    is unsupported, not a failure.
    constants: arguments that this declaration sets, so that one function can be several kernels.
    The other arguments are fields of `Kernel`.

    Raises ValueError for an unknown op, dtype, adapter or argument, TypeError for an argument of
    another type.
    """
    fields: dict[str, Any] = {
        "numerics": numerics,
        "semantics": semantics,
        "dtypes": dtypes,
        "devices": devices,
        "requires": requires,
        "adapter": adapter,
        "domain": domain,
        "slow": slow,
        "backward": backward,
        "names": dict(names or {}),
    }
    if not ops or not all(isinstance(op, str) for op in ops):
        raise TypeError('@kernel takes the names of ops: @kernel("softmax")')
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"name={name!r} must be a text")
    for op in ops:
        _check_declaration(op, fields)

    def declare(function: F) -> F:
        made = [_declared(function, op, name, constants or {}, fields) for op in ops]
        setattr(function, ATTRIBUTE, {**declarations(function), **{(one.op, one.id): one for one in made}})
        return function

    return declare


def triton_kernel(*ops: str, **declared: Any) -> Callable[[F], F]:
    """Declares a function that launches Triton as two kernels: NAME, compiled on CUDA, and
    NAME_interpreter, interpreted by numpy on the CPU. They differ in device, speed and arithmetic.

    declared: further arguments of `kernel`.
    """

    def declare(function: F) -> F:
        for name, device in ((function.__name__, "cuda"), (f"{function.__name__}{INTERPRETER}", "cpu")):
            given = {"devices": (device,), "requires": ("triton",), "slow": device == "cpu", **declared}
            kernel(*ops, name=name, **given)(function)
        return function

    return declare


def declarations(value: Any) -> dict[tuple[str, str], Kernel]:
    """(op, id) -> the kernel, for all that @kernel declared of a function."""
    found: dict[tuple[str, str], Kernel] = getattr(value, ATTRIBUTE, {})
    return found


def _declared(
    function: Callable[..., Any], op: str, name: str | None, constants: Mapping[str, Any], fields: Any
) -> Kernel:
    parameters = parameters_of(function)
    if parameters is not None:
        for constant in constants:
            if constant not in parameters:
                raise ValueError(f"constants has {constant!r}, which {function.__name__} does not take")
        if "op" in parameters:
            constants = {**constants, "op": op}
        parameters -= constants.keys()
    return Kernel(
        id=name or function.__name__,
        op=op,
        call=functools.partial(function, **constants) if constants else function,
        version=source_version(function),
        parameters=parameters,
        **fields,
    )


def _check_declaration(op: str, fields: Mapping[str, Any]) -> None:
    known = (*get_op(op).optional, *get_op(op).options)
    valid = ", ".join(known)
    for argument in ("dtypes", "devices", "requires"):
        value = fields[argument] or ()
        if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"{argument}={value!r} must be a tuple of names")
    for argument, kind in (("numerics", Numerics), ("semantics", Semantics)):
        if not isinstance(fields[argument], kind):
            raise TypeError(f"{argument}={fields[argument]!r} must be {kind.__name__}(...)")
    for unknown in sorted(fields["names"].keys() - set(known)):
        raise ValueError(
            f"names has {unknown!r}, which is no argument by name of {op}; expected some of {valid}"
        )
    if fields["domain"] is not None and not callable(fields["domain"]):
        raise TypeError(f"domain={fields['domain']!r} must be a function (facts, format) -> Domain")
    for dtype in fields["dtypes"] or ():
        if dtype not in FORMATS:
            raise ValueError(f"dtypes has {dtype!r}; expected some of {', '.join(FORMATS)}")
    if fields["adapter"] not in ADAPTERS:
        raise ValueError(f"adapter={fields['adapter']!r} is not one of {', '.join(ADAPTERS)}")


def parameters_of(function: Callable[..., Any]) -> frozenset[str] | None:
    """The names a function can be called with by keyword, None for every name; dim alone for a
    builtin, which tells nothing.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return frozenset({"dim"})
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def source_version(function: Callable[..., Any]) -> str:
    """A hash of the file that holds the function; empty where there is none."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except (TypeError, ValueError):  # no source; a loop of wrappers
        file = None
    if file is None or not Path(file).is_file():
        return ""
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=4).hexdigest()
