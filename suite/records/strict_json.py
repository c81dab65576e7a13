"""JSON from strangers: one strict document, and the lines of a file. Whatever is wrong is a
ValueError, never a surprise.

Stricter than Python's own parser, which takes NaN, keeps the last of two equal keys and recurses as
deep as its stack.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from suite.records.regular_files import open_regular

LINE_BYTES = 2**24
"""A record is some kilobytes; a line longer than this is none."""
CHUNK_BYTES = 2**16
"""What is read of a file at once."""
UNPACKED_BYTES = 2**31
"""What a compressed file may unpack to: a million records; a few megabytes of zeros that were
packed are as long.
"""
DEPTH = 64
"""Nesting that a document may have, far above any of this suite's."""

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def parse(text: str | bytes) -> Any:
    """The value of a JSON document (RFC 8259) in UTF-8, with or without a byte order mark.

    Raises ValueError for anything else: NaN and Infinity, equal keys in one object, lone
    surrogates, more than LINE_BYTES, nesting deeper than DEPTH.
    """
    if len(text) > LINE_BYTES:
        raise ValueError(f"longer than {LINE_BYTES:,} bytes")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from None
    try:
        value = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEPTH} levels") from None
    if text.count("[") + text.count("{") > DEPTH:
        _check_depth(value)
    if (not text.isascii() or "\\u" in text) and SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a lone surrogate, which is no text") from None
    return value


def read(path: Path) -> Any:
    """The value of the JSON document in a file. Raises ValueError where there is none that parse() takes."""
    with open_regular(path) as stream:
        return parse(stream.read(LINE_BYTES + 1))


class DamagedError(ValueError):
    """A compressed file that is not what was written: nothing that it unpacks to can be trusted."""


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""The lines of a file that are not blank, numbered from 1, without "\n"; of a longer one
    LINE_BYTES + 1 bytes, which parse() refuses. Only "\n" ends a line. A file whose name ends with
    .gz is unpacked.

    Raises ValueError where there is no regular file that can be read; DamagedError, at the latest
    behind the last line, where a compressed one is torn or was changed.
    """
    with open_regular(path) as stream:
        if path.suffix != ".gz":
            yield from _lines(stream)
            return
        try:
            if os.fstat(stream.fileno()).st_size == 0:  # which gzip takes for an empty text
                raise EOFError
            yield from _lines(gzip.GzipFile(fileobj=stream), most=UNPACKED_BYTES)
        except EOFError:
            raise DamagedError(f"{str(path)!r} cannot be read: it is torn: its end is missing") from None
        except OverflowError as error:
            raise DamagedError(f"{str(path)!r} cannot be read: it unpacks to {error}") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DamagedError(
                f"{str(path)!r} cannot be read: it was changed after it was written: {error}"
            ) from None


def _lines(stream: BinaryIO | gzip.GzipFile, *, most: float = math.inf) -> Iterator[tuple[int, bytes]]:
    """What lines() yields. Raises OverflowError where there are more than `most` bytes."""
    number = size = 0
    line = bytearray()  # as much of it as the chunks before have
    while chunk := stream.read(CHUNK_BYTES):
        size += len(chunk)
        if size > most:
            raise OverflowError(f"more than {most:,} bytes")
        if not chunk.strip(b"\n") and not line.strip():
            number += len(chunk)
            line.clear()
            continue
        first, *others = chunk.split(b"\n")
        line += first[: LINE_BYTES + 1 - len(line)]
        for other in others:
            number += 1
            if line and not line.isspace():
                yield number, bytes(line)
            line = bytearray(other[: LINE_BYTES + 1])
    if line.strip():
        yield number + 1, bytes(line)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(name for name in names if names.count(name) > 1)!r:.80} stands twice in one object"
        )
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested deeper than {DEPTH} levels")
