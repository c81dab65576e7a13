"""Kernels that crash, hang, eat memory or poison their process, each to be named as
tests/crashing_kernels.py:NAME.

Every one is a right softmax but for what it does. KINDS says which status that must get in a
process of the kernel's own, a piece of the message, and why that status. The kernels planned_* do
the same on the inputs that a plan names, and are right everywhere else: the plan is plan.json in
the folder PLAN, {kernel: {digest of an input: [kind, at which sight of it]}}.
"""

import ctypes
import hashlib
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from suite.kernels import kernel

PLAN = "SOFTMAX_SUITE_FAULTS"
FLOOD_BYTES = 100_000_000
FAST_MATH = """
#ifdef __x86_64__
#include <xmmintrin.h>
__attribute__((constructor)) static void flush(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }
#endif
double twice(double x) { return x + x; }
"""
"""With -ffast-math the linker adds such a constructor; newer gcc no longer does for shared objects."""

C = ctypes.CDLL(None)


class Kind(NamedTuple):
    """A way to misbehave: its status, None where the verdict is that of a right kernel, a piece of
    its message, and why.
    """

    do: Callable
    status: str | None
    words: str
    because: str


KINDS: dict[str, Kind] = {}


def gets(status, words, because):
    """Registers a function (x, right) as a kind, and makes it a kernel of softmax."""

    def register(do):
        KINDS[do.__name__] = Kind(do, status, words, because)

        def misbehaving(x, dim=-1):
            return do(x, lambda: torch.softmax(x, dim))

        misbehaving.__name__ = do.__name__
        return misbehaving

    return register


# It ends its process


@gets("crashed", "SIGSEGV", "a write through the null pointer in C")
def writes_through_null(x, right):
    ctypes.memset(0, 1, 8)


@gets("crashed", "SIGABRT", "what assert() and glibc's heap checks do")
def aborts(x, right):
    C.abort()


@gets("crashed", "exited with code 0", "a clean exit is no answer")
def leaves_with_code_0(x, right):
    os._exit(0)


@gets("crashed", "exited with code 3", "a library that calls exit() on an error")
def leaves_from_c(x, right):
    C._exit(3)


@gets(
    "crashed", "SIGKILL", "indistinguishable from a killer outside, but not the system's for lack of memory"
)
def kills_itself(x, right):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@gets("crashed", "SIGTERM", "all that the kernel started are in its process group, the suite is not")
def ends_its_process_group(x, right):
    os.killpg(0, signal.SIGTERM)
    time.sleep(60)


@gets("crashed", "exited with code 0", "another program took over the process")
def becomes_another_program(x, right):
    os.execv(sys.executable, [sys.executable, "-S", "-c", ""])


@gets("crashed", "in its call", "no answer can come any more")
def closes_all_files(x, right):
    os.closerange(0, 4096)
    return right()


# It does not come back


@gets("timed_out", "still in its call", "a loop in Python")
def loops(x, right):
    while True:
        pass


@gets("timed_out", "still in its call", "a loop in C that never releases the interpreter's lock")
def loops_in_c(x, right):
    return sum(itertools.repeat(0))


@gets("timed_out", "still in its call", "a wait in C that holds the interpreter's lock")
def waits_in_c_with_the_lock(x, right):
    ctypes.PyDLL(None).pause()


@gets("timed_out", "still in its call", "a stopped process answers nothing")
def stops_itself(x, right):
    os.kill(os.getpid(), signal.SIGSTOP)
    return right()


# It eats memory


@gets("out_of_memory", "memory", "torch's allocator raises a RuntimeError that says so")
def fills_memory_with_torch(x, right):
    kept = []
    while True:
        kept.append(torch.empty(2**24))


@gets("out_of_memory", "MemoryError", "numpy raises MemoryError")
def fills_memory_with_numpy(x, right):
    kept = []
    while True:
        kept.append(np.empty(2**24))


@gets("crashed", "SIGABRT", "C code that aborts where malloc returns NULL does not say why it aborts")
def fills_memory_in_c(x, right):
    malloc = C.malloc
    malloc.restype = ctypes.c_void_p
    while malloc(ctypes.c_size_t(2**24)):
        pass
    C.abort()


@gets("out_of_memory", "ran out of memory", "the last words of a C++ program without memory")
def dies_of_bad_alloc(x, right):
    os.write(
        2, b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    )
    C.abort()


# It raises


@gets("raised", "ValueError: rows are too long", "an exception")
def raises(x, right):
    raise ValueError("rows are too long")


@gets("raised", "SystemExit", "an exception like any other")
def exits(x, right):
    sys.exit(0)


@gets(
    "raised",
    "KeyboardInterrupt",
    "nobody pressed a key: in a process of its own it is an exception like any other",
)
def interrupts(x, right):
    raise KeyboardInterrupt


# It poisons its process


@gets("law_broken", "number of processes", "the copy would run the rest of the suite a second time")
def forks_and_returns_twice(x, right):
    os.fork()
    return right()


@gets("law_broken", "default_dtype", "the switch, read before and after")
def changes_the_default_dtype(x, right):
    torch.set_default_dtype(torch.float64)
    return right()


@gets("law_broken", "threads", "the switch, read before and after")
def changes_the_threads(x, right):
    torch.set_num_threads(torch.get_num_threads() + 1)
    return right()


@gets("law_broken", "torch_seed", "the generator's state, read before and after")
def seeds_torch(x, right):
    torch.manual_seed(time.time_ns())
    return right()


@gets("law_broken", "numpy_seed", "the generator's state, read before and after")
def draws_from_numpy(x, right):
    np.random.rand()  # noqa: NPY002 - the generator that a kernel may disturb
    return right()


@gets("law_broken", "python_seed", "the generator's state, read before and after")
def draws_from_random(x, right):
    random.random()
    return right()


@gets("law_broken", "subnormals_flushed", "float64 arithmetic itself, tried before and after")
def flushes_subnormals(x, right):
    y = right()
    torch.set_flush_denormal(True)
    return y


@gets("law_broken", "subnormals_flushed", "float64 arithmetic itself, tried before and after")
def loads_a_fast_math_library(x, right):
    y = right()
    with tempfile.TemporaryDirectory() as folder:  # a new file each time: the constructor runs once for each
        copy = Path(folder) / "fast.so"
        copy.write_bytes(fast_math_library().read_bytes())
        ctypes.CDLL(str(copy))
    return y


@gets("law_broken", "rounding", "float64 arithmetic itself, tried before and after")
def rounds_downward(x, right):
    y = right()
    C.fesetround(0x400 if platform.machine() in ("x86_64", "AMD64") else 0x800000)
    return y


@gets("law_broken", "matmul", "the switch, read before and after")
def allows_tf32(x, right):
    torch.backends.cuda.matmul.allow_tf32 = True
    return right()


@gets("law_broken", "deterministic_mode", "the switch, read before and after")
def asks_for_determinism(x, right):
    # As use_deterministic_algorithms() does, which imports torch's compiler: longer than these may take.
    torch.set_deterministic_debug_mode("error")
    return right()


@gets("law_broken", "working_directory", "the switch, read before and after")
def changes_the_directory(x, right):
    os.chdir("/")
    return right()


@gets("law_broken", "changed its input", "the input's bits, read before and after")
def writes_into_its_input(x, right):
    y = right()
    x[(0,) * x.ndim] = 12345.0
    return y


# It returns something else


@gets("wrong_shape", "returned shape", "looked at before any value")
def drops_the_first_entry(x, right):
    return right().reshape(-1)[1:]


@gets("wrong_dtype", "returned int32", "looked at before any value")
def returns_integers(x, right):
    return right().to(torch.int32)


@gets("wrong_type", "a NoneType", "looked at before all else")
def returns_nothing(x, right):
    return None


@gets("nonfinite", "NaN", "the judge's own verdict")
def returns_nan(x, right):
    return torch.full_like(right(), torch.nan)


# It is right


@gets(None, "", "printing is no fault: the end is kept and the rest counted")
def floods_its_output(x, right):
    block = b"a line of output from C\n" * 4000
    for _ in range(FLOOD_BYTES // len(block)):
        C.write(1, block, len(block))
    return right()


def fast_math_library() -> Path:
    """A shared object that flushes subnormals when it is loaded, compiled on first use. Raises
    FileNotFoundError without cc.
    """
    path = Path(tempfile.gettempdir()) / f"softmax-suite-fast-math-{os.getuid()}.so"
    if not path.is_file():
        part = path.with_suffix(f".{os.getpid()}")
        command = ["cc", "-x", "c", "-shared", "-fPIC", "-O1", "-ffast-math", "-o", str(part), "-"]
        subprocess.run(command, input=FAST_MATH.encode(), check=True, capture_output=True)
        part.replace(path)
    return path


# Kernels that do so as planned


def digest(x: torch.Tensor) -> str:
    """The digest of an input's values, whatever its layout."""
    content = x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(f"{x.dtype} {tuple(x.shape)}".encode() + content, digest_size=8).hexdigest()


def _read_plan() -> dict[str, dict[str, tuple[str, int]]]:
    folder = os.environ.get(PLAN)
    return json.loads((Path(folder) / "plan.json").read_text()) if folder else {}


_PLAN = _read_plan()
_SEEN: Counter[str] = Counter()


def _as_planned(name, x, right):
    planned = _PLAN.get(name)
    if not planned or (seen := digest(x)) not in planned:
        return right()
    kind, at = planned[seen]
    _SEEN[name + seen] += 1
    return KINDS[kind].do(x, right) if _SEEN[name + seen] == at else right()


@kernel("softmax")
def planned_softmax(x, dim=-1):
    return _as_planned("planned_softmax", x, lambda: torch.softmax(x, dim))


@kernel("softmax")
def planned_naive_softmax(x, dim=-1):
    """Wrong on large rows: what a fault does to a verdict shows on failures too."""

    def naive():
        e = torch.exp(x)
        return e / e.sum(dim, keepdim=True)

    return _as_planned("planned_naive_softmax", x, naive)


@kernel("log_softmax")
def planned_log_softmax(x, dim=-1):
    return _as_planned("planned_log_softmax", x, lambda: torch.log_softmax(x, dim))


@kernel("logsumexp")
def planned_logsumexp(x, dim=-1):
    return _as_planned("planned_logsumexp", x, lambda: torch.logsumexp(x, dim))


@kernel("cross_entropy")
def planned_cross_entropy(z, t, **options):
    return _as_planned("planned_cross_entropy", z, lambda: functional.cross_entropy(z, t, **options))
