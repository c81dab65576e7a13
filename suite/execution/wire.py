"""Tensors from one process to another through shared memory: an anonymous file that both have mapped.

What goes through a pipe beside it are descriptions, JSON-ready: where in the file a tensor's
storage lies, and its shape, strides and dtype. Nothing is pickled.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from suite.records.store import RESUMING, StoreError

Description = dict[str, Any]

_ALIGNMENT = 64
_FLAG, _RAN_OUT = 0, 1
START = _ALIGNMENT
"""Where tensors may lie from: behind the flags."""


class NoResourceError(StoreError):
    """This machine does not give the suite what it needs for any kernel: no kernel's fault, and the
    end of the run.
    """

    def __init__(self, what: str, error: OSError) -> None:
        Exception.__init__(
            self,
            f"{what} cannot be had: {error.strerror or error} (limits on files, ulimit -f and -n, may be the"
            f" reason). What was recorded before is whole; mend that, then {RESUMING}",
        )


_SHARED = "shared memory for a kernel's tensors"


class SharedMemory:
    """One side's view of the shared file. Either side may make it larger; it lives as long as
    somebody has it open.

    ask: has the other side make it so large, where this one may not; without it that raises NoResourceError.
    """

    def __init__(
        self, file_descriptor: int | None = None, *, ask: Callable[[int], None] | None = None
    ) -> None:
        self.ask = ask
        if file_descriptor is not None:
            self.file_descriptor = file_descriptor
        else:
            try:
                self.file_descriptor = _anonymous_file()
                os.ftruncate(self.file_descriptor, mmap.PAGESIZE)
            except OSError as error:
                raise NoResourceError(_SHARED, error) from None
        self._map = self._mapped(0)

    @property
    def flag(self) -> bool:
        """A mark that any process with this memory may set, a forked copy of the kernel's process
        among them.
        """
        return self._map[_FLAG] != 0

    @flag.setter
    def flag(self, value: bool) -> None:
        self._map[_FLAG] = int(value)

    @property
    def ran_out(self) -> bool:
        """Whether the kernel's process had not even the memory to answer, and ended for it."""
        return self._map[_RAN_OUT] != 0

    def tell_ran_out(self) -> None:
        self._map[_RAN_OUT] = 1

    def write(self, tensors: Iterable[torch.Tensor], *, start: int = START) -> tuple[list[Description], int]:
        """Copies the tensors' storage, as far as they use it, into the file from `start` on: where
        each lies, and the end.

        Raises NoResourceError where the file cannot be made as large as that.
        """
        descriptions, end = [], start
        for tensor in tensors:
            span = _span(tensor.shape, tensor.stride())
            lead = tensor.data_ptr() % _ALIGNMENT if span else 0
            start = _aligned(end)
            end = start + span * tensor.element_size()
            if end > os.fstat(self.file_descriptor).st_size:
                self.reach(math.ceil(2 * end / mmap.PAGESIZE) * mmap.PAGESIZE)
            self._map_to(end)
            if span:
                storage = torch.as_strided(tensor, (span,), (1,)).view(torch.uint8).numpy()
                np.frombuffer(self._map, dtype=np.uint8, count=len(storage), offset=start)[:] = storage
            descriptions.append(
                {
                    "start": start,
                    "lead": lead,
                    "shape": list(tensor.shape),
                    "stride": list(tensor.stride()),
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                }
            )
        return descriptions, end

    def read(self, descriptions: Sequence[Description]) -> tuple[torch.Tensor, ...]:
        """Tensors of their own memory with the values, strides and alignment of those that were written.

        Raises ValueError where the descriptions are of nothing that lies there.
        """
        return tuple(self._read(description) for description in descriptions)

    def _read(self, description: Description) -> torch.Tensor:
        dtype, shape, stride = (
            getattr(torch, description["dtype"]),
            description["shape"],
            description["stride"],
        )
        span, lead = _span(shape, stride), description["lead"]
        if not span:
            return torch.empty_strided(shape, stride, dtype=dtype)
        size = span * dtype.itemsize
        self._map_to(description["start"] + size)
        memory = torch.empty(lead + size, dtype=torch.uint8)
        memory.numpy()[lead:] = np.frombuffer(
            self._map, dtype=np.uint8, count=size, offset=description["start"]
        )
        return torch.as_strided(memory[lead:].view(dtype), shape, stride)

    def grow(self, size: int) -> None:
        """Makes the file so many bytes large. Raises OSError where this process may not."""
        os.ftruncate(self.file_descriptor, size)

    def reach(self, size: int) -> None:
        """Makes the file so many bytes large, by way of the other side where there is no other.
        Raises NoResourceError.
        """
        try:
            self.grow(size)
        except OSError as error:
            if self.ask is None:
                raise NoResourceError(_SHARED, error) from None
            self.ask(size)

    def _map_to(self, end: int) -> None:
        """Maps the file up to `end` at least. Raises ValueError where it is shorter."""
        if end <= len(self._map):
            return
        size = os.fstat(self.file_descriptor).st_size
        if size < end:
            raise ValueError(f"byte {end} is beyond the shared memory, which has {size}")
        before, self._map = self._map, self._mapped(size)
        before.close()

    def _mapped(self, size: int) -> mmap.mmap:
        try:
            return mmap.mmap(self.file_descriptor, size)
        except OSError as error:
            raise NoResourceError(_SHARED, error) from None

    def close(self) -> None:
        self._map.close()
        os.close(self.file_descriptor)


def _anonymous_file() -> int:
    """A file without a name, in memory where the system has such files: it goes with its last user,
    whatever kills that.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("softmax-suite", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        # A shorter file would be a SIGBUS for the other side.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return descriptor
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _span(shape: Sequence[int], stride: Sequence[int]) -> int:
    """How many entries of storage a tensor reaches over."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _aligned(offset: int) -> int:
    return math.ceil(offset / _ALIGNMENT) * _ALIGNMENT
