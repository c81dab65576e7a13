"""Costly references of many cases in one .npz, to take to a machine without network or without python-flint.

    keys [N], tiers [N], shapes [N, 2], and of all references one after the other: rows, hi, lo, radius

A reference file decides verdicts, as code does: load your own.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from suite.oracle import REFERENCE_VERSION, cache
from suite.oracle.certified import Certified

FORMAT = f"softmax-suite references {REFERENCE_VERSION}"
NAMES = ("format", "keys", "tiers", "shapes", "rows", "hi", "lo", "radius")
TIERS = ("arb", "mpmath")
_KEY = re.compile(r"[0-9a-f]{40}")


def pack(folder: Path, path: Path) -> int:
    """Writes the references of a cache folder into one file, and returns how many. Raises OSError
    where that cannot be.
    """
    keys = sorted(file.stem for file in folder.glob("*/*.npz"))
    found = {key: reference for key in keys if (reference := cache.load(folder, key)) is not None}
    references = list(found.values())
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "keys": np.array(list(found), dtype="U40"),
        "tiers": np.array([one.tier for one in references], dtype="U6"),
        "shapes": np.array([one.hi.shape for one in references], dtype=np.int64).reshape(-1, 2),
        "rows": np.concatenate([np.zeros(0, np.int64), *(one.rows for one in references)]),
    }
    for name in ("hi", "lo", "radius"):
        arrays[name] = np.concatenate([np.zeros(0), *(getattr(one, name).ravel() for one in references)])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path.write_bytes(buffer.getvalue())
    return len(found)


def unpack(path: Path, folder: Path) -> int:
    """Puts the references of a file into a cache folder, and returns how many.

    Raises ValueError for a file that is torn, of another version or something else, and where the
    folder takes nothing; OSError where the file cannot be read.
    """
    content = path.read_bytes()
    try:
        references = _references(_arrays(content))
    except (
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        NotImplementedError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{str(path)!r} is no whole file of references: {reason}") from None
    for key, reference in references.items():
        cache.save(folder, key, reference)
    if references and cache.load(folder, next(iter(references))) is None:
        raise ValueError(f"the cache folder {str(folder)!r} takes no references")
    return len(references)


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """All arrays of an .npz file. Raises ValueError where it is none, in words for its user:
    numpy's are about pickles.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError("it is no .npz file, or its end is missing")
    arrays = dict[str, np.ndarray]()
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        for name in stored.files:
            try:
                arrays[name] = stored[name]
            except ValueError:
                raise ValueError(f"{name[:60]} cannot be read as numbers or text") from None
    return arrays


def _references(arrays: dict[str, np.ndarray]) -> dict[str, Certified]:
    """The references by key. Raises ValueError for anything that pack() does not write."""
    if missing := [name for name in NAMES if name not in arrays]:
        raise ValueError(f"it has no {missing[0]}")
    if str(arrays["format"]) != FORMAT:
        raise ValueError(f"its format is {str(arrays['format'])[:60]!r}; expected {FORMAT!r}")
    keys, tiers, shapes = arrays["keys"].tolist(), arrays["tiers"].tolist(), arrays["shapes"]
    if (
        shapes.dtype != np.int64
        or shapes.shape != (len(keys), 2)
        or len(tiers) != len(keys)
        or (shapes < 0).any()
    ):
        raise ValueError("keys, tiers and shapes do not belong together")
    rows, values = arrays["rows"], [arrays[name] for name in ("hi", "lo", "radius")]
    if any(one.dtype != np.float64 or one.shape != (shapes.prod(axis=1).sum(),) for one in values):
        raise ValueError("hi, lo and radius are not as long as shapes says")
    if rows.dtype != np.int64 or rows.shape != (shapes[:, 0].sum(),):
        raise ValueError("rows is not as long as shapes says")
    hi, lo, radius = values
    if (
        np.isnan(hi).any() or not np.isfinite(lo).all()
    ):  # hi is infinite where the exact value is beyond float64
        raise ValueError("a value of hi or lo is no number")
    if not (np.isfinite(radius) & (radius >= 0)).all():
        raise ValueError("a radius is no finite number from 0 on")
    found, row, entry = dict[str, Certified](), 0, 0
    for key, tier, (count, columns) in zip(keys, tiers, shapes.tolist(), strict=True):
        if not isinstance(key, str) or not _KEY.fullmatch(key) or tier not in TIERS:
            raise ValueError(
                f"key {key!r}, tier {tier!r}: expected 40 hexadecimal digits and one of {', '.join(TIERS)}"
            )
        own, size = rows[row : row + count], count * columns
        if (np.diff(own) <= 0).any():
            raise ValueError(f"the rows of {key} are not ascending")
        hi, lo, radius = (one[entry : entry + size].reshape(count, columns) for one in values)
        found[key] = Certified(own, hi, lo, radius, tier)
        row, entry = row + count, entry + size
    return found
