"""What is measured: the plan of a profile, and its points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from suite.case import Case
from suite.ops import NAMES, AnyOp, get_op

if TYPE_CHECKING:
    from suite.kernels import Kernel

OPS = tuple(name for name in NAMES if get_op(name).torch is not None)
"""What is measured where nobody names an op: whatever torch has a kernel for, too."""

FEWEST_ROWS = 8
HEADS = 2
"""Of attention."""

MERGE_HEADS = 8
MERGE_SIZE = 64
"""Heads and head size of merge_states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a profile measures."""

    lengths: tuple[int, ...]
    """Of rows."""

    attention_lengths: tuple[int, ...]
    """Of queries and keys."""

    entries: int
    """Of logits, about, whatever the length."""

    dtypes: tuple[str, ...]
    """Names of formats."""

    head_sizes: tuple[int, ...] = (64,)
    """Of attention."""

    causal: tuple[str | None, ...] = (None,)
    """Of attention."""

    budget_seconds: float
    """For the samples of a point."""


PLANS: dict[str, Plan] = {
    "smoke": Plan(
        lengths=(256, 4096), attention_lengths=(256,), entries=2**16, dtypes=("float32",), budget_seconds=0.02
    ),
    "quick": Plan(
        lengths=(256, 2048, 16384),
        attention_lengths=(256, 512, 2048),
        entries=2**18,
        dtypes=("float32", "bfloat16"),
        budget_seconds=0.05,
    ),
    "standard": Plan(
        lengths=(256, 1024, 4096, 16384, 65536, 128256),
        attention_lengths=(256, 512, 1024, 2048, 4096),
        entries=2**20,
        dtypes=("float32", "bfloat16", "float16"),
        head_sizes=(64, 128),
        causal=(None, "top_left"),
        budget_seconds=0.5,
    ),
}  # fmt: skip


class Point(NamedTuple):
    """One kernel on one case in one format: one measurement."""

    kernel: Kernel
    case: Case
    dtype: str


def points(
    kernels: Mapping[str, Sequence[Kernel]],
    plan: Plan,
    *,
    dtypes: Sequence[str] = (),
    direction: str = "forward",
    lengths: Sequence[int] = (),
    shapes: Sequence[tuple[int, ...]] = (),
) -> list[Point]:
    """What is measured, in order: kernels side by side, so that they share inputs, references and
    the weather.

    kernels: by op. dtypes, lengths, shapes: in place of the plan's. Raises ValueError for a shape
    that an op cannot have.
    """
    return [
        Point(kernel, case, dtype)
        for op, chosen in kernels.items()
        for dtype in dtypes or plan.dtypes
        for case in cases(op, plan, direction=direction, lengths=lengths, shapes=shapes)
        for kernel in chosen
    ]


def cases(
    op: str,
    plan: Plan,
    *,
    direction: str = "forward",
    lengths: Sequence[int] = (),
    shapes: Sequence[tuple[int, ...]] = (),
) -> list[Case]:
    """The cases of an op. Raises ValueError, naming the shape, where one is of the wrong number of
    dims or empty.
    """
    definition = get_op(op)
    settings: list[dict[str, Any]] = [dict(definition.options_by_row)]
    if "causal" in definition.options:
        settings = [{"causal": causal} if causal else {} for causal in plan.causal]
    for shape in shapes:
        if len(shape) != len(definition.dims) or min(shape) < 1:
            raise ValueError(
                f"--shape {'x'.join(map(str, shape))} is none of {op}: expected {'x'.join(definition.dims)},"
                " each at least 1"
            )
    upstream = "normal" if direction == "backward" else ""
    return [
        Case(op=op, family=definition.plain_family, shape=shape, options=options, upstream=upstream)
        for options in settings
        for shape in shapes or _shapes(definition, plan, lengths)
    ]


def _shapes(op: AnyOp, plan: Plan, lengths: Sequence[int]) -> list[tuple[int, ...]]:
    if op.limited_by == "operations":
        return [(1, HEADS, n, size) for size in plan.head_sizes for n in lengths or plan.attention_lengths]
    if not op.of_rows:
        return [(1, MERGE_HEADS, n, MERGE_SIZE) for n in lengths or plan.attention_lengths]
    return [(max(plan.entries // n, FEWEST_ROWS), n) for n in lengths or plan.lengths]


def check_clock(device: str) -> None:
    """Raises ValueError for a device that nothing here can time."""
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"--device {device!r} has no clock here; expected cpu, cuda, cuda:1, ...")
