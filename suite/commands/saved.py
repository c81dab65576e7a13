"""The tensors and options of a call that was saved to a file, for `judge` and `check --input`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def pick_inputs(op: str, saved: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The op's inputs among the tensors of a file: those of its arguments, where the first may be
    called input too; and the gradients of its outputs, where they are there.
    """
    from suite.inputs.saved_tensors import pick
    from suite.ops import get_op

    first, *others = get_op(op).arguments
    further = {name: saved[name] for name in (*get_op(op).optional, *get_op(op).upstreams) if name in saved}
    return (
        {first: pick(saved, (first, "input"), path)}
        | {name: pick(saved, (name,), path) for name in others}
        | further
    )


def pick_outputs(
    op: str, inputs: Mapping[str, Any], saved: Mapping[str, Any], options: Mapping[str, Any], path: Path
) -> Any:
    """What a kernel made of these inputs, among the tensors of a file: y, and lse where the op has
    one; of a backward the gradients of its inputs: dx, or dlogits, or dq, dk, dv, ...
    """
    from suite.inputs.saved_tensors import pick
    from suite.ops import UPSTREAM, get_op

    if UPSTREAM in inputs:
        wrt = get_op(op).wanted(inputs)
        found = tuple(pick(saved, (f"d{name}",), path) for name in wrt)
        return found if len(found) > 1 else found[0]
    y = pick(saved, ("y", "output"), path)
    several = len(get_op(op).outputs({**get_op(op).options, **options})) > 1
    return (y, pick(saved, ("lse",), path)) if several else y


def parse_options(op: str, settings: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE texts as options of the op. Raises ValueError for an unknown name, or a value of
    another type.
    """
    from suite.ops import get_op

    definition, options = get_op(op), dict[str, Any]()
    defaults = definition.options
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in defaults:
            raise ValueError(
                f"--option {setting!r} names no option of {op}; expected one of {', '.join(defaults)}, as"
                " NAME=VALUE"
            )
        try:
            options[name] = definition.setting(name).parse(text)
        except ValueError:
            kind = type(defaults[name])  # one whose default is None takes any text
            raise ValueError(
                f"--option {setting!r}: expected {kind.__name__}, such as {name}={defaults[name]}"
            ) from None
    return options
