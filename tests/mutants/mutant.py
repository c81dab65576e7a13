"""What a mutant is, and how the lists of them are written."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from suite.case import Case
from suite.kernels import Kernel

FLOAT32 = ("float32",)
BOTH = ("float32", "bfloat16")
NARROW = ("bfloat16", "float16")
LN2, LOG2E = 0.6931471805599453, 1.4426950408889634


@dataclass(frozen=True)
class Mutant:
    """A wrong kernel of an op: what it breaks, and the statuses of which at least one must catch it
    in every dtype.
    """

    name: str
    op: str
    breaks: str
    statuses: tuple[str, ...]
    dtypes: tuple[str, ...]
    make: Callable[[], Callable]
    direction: ClassVar[str] = "forward"

    def kernel(self) -> Kernel:
        call = self.make()
        return Kernel(
            id=self.name,
            op=self.op,
            call=call,
            outside=True,
            parameters=frozenset(inspect.signature(call).parameters),
        )

    def missing(self, case: Case) -> int:
        """How many settings the case lacks that bring the mutant out: of a profile, cases that lack
        least come first.
        """
        return 0


MUTANTS: dict[str, Mutant] = {}


def add(
    op: str, name: str, breaks: str, make: Callable[[], Callable], *statuses: str, dtypes: tuple[str, ...]
) -> None:
    """Adds a mutant to MUTANTS. make() gives a fresh kernel."""
    assert f"{op}: {name}" not in MUTANTS
    MUTANTS[f"{op}: {name}"] = Mutant(f"{op}: {name}", op, breaks, statuses or ("inaccurate",), dtypes, make)


def mutant(op: str, breaks: str, *statuses: str, dtypes: tuple[str, ...] = FLOAT32, stateful: bool = False):
    """Registers a mutant f(x, dim), with options where it takes them; a stateful one is a function
    that makes a fresh f.
    """

    def register(function):
        add(
            op,
            function.__name__,
            breaks,
            function if stateful else (lambda: function),
            *statuses,
            dtypes=dtypes,
        )
        return function

    return register


def step(op: str, kernel: Callable, name: str, breaks: str, *statuses: str, dtypes: tuple[str, ...]):
    """Registers the kernel with this function in place of its step of that name."""

    def register(function):
        wrong = replace(kernel, **{name: function})
        add(op, function.__name__, breaks, lambda: wrong, *statuses, dtypes=dtypes)
        return function

    return register


def last(function):
    """Lets a mutant be written for the last dim in float32; other dims are moved there, 16-bit rows
    are upcasted.
    """

    def moved(x, dim=-1):
        rows = x.movedim(dim, -1)
        wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        y = function(wide)
        y = y.to(x.dtype)
        return y.movedim(-1, dim) if y.ndim == x.ndim else y

    moved.__name__ = function.__name__  # and no more of it: its signature is (x, dim)
    return moved


def parts(x):
    """(e, s) of an honest softmax along the last dim."""
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e, e.sum(-1, keepdim=True)


def round_to(x, dtype):
    return x.to(dtype).to(x.dtype)


def sequential(e, dtype):
    """Sum along the last dim, one by one, in a narrow accumulator."""
    total = torch.zeros_like(e[..., :1]).to(dtype)
    for term in torch.split(e, 1, -1):
        total = (total.float() + term.float()).to(dtype)
    return total.to(e.dtype)
