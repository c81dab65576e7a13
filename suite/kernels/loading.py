"""The three ways to name a kernel, and this suite's own kernels.

--kernel my.py:f, my.py or my_package.mod:f     a function in a file or module, decorated or not
--kernel shifted                                one of this suite's own
entry point group "softmax_suite.kernels"       for packages; the entry's name is the kernel's
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from suite.kernels.declaration import (
    ATTRIBUTE,
    INTERPRETER,
    Kernel,
    declarations,
    parameters_of,
    source_version,
)
from suite.ops import get_op

ENTRY_POINTS = "softmax_suite.kernels"


class UnloadableError(ValueError):
    """A kernel whose import ends its process, or does not end: for every op alike."""


def own_kernels(op: str) -> dict[str, Kernel]:
    """This suite's kernels of an op, by name. Imports torch and the modules that declare them, no others."""
    found: dict[str, Kernel] = {}
    for module in dict.fromkeys(one.module for one in _own() if one.op == op):
        found |= _declared_in(importlib.import_module(module), op)
    return found


def kernel_names(op: str) -> list[str]:
    """The names of this suite's kernels of an op, read from their sources: imports nothing."""
    get_op(op)
    return [one.name for one in _own() if one.op == op]


class _Own(NamedTuple):
    """One kernel that a decorator in a module of this suite declares."""

    op: str
    name: str
    module: str


@functools.cache
def _own() -> tuple[_Own, ...]:
    """What the decorators in the folders beside this file declare, in the order of their files' names."""
    paths = sorted(Path(__file__).parent.glob("[a-z]*/[a-z]*.py"), key=lambda path: (path.stem, path))
    return tuple(one for path in paths if path.parent.name != "parts" for one in _own_in(path))


def _own_in(path: Path) -> Iterator[_Own]:
    module = f"suite.kernels.{path.parent.name}.{path.stem}"
    functions = [
        one for one in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(one, ast.FunctionDef)
    ]
    for function in functions:
        for call in (one for one in reversed(function.decorator_list) if isinstance(one, ast.Call)):
            declares = getattr(call.func, "id", "")
            if declares in ("kernel", "triton_kernel"):
                given = {keyword.arg: keyword.value for keyword in call.keywords}
                name = ast.literal_eval(given["name"]) if "name" in given else function.name
                for ending in ("", INTERPRETER) if declares == "triton_kernel" else ("",):
                    for op in map(ast.literal_eval, call.args):
                        yield _Own(op, name + ending, module)


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
    declared = declarations(value)
    if not isinstance(declared, dict) or not all(isinstance(one, Kernel) for one in declared.values()):
        raise ValueError(f"{specification} has an attribute {ATTRIBUTE} that @kernel did not make")
    of_op = [one for one in declared.values() if one.op == op]
    if of_op:
        return replace(of_op[-1], id=specification, outside=True)
    if declared:
        ops = ", ".join(dict.fromkeys(one.op for one in declared.values()))
        raise ValueError(f"{specification} is declared as a kernel of {ops}, not of {op}")
    _check_signature(value, op, specification)
    return Kernel(
        id=specification,
        op=op,
        call=value,
        outside=True,
        declared=False,
        version=source_version(value),
        parameters=parameters_of(value),
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


def _declared_in(module: Any, op: str) -> dict[str, Kernel]:
    """Name -> kernel of op, of all functions in a module; objects that only look declared are not."""
    found = {}
    for value in vars(module).values():
        declared = declarations(value) if callable(value) else None
        for one in declared.values() if isinstance(declared, dict) else ():
            if isinstance(one, Kernel) and one.op == op:
                found[one.id] = one
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
