"""Kernels: what is under test, how it declares itself, and the three ways to name one.

@kernel("softmax")                              a decorator on a plain function softmax(x, dim=-1)
--kernel my.py:f, my.py or my_package.mod:f     a function in a file or module, decorated or not
entry point group "softmax_suite.kernels"       for packages; the entry's name is the kernel's
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from suite.formats import FORMATS, Format
from suite.numerics import BEST_PRACTICE, CONTRACT, Numerics, Semantics
from suite.ops import UPSTREAM, get_op
from suite.ops.rows import RowFacts

ENTRY_POINTS = "softmax_suite.kernels"
ATTRIBUTE = "__softmax_suite_kernels__"
ADAPTERS = ("torch", "numpy", "jax")
EXTRAS = {"triton": "triton"}
"""The extra of this package that installs a requirement; "zoo" for those that are not named."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a kernel declares that it is not meant to work: [rows] masks; a row in neither may go either way.

    works: rows on which it must pass. fails: rows on which theory says that it must fail. why: the
    theory, in one clause.
    """

    works: NDArray[np.bool_]
    fails: NDArray[np.bool_]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kernel:
    """One implementation under test.

    id: how reports and commands name it. call: the function of torch tensors (of the arrays of
    `adapter`'s library).
    dtypes, devices: what it supports; None = everything the op has. requires: packages that must be
    installed.
    domain: (facts, format) -> Domain, or None. version: a hash of its source, or its package's version.
    slow: takes so long a call that it runs the smoke cases only, and by default from the profile standard on.
    outside: not one of this suite's own. declared: with @kernel, so that its op is its own word.
    backward: whether it has one; None where it does not say, so that autograd tells.
    parameters: the names it can be called with, None for every name. names: by which other name it
    takes an argument of the op.
    """

    id: str
    op: str
    call: Callable[..., Any]
    numerics: Numerics = BEST_PRACTICE
    semantics: Semantics = CONTRACT
    version: str = ""
    dtypes: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    requires: tuple[str, ...] = ()
    adapter: str = "torch"
    domain: Callable[[RowFacts, Format], Domain] | None = None
    slow: bool = False
    backward: bool | None = None
    outside: bool = False
    declared: bool = True
    parameters: frozenset[str] | None = field(default=None)
    names: Mapping[str, str] = field(default_factory=dict)

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


F = TypeVar("F", bound=Callable[..., Any])


class UnloadableError(ValueError):
    """A kernel whose import ends its process, or does not end: for every op alike."""


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
    op: str,
    *,
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
) -> Callable[[F], F]:
    """Declares that a plain function is a kernel of `op`; the function itself is returned unchanged.

    names: by which other name it takes an argument of the op, as {"scale": "softmax_scale"}.
    backward: whether it has one, by autograd; where it does not say, an output without a gradient
    is unsupported, not a failure. Raises ValueError for an unknown op, dtype or adapter, TypeError
    for an argument of another type.
    """
    get_op(op)
    for argument, value in (("dtypes", dtypes or ()), ("devices", devices or ()), ("requires", requires)):
        if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"{argument}={value!r} must be a tuple of names")
    for argument, declared_as, kind in (
        ("numerics", numerics, Numerics),
        ("semantics", semantics, Semantics),
    ):
        if not isinstance(declared_as, kind):
            raise TypeError(f"{argument}={declared_as!r} must be {kind.__name__}(...)")
    unknown = sorted(set(names or {}) - {*get_op(op).options, *get_op(op).optional})
    if unknown:
        valid = ", ".join((*get_op(op).optional, *get_op(op).options))
        raise ValueError(
            f"names has {unknown[0]!r}, which is no argument by name of {op}; expected some of {valid}"
        )
    if domain is not None and not callable(domain):
        raise TypeError(f"domain={domain!r} must be a function (facts, format) -> Domain")
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"name={name!r} must be a text")
    for dtype in dtypes or ():
        if dtype not in FORMATS:
            raise ValueError(f"dtypes has {dtype!r}; expected some of {', '.join(FORMATS)}")
    if adapter not in ADAPTERS:
        raise ValueError(f"adapter={adapter!r} is not one of {', '.join(ADAPTERS)}")

    def declare(function: F) -> F:
        declared = Kernel(
            id=name or function.__name__,
            op=op,
            call=function,
            numerics=numerics,
            semantics=semantics,
            version=_source_version(function),
            dtypes=dtypes,
            devices=devices,
            requires=requires,
            adapter=adapter,
            domain=domain,
            slow=slow,
            backward=backward,
            parameters=_parameters(function),
            names=dict(names or {}),
        )
        setattr(function, ATTRIBUTE, {**getattr(function, ATTRIBUTE, {}), op: declared})
        return function

    return declare


def own_kernels(op: str) -> dict[str, Kernel]:
    """This suite's kernels of an op, by name: every module of suite/kernels/<op>. Imports torch."""
    package = importlib.import_module(f"suite.kernels.{op}")
    found: dict[str, Kernel] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        found |= _declared_in(importlib.import_module(f"{package.__name__}.{module.name}"), op)
    return found


def kernel_names(op: str) -> list[str]:
    """The names of this suite's kernels of an op, read from their sources: imports nothing."""
    get_op(op)
    names = []
    for path in sorted((Path(__file__).parent / op).glob("[a-z]*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "kernel":
                        given = {k.arg: k.value for k in decorator.keywords}
                        names.append(ast.literal_eval(given["name"]) if "name" in given else node.name)
    return names


def is_importable(specification: str) -> bool:
    """Whether a --kernel argument names code that is there to be imported: a file, a module's
    function, an entry point.
    """
    path, _, function = specification.partition(":")
    if path.endswith(".py"):
        return Path(path).expanduser().is_file()
    return bool(function) or any(
        entry.name == specification for entry in metadata.entry_points(group=ENTRY_POINTS)
    )


def load_kernels(specification: str, op: str) -> list[Kernel]:
    """The kernels of `op` that a --kernel argument names: NAME, FILE.py, FILE.py:FUNC, pkg.mod:FUNC
    or an entry point.

    Raises ValueError, naming what is missing and what is there.
    """
    try:
        return _load(specification, op)
    except ValueError:
        raise
    except Exception as error:  # an object from outside may raise anything when it is looked at
        raise ValueError(f"kernel {specification!r} cannot be loaded: {_one_line(error)}") from error


def _load(specification: str, op: str) -> list[Kernel]:
    path, _, function = specification.partition(":")
    if path.endswith(".py"):
        return _from_module(_import_file(path), path, function, op, specification)
    if function:
        return _from_module(_import_module(path), path, function, op, specification)
    known = own_kernels(op)
    if specification in known:
        return [known[specification]]
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if entry.name == specification:
            try:
                value = entry.load()
            except (Exception, SystemExit) as error:
                raise ValueError(
                    f"entry point {specification!r} cannot be loaded: {_one_line(error)}"
                ) from error
            return [_as_kernel(value, op, specification)]
    raise ValueError(
        f"unknown kernel {specification!r} of {op}; expected one of {', '.join(known)}, or FILE.py:FUNC, or"
        " pkg.mod:FUNC"
    )


def _from_module(module: Any, where: str, function: str, op: str, specification: str) -> list[Kernel]:
    if function:
        declared = _declared_in(module, op)
        if function in declared:
            return [replace(declared[function], id=specification, outside=True)]
        if not hasattr(module, function):
            there = [n for n, v in vars(module).items() if inspect.isfunction(v) and not n.startswith("_")]
            raise ValueError(
                f"{where} has no function {function!r}; it has: {', '.join(sorted(there)) or 'no functions'}"
            )
        return [_as_kernel(getattr(module, function), op, specification)]
    declared = _declared_in(module, op)
    if not declared:
        raise ValueError(
            f"{where} declares no kernel of {op} with @kernel({op!r}); name a function: {where}:FUNC"
        )
    return [replace(k, id=f"{where}:{name}", outside=True) for name, k in declared.items()]


def _as_kernel(value: Any, op: str, specification: str) -> Kernel:
    if isinstance(value, Kernel):
        if value.op != op:
            raise ValueError(f"{specification} is declared as a kernel of {value.op}, not of {op}")
        named: Kernel = replace(value, id=specification, outside=True)
        return named
    if not callable(value):
        raise ValueError(f"{specification} is a {type(value).__name__}, not a function")
    declared = getattr(value, ATTRIBUTE, {})
    if not isinstance(declared, dict) or not all(isinstance(one, Kernel) for one in declared.values()):
        raise ValueError(f"{specification} has an attribute {ATTRIBUTE} that @kernel did not make")
    if op in declared:
        own: Kernel = declared[op]
        return replace(own, id=specification, outside=True)
    if declared:
        raise ValueError(f"{specification} is declared as a kernel of {', '.join(declared)}, not of {op}")
    _check_signature(value, op, specification)
    return Kernel(
        id=specification,
        op=op,
        call=value,
        outside=True,
        declared=False,
        version=_source_version(value),
        parameters=_parameters(value),
    )


def _check_signature(function: Callable[..., Any], op: str, specification: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a builtin without a signature: the call itself will tell
    try:
        signature.bind(*get_op(op).arguments)
    except TypeError:
        expected = ", ".join(
            (*get_op(op).arguments, *(f"{name}={value!r}" for name, value in get_op(op).options.items()))
        )
        raise ValueError(
            f"{specification}{signature} cannot be called as a kernel of {op}: expected f({expected}) or"
            " fewer options"
        ) from None


def _parameters(function: Callable[..., Any]) -> frozenset[str] | None:
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


def _declared_in(module: Any, op: str) -> dict[str, Kernel]:
    found = {}
    for value in vars(module).values():
        declared = getattr(value, ATTRIBUTE, None) if callable(value) else None
        if isinstance(declared, dict) and isinstance(declared.get(op), Kernel):
            found[declared[op].id] = declared[op]
    return found


def _import_file(path: str) -> Any:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"kernel file {path!r} does not exist (looked in {Path.cwd()})")
    name = f"_softmax_suite_kernel_{hashlib.blake2b(str(file.resolve()).encode(), digest_size=6).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"kernel file {path!r} cannot be imported: {_one_line(error)}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"kernel module {name!r} cannot be imported: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
    try:
        text = "".join(str(error).splitlines()[:1])
    except Exception:
        text = "its message cannot be shown"
    return f"{type(error).__name__}: {text}{line}"


def _source_version(function: Callable[..., Any]) -> str:
    """A hash of the file that holds the function; empty where there is none."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except (TypeError, ValueError):  # no source; a loop of wrappers
        file = None
    if file is None or not Path(file).is_file():
        return ""
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=4).hexdigest()
