"""The bytes that a call moves at least."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from suite.case import Case
from suite.formats import Format
from suite.ops import AnyOp, get_op


def least_bytes(case: Case, format: Format, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The least traffic of a call: each input read and each output written once, and of a backward,
    which begins with the forward, the inputs read again, the upstream gradients read and the
    gradients written.
    """
    op, options = get_op(case.op), case.resolved_options()
    forward = {name: shape for name, shape in shapes.items() if name not in op.upstreams}

    def size(name: str, of: AnyOp) -> int:
        if name == "target" and case.target != "probabilities":
            return 8
        return of.input_format(name, format).bits // 8

    read = sum(int(np.prod(shape)) * size(name, op) for name, shape in forward.items())
    written = sum(
        int(np.prod(part.output_shape(forward, options))) * part.output_format(format).bits // 8
        for part in op.outputs(options)
    )
    if not case.upstream:
        return read + written
    back = sum(int(np.prod(shapes[name])) * size(name, op) for name in op.upstreams if name in shapes)
    gradients = sum(
        int(np.prod(shapes[name])) * size(name, op) for name in op.differentiable if name in shapes
    )
    return read + written + read + back + gradients
