"""The ops: each a definition (mathematics and special values, written once), a bound and a gradient,
in a folder of its own.
"""

from __future__ import annotations

import functools
import importlib

from suite.ops.op import (
    SECOND,
    UPSTREAM,
    AnyOp,
    Compared,
    Describe,
    Op,
    Options,
    Result,
    Shapes,
    TorchKernel,
    Values,
)

__all__ = [
    "NAMES",
    "SECOND",
    "UPSTREAM",
    "AnyOp",
    "Compared",
    "Describe",
    "Op",
    "Options",
    "Result",
    "Shapes",
    "TorchKernel",
    "Values",
    "get_op",
    "measured_by",
    "result_of",
    "row_ops",
]

NAMES = ("softmax", "log_softmax", "logsumexp", "cross_entropy", "attention", "merge_states")
"""All ops. A new one is its folder, a folder of kernels, and its name here."""


@functools.cache
def get_op(name: str) -> AnyOp:
    """The op of that name. Raises ValueError with the valid names."""
    if name not in NAMES:
        raise ValueError(f"unknown op {name!r}; expected one of {', '.join(NAMES)}")
    op = importlib.import_module(f"suite.ops.{name}").OP
    assert isinstance(op, Op)
    return op


def result_of(name: str) -> Result | None:
    """What the entries of the output of the op of that name are; None where there is no such op."""
    return get_op(name).result if name in NAMES else None


def row_ops() -> tuple[str, ...]:
    """The names of the ops that work on rows of logits."""
    return tuple(name for name in NAMES if get_op(name).of_rows)


def measured_by(chapter: str) -> tuple[str, ...]:
    """The names of the ops that a chapter of measurements knows."""
    return tuple(name for name in NAMES if chapter in get_op(name).measured)
