"""What a kernel's process prints, answer by answer: the process may be at a later call already when an answer is read.

Behind all that belongs to an answer stands a mark, written before the answer is sent.
"""

from __future__ import annotations

import os
from collections import deque

MARK = b"\x00\x1eend of what belongs to an answer\x1e\x00"
KEPT_BYTES = 8000
"""Of what belongs to one answer, its end."""


class Printed:
    """The reading end of a pipe that standard output and error of a process go to. It is never waited for."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._ended: deque[tuple[bytes, int]] = deque()
        self._kept, self._dropped = b"", 0

    def drain(self) -> bool:
        """Reads what is there; False once nobody can write any more."""
        try:
            while chunk := os.read(self._descriptor, 65536):
                *ended, rest = (self._kept + chunk).split(MARK)
                for text in ended:
                    self._keep(text)
                    self._ended.append((self._kept, self._dropped))
                    self._kept, self._dropped = b"", 0
                self._keep(rest)
        except BlockingIOError:
            return True
        return False

    def of_answer(self, *, kept_bytes: int) -> str:
        """What belongs to the answer just read, its last `kept_bytes`."""
        self.drain()
        return _text(*(self._ended.popleft() if self._ended else (b"", 0)), kept_bytes)

    def rest(self) -> str:
        """What belongs to no answer that was read: the last words of a process."""
        self.drain()
        unread = [*self._ended, (self._kept, self._dropped)]
        return _text(b"".join(text for text, _ in unread), sum(dropped for _, dropped in unread), KEPT_BYTES)

    def _keep(self, text: bytes) -> None:
        self._kept = text[-KEPT_BYTES:]
        self._dropped += len(text) - len(self._kept)


def _text(kept: bytes, dropped: int, kept_bytes: int) -> str:
    dropped += max(len(kept) - kept_bytes, 0)
    lines = kept[-kept_bytes:].decode("utf-8", "backslashreplace").splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("Extension modules:"))  # of faulthandler, kilobytes
    return f"[{dropped} bytes before this] {text}" if dropped else text
