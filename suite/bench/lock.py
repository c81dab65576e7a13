"""One measurement of a device at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from suite.oracle.cache import default_folder
from suite.records.lock import InUseError, locked


@contextlib.contextmanager
def device_lock(device: str, *, folder: Path | None = None) -> Iterator[None]:
    """One bench of a device at a time: two would time each other. The end of the process, however
    it comes, frees the device.

    Raises ValueError where another process of this user holds it, and under pytest-xdist, whose
    workers run side by side.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        raise ValueError(
            "times of workers side by side are times of each other: run it without pytest-xdist (-n)"
        )
    folder = folder or default_folder()
    path = folder / f"bench-{_whole_name(device).replace(':', '-')}.lock"
    with contextlib.ExitStack() as holding:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            holding.enter_context(locked(path))
        except OSError as error:
            raise ValueError(
                f"the lock {str(path)!r} of the device cannot be made: {error.strerror}"
            ) from None
        except InUseError as error:
            raise ValueError(
                f"device {device} is being measured by process {error.holder}; two at once time each other"
            ) from None
        yield


def _whole_name(device: str) -> str:
    """The name that a device has alone: there is one CPU, and "cuda" is the present one."""
    kind, _, index = device.partition(":")
    return (
        f"{kind}:{index or torch.cuda.current_device()}"
        if kind == "cuda" and torch.cuda.is_available()
        else kind
    )
