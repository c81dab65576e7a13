"""torch's baseline: the error of torch's own kernel on the same reference."""

from __future__ import annotations

import functools
from weakref import WeakKeyDictionary

import numpy as np

from suite.execution.adapters import adapted_call
from suite.execution.calls import Calls
from suite.execution.subject import Subject
from suite.kernels import Kernel
from suite.laws import Inputs
from suite.ops import get_op
from suite.oracle import Reference
from suite.tensors import to_float64
from suite.verdict.statistics import ulp_errors
from suite.verdict.tensors import as_tuple

_TORCH_ULP: WeakKeyDictionary[Reference, float | None] = WeakKeyDictionary()
"""The largest error of torch's own kernel, for each reference in use."""


def torch_ratio(
    subject: Subject, calls: Calls, inputs: Inputs, reference: Reference, max_ulp: float | None
) -> float | None:
    """A kernel's largest error in ulps, divided by that of torch's own kernel on the same input.
    None where torch has no such kernel or no error.
    """
    if reference not in _TORCH_ULP:
        _TORCH_ULP[reference] = _torch_ulp(subject, calls, inputs, reference)
    own = _TORCH_ULP[reference]
    return max_ulp / own if own and max_ulp is not None else None


def _torch_ulp(subject: Subject, calls: Calls, inputs: Inputs, reference: Reference) -> float | None:
    kernel, op = _torch_kernel(subject.case.op), subject.op(inputs)
    further = [name for name in inputs if name in (*op.optional, *op.upstreams)]
    options = subject.options
    if (
        kernel is None
        or kernel.supports(options, subject.format, subject.device, further=further) is not None
    ):
        return None
    try:
        output = as_tuple(adapted_call(kernel, calls.tensors(inputs), options)[0])[0]
    except (RuntimeError, IndexError, TypeError):
        return None  # torch has no such option, or not for this format
    rows = op.output_rows(to_float64(output), reference.problem, options)
    errors = ulp_errors(reference, subject.format, rows)
    return float(np.abs(errors).max()) if errors.size else None


@functools.cache
def _torch_kernel(op: str) -> Kernel | None:
    """torch's own function for the op, whichever backend it takes."""
    own = get_op(op).torch
    return None if own is None else Kernel(id="torch", op=op, call=own.load(), parameters=own.parameters)
