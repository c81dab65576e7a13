"""Opening a file that a stranger named: a regular file or a ValueError that says why not, never a wait."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading bytes; `~` is the home directory. Raises ValueError naming the
    path and what is wrong.

    Opened without waiting, so that a named pipe does not hang the caller, and looked at afterwards,
    so that no one can put another file in its place in between.
    """
    try:
        descriptor = os.open(path.expanduser(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise ValueError(f"{str(path)!r} does not exist") from None
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # not permitted; a NUL in the name; no home directory
        raise ValueError(
            f"{str(path)!r} cannot be opened: {getattr(error, 'strerror', None) or error}"
        ) from None
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise ValueError(f"{str(path)!r} is {KINDS.get(kind, 'no regular file')}, not a file")
    return os.fdopen(descriptor, "rb")
