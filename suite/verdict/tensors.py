"""What judge() is given: which inputs it accepts, and which outputs can be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suite.formats import Format, get_format
from suite.ops import SECOND, AnyOp, Shapes
from suite.tensors import device_name, dtype_name, format_of, is_tensor, to_float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Inputs that judge() accepts, and what they say of the call."""

    tensors: dict[str, Any]
    """The inputs by name, in the order of the op's arguments."""
    op: AnyOp
    """The op, or its backward where an upstream gradient is among the inputs."""
    format: Format
    """Of the logits."""
    shapes: dict[str, tuple[int, ...]]
    """Of the inputs, by name."""
    options: dict[str, Any]
    """With defaults."""

    @property
    def logits(self) -> Any:
        """The first input."""
        return next(iter(self.tensors.values()))


def accepted(op: AnyOp, inputs: Any, options: Mapping[str, Any] | None) -> Accepted:
    """The inputs of a call of `op`, checked. Raises TypeError or ValueError naming what is wrong."""
    tensors = _named_inputs(op, inputs)
    definition = op.of(tensors)
    name, logits = next(iter(tensors.items()))
    format = format_of(logits)
    if format is None or logits.ndim == 0:
        raise ValueError(
            f"input {name} has dtype {dtype_name(logits)} and shape {tuple(logits.shape)}; expected floating,"
            " with a dim"
        )
    for other in definition.arguments:
        own = format_of(tensors[other])
        if own is not None and own != definition.input_format(other, format):
            expected = definition.input_format(other, format).name
            raise ValueError(
                f"input {other} has dtype {own.name}; expected {expected}, as {name} has {format.name}"
            )
    shapes = {name: tuple(int(n) for n in tensor.shape) for name, tensor in tensors.items()}
    resolved = definition.resolve_options(options, shapes)
    parts = zip(op.upstreams, op.outputs(resolved), strict=False)
    upstreams = {name: part.output_format(format) for name, part in parts} | {SECOND: format}
    for other, expected_format in upstreams.items():
        if other in tensors and format_of(tensors[other]) != expected_format:
            raise ValueError(
                f"input {other} has dtype {dtype_name(tensors[other])}; expected {expected_format.name}"
            )
    return Accepted(tensors=tensors, op=definition, format=format, shapes=shapes, options=resolved)


def _named_inputs(op: AnyOp, inputs: Any) -> dict[str, Any]:
    """The inputs by name, in the order of the op's arguments. Raises ValueError or TypeError for
    what they cannot be.
    """
    if not isinstance(inputs, Mapping):
        inputs = {"x": inputs}
    names = (*op.arguments, *op.optional, *op.upstreams, SECOND)
    if not set(op.arguments) <= set(inputs) <= set(names):
        further = f" and, where there are any, {', '.join(op.optional)}" if op.optional else ""
        further += f"; for its backward {', '.join(op.upstreams)}"
        raise ValueError(
            f"inputs has the keys {sorted(inputs)}; {op.name} takes {', '.join(op.arguments)}{further}"
        )
    for name, tensor in inputs.items():
        if is_tensor(tensor) and dtype_name(tensor) == "bool" and name != "mask":
            raise ValueError(
                f"input {name} has dtype bool; expected floating values, or integers for class indices"
            )
        if not is_tensor(tensor):
            raise TypeError(f"input {name} is {_describe(tensor)}; expected a torch tensor or numpy array")
        layout = _layout(tensor)
        if layout != "torch.strided":
            raise ValueError(f"input {name} has layout {layout}; expected a dense tensor")
    return {name: inputs[name] for name in names if name in inputs}


def as_tuple(output: Any) -> tuple[Any, ...]:
    """The outputs of a call: those of a tuple or list, or the one."""
    return tuple(output) if isinstance(output, tuple | list) else (output,)


def check_output(
    op: AnyOp, output: Any, shapes: Shapes, dtype: str, device: str, options: Mapping[str, Any]
) -> tuple[str, str] | None:
    """(status, reason) where the output is no dense tensor of the right device, shape and dtype, or
    not as many of them as the op has; else None.

    shapes: of the inputs, by name; dtype, device: of the logits, as they were before the call.
    """
    parts = op.outputs(options)
    if len(parts) == 1:
        return _check_tensor(parts[0], output, shapes, dtype, device, options)
    if not isinstance(output, tuple | list) or len(output) != len(parts):
        names = ", ".join(part.name for part in parts)
        return (
            "wrong_type",
            f"returned {_describe(output)}; expected a tuple of {len(parts)} tensors: {names}",
        )
    for part, one in zip(parts, output, strict=True):
        wrong = _check_tensor(part, one, shapes, part.output_format(get_format(dtype)).name, device, options)
        if wrong is not None:
            return wrong[0], f"{part.name}: {wrong[1]}"
    return None


def _check_tensor(
    op: AnyOp, output: Any, shapes: Shapes, dtype: str, device: str, options: Mapping[str, Any]
) -> tuple[str, str] | None:
    expected = op.output_shape(shapes, options)
    if not is_tensor(output):
        return "wrong_type", f"returned {_describe(output)}; expected one tensor"
    try:
        where, what, got = device_name(output), dtype_name(output), tuple(int(n) for n in output.shape)
        if where != device:
            return "wrong_type", f"returned a tensor on {where}; the input is on {device}"
        if (layout := _layout(output)) != "torch.strided":
            return "wrong_type", f"returned a tensor with layout {layout}; expected a dense one"
        if got != expected:
            return "wrong_shape", f"returned shape {list(got)}; expected {list(expected)}"
        if what != dtype:
            return "wrong_dtype", f"returned {what}; expected {dtype}"
        to_float64(output[tuple(slice(1) for _ in got)])  # one entry tells whether the others can be read
    except Exception as error:  # a tensor subclass may refuse anything
        return "wrong_type", f"returned a {type(output).__name__} that cannot be read: {type(error).__name__}"
    return None


def _layout(tensor: Any) -> str:
    """torch.strided of a dense tensor, numpy's arrays among them."""
    return str(getattr(tensor, "layout", "torch.strided"))


def _describe(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = "its repr raises"
    return f"a {type(value).__name__} ({text[:60]}{'...' if len(text) > 60 else ''})"
