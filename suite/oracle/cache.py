"""Costly references on disk, by content: written to a temporary file and renamed, so parallel
processes never see half.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from suite.oracle.certified import Certified

LIMIT_BYTES = 2 * 2**30
"""The folder's size at which the oldest references go."""


def default_folder() -> Path:
    """$SOFTMAX_SUITE_CACHE, else softmax-suite in the user's cache folder."""
    chosen = os.environ.get("SOFTMAX_SUITE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softmax-suite"


def load(folder: Path | None, key: str) -> Certified | None:
    """The stored reference, or None where there is none or the file is torn."""
    if folder is None:
        return None
    try:
        with _path(folder, key).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return Certified(
                stored["rows"], stored["hi"], stored["lo"], stored["radius"], str(stored["tier"])
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def save(folder: Path | None, key: str, reference: Certified) -> None:
    """Stores a reference. A folder that cannot be written to costs time, not truth: it is left alone."""
    if folder is None:
        return
    buffer = io.BytesIO()
    np.savez(buffer, **reference._asdict())
    write_atomically(_path(folder, key), buffer.getvalue())


def write_atomically(path: Path, content: bytes) -> None:
    """Writes the whole file or nothing; an unwritable folder is left alone."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)


def trim(folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
    """Removes the references written longest ago until the folder is below the limit."""
    with contextlib.suppress(OSError):
        files = sorted((p for p in folder.glob("*/*.npz")), key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > limit_bytes:
                path.unlink(missing_ok=True)


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.npz"
