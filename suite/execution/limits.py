"""What the process of a kernel may take from the machine, and how to tell that the system took it back."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

GIBIBYTE = 2**30

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def default_memory_bytes() -> int:
    """Half of this machine's memory, or of what its container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(path).read_text(encoding="ascii")))
    return total // 2


def restrict(memory_bytes: int | None) -> None:
    """Gives this process so much more memory than it has now, no core dumps, and the first place
    among those to be killed.

    The limit is on writable private memory, as threads and CUDA reserve address space by the
    gigabyte. Linux only: elsewhere the system does not enforce one.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        if memory_bytes is not None:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            wanted = _writable_bytes() + memory_bytes
            resource.setrlimit(
                resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )


def die_with_parent() -> None:
    """Has the system kill this process when the one that forked it ends, however that ends. Linux only."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def killings_for_memory() -> int:
    """How many processes this system has killed so far because memory ran out; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _writable_bytes() -> int:
    """VmData of this process, which RLIMIT_DATA limits."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
