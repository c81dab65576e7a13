"""The most memory that a call takes beside its inputs and its output, in bytes.

CPU: every allocation of torch's allocator, as torch's profiler reports it, those inside C++ kernels
among them; what a kernel takes elsewhere (numpy, JAX, malloc of a library) is not seen. CUDA:
torch's caching allocator, which rounds up to 512 bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def peak_bytes(call: Callable[[], Any], *, device: str = "cpu") -> int:
    """The peak of one call beside inputs and output: what must be free besides the two for the call
    to succeed; 0 of a call that makes its output and nothing else. Raises whatever the call raises.
    """
    peak, output = (_cuda if device.startswith("cuda") else _cpu)(call, device)
    return max(peak - _bytes(output), 0)


def _cpu(call: Callable[[], Any], device: str) -> tuple[int, Any]:
    # Else the profiler writes to the terminal whenever it starts and ends.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # torch.profiler is made of this one and imports torch's compiler besides, which takes seconds.
    from torch.autograd.profiler import profile

    with profile(profile_memory=True) as profiled:
        output = call()
    results = profiled.kineto_results
    assert results is not None
    events = sorted(
        (event for event in results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    return peak_of([event.nbytes() for event in events]), output


def peak_of(changes: list[int]) -> int:
    """The largest sum of the first changes, in bytes: allocations are positive, releases negative."""
    live = peak = 0
    for change in changes:
        live += change
        peak = max(peak, live)
    return peak


def _cuda(call: Callable[[], Any], device: str) -> tuple[int, Any]:
    import torch

    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    output = call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before, output


def _bytes(output: Any) -> int:
    """Of the tensors of an output, one or several."""
    import torch

    given = output if isinstance(output, tuple | list) else (output,)
    return sum(one.numel() * one.element_size() for one in given if isinstance(one, torch.Tensor))
