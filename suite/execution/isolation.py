"""Kernels in processes of their own: the choices a user has, and the server that such processes are
forked from.

Imports nothing of weight itself, so that the server can be started first and import torch while
this process does the same.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Method = Literal["forkserver", "spawn"]
"""How a process starts: as a fork of the server, or afresh for CUDA, which does not survive a fork."""

Isolate = Literal["always", "outside", "never"]
ISOLATE: tuple[Isolate, ...] = ("always", "outside", "never")
"""Which kernels run in a process of their own: all, those that are not this suite's own, none."""

TIMEOUT_SECONDS = 60.0
"""What a kernel in a process of its own may take for all its calls of a case, where nothing else is said."""

MOST_THREADS = max(256, os.cpu_count() or 1)
"""Millions of them end the process inside OpenMP."""

PRELOADED = ["torch", "suite.execution.preloaded"]


def start_server() -> None:
    """Starts the server, where it does not run yet, without waiting for it: torch and the code of a
    kernel's process.
    """
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with no_main_module():
        forkserver.ensure_running()


@contextmanager
def no_main_module() -> Iterator[None]:
    """Hides __main__ from multiprocessing, whose processes would run the user's script a second time."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
