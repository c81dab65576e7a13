"""Memory under watch: fresh tensors full of NaN, and canaries around the input and around what the
kernel allocates.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import deterministic
from torch.utils._python_dispatch import TorchDispatchMode

GUARD = 64
"""Entries of canary on either side: a write that misses by a few lines hits them."""

CANARY = 1.25e4
"""Large and positive: as one more logit of a row it would take everything, so that reading it shows."""

_ALLOCATORS = (
    "empty.memory_format",
    "empty_strided.default",
    "empty_like.default",
    "new_empty.default",
    "new_empty_strided.default",
)


@contextlib.contextmanager
def filled() -> Iterator[None]:
    """Uninitialised memory of torch holds NaN (largest integers):
    torch.utils.deterministic.fill_uninitialized_memory.
    """
    switches: Any = deterministic  # a module whose class has the switch as a property
    before = switches.fill_uninitialized_memory
    mode = torch.get_deterministic_debug_mode()
    # use_deterministic_algorithms() says the same, and imports torch's compiler for it: seconds.
    torch.set_deterministic_debug_mode("warn")
    switches.fill_uninitialized_memory = True
    try:
        yield
    finally:
        switches.fill_uninitialized_memory = before
        torch.set_deterministic_debug_mode(mode)


@contextlib.contextmanager
def guarding(guards: Guards) -> Iterator[None]:
    """Allocations between canaries. Raises RuntimeError where torch.compile would have to compile for it.

    It would run the function eagerly instead, now and ever after: no graph is made under a dispatch
    mode. The stance refuses.
    """
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("fail_on_recompile"))
        stack.enter_context(guards)
        yield


class _Canaries:
    """Puts tensors between canaries; broken() tells which were overrun."""

    def __init__(self) -> None:
        super().__init__()
        self._guarded: list[tuple[str, torch.Tensor, int]] = []

    def around(self, tensor: torch.Tensor, what: str) -> torch.Tensor:
        """A tensor with the same values, strides and storage order, between canaries."""
        if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
            return tensor
        span = 1 + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
        buffer = torch.full((span + 2 * GUARD,), CANARY, dtype=tensor.dtype, device=tensor.device)
        inner = torch.as_strided(buffer, tensor.shape, tensor.stride(), GUARD)
        source = torch.as_strided(tensor, (span,), (1,), tensor.storage_offset())
        buffer[GUARD : GUARD + span] = source
        self._guarded.append((what, buffer, span))
        return inner

    def broken(self) -> str:
        """What was written outside its tensor, or nothing."""
        for what, buffer, span in self._guarded:
            for side, canary in (("before", buffer[:GUARD]), ("behind", buffer[GUARD + span :])):
                wrong = (canary != torch.tensor(CANARY, dtype=buffer.dtype, device=buffer.device)).nonzero()
                if len(wrong):
                    return f"{what}: {len(wrong)} entries {side} it were overwritten"
        return ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if str(func).removeprefix("aten.") in _ALLOCATORS and made.layout == torch.strided:
            return self.around(
                made.fill_(torch.nan) if made.is_floating_point() else made, "a tensor that the kernel made"
            )
        return made


class Guards(_Canaries, TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Puts every floating tensor that is allocated while it is on between canaries."""


class GuardsFromCompiler(Guards):  # type: ignore[no-untyped-call]
    """Guards that torch's compiler does not look into: torch hides the method of a class that defines
    it, and imports the compiler for that, which takes seconds.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


def new_guards() -> Guards:
    """Guards, hidden from torch's compiler where it is at work."""
    return GuardsFromCompiler() if "torch._dynamo" in sys.modules else Guards()
