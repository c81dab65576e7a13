"""The backward of a kernel: its forward function on tensors that require a gradient, and autograd's
way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from suite.kernels import Kernel
from suite.ops import SECOND, get_op
from suite.verdict.tensors import as_tuple


class WrongTypeError(TypeError):
    """The forward, or the backward, gave something that is no tensor, or not as many as the op has."""


def gradients(kernel: Kernel, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> Any:
    """The gradients of the kernel's floating inputs, in the op's order: one tensor, or a tuple.

    tensors: the inputs and, as `upstream`, the gradients of the outputs; with `second`, the
    gradient of the first gradient is taken. Raises NotImplementedError where the kernel has no
    backward, or none for a mask or a sink; WrongTypeError where its forward returns something else
    than the op's outputs, or its backward None; and whatever the kernel raises.
    """
    op = get_op(kernel.op)
    wrt = op.wanted(tensors)
    twice = SECOND in tensors
    upstreams = [name for name in op.upstreams if name in tensors]
    leaves = {name: tensors[name].detach().requires_grad_() for name in wrt}
    inputs = {name: tensor for name, tensor in tensors.items() if name not in (*upstreams, SECOND)}
    with torch.enable_grad():
        outputs = as_tuple(kernel({**inputs, **leaves}, options=options))
    expected = [part.name for part in op.outputs({**op.options, **options})][: len(upstreams)]
    if len(outputs) != len(upstreams) or any(not isinstance(output, torch.Tensor) for output in outputs):
        kinds = ", ".join(type(output).__name__ for output in outputs)
        raise WrongTypeError(
            f"the forward returned {kinds}; expected tensors of torch: {', '.join(expected)}"
        )
    tracked = [
        (output, tensors[name])
        for output, name in zip(outputs, upstreams, strict=True)
        if output.requires_grad
    ]
    if not tracked or (kernel.backward is None and len(tracked) < len(outputs)):
        missing = [name for name, output in zip(upstreams, outputs, strict=True) if not output.requires_grad]
        message = f"its output has no gradient ({', '.join(missing)})"
        raise RuntimeError(message) if kernel.backward else NotImplementedError(message)
    found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
        [output for output, _ in tracked],
        list(leaves.values()),
        [upstream for _, upstream in tracked],
        allow_unused=True,
        create_graph=twice,
    )
    if twice:
        return _second(found[0], leaves[wrt[0]], tensors[SECOND])
    lacking = [name for name, gradient in zip(wrt, found, strict=True) if gradient is None]
    if set(lacking) - set(op.optional):
        raise WrongTypeError(f"the backward returned None for {', '.join(lacking)}; expected a gradient")
    if lacking:
        raise NotImplementedError(f"it gives no gradient of {', '.join(lacking)}")
    return found if len(found) > 1 else found[0]


def _second(first: torch.Tensor | None, leaf: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor | None:
    """The gradient of <upstream, first>. Raises NotImplementedError for a backward that cannot be
    differentiated.
    """
    if first is None or not first.requires_grad:
        raise NotImplementedError("its gradient has no gradient")
    try:
        [found] = torch.autograd.grad([first], [leaf], [upstream], allow_unused=True)
    except (
        RuntimeError
    ) as error:  # once_differentiable, changed in place, no formula: torch says it in many ways
        raise NotImplementedError(f"its gradient has no gradient: {error}") from error
    return torch.zeros_like(leaf) if found is None else found
