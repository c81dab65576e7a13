"""What a kernel's process prints, answer by answer: the process may be at a later call already when
an answer is read.

A thread reads it as it comes: a pipe holds some kilobytes, and a kernel that prints more would wait
for the suite, which may be computing a reference, at the expense of its own time. Behind all that
belongs to an answer stands a mark, written before the answer is sent.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections import deque

MARK = b"\x00\x1eend of what belongs to an answer\x1e\x00"
KEPT_BYTES = 8000
"""Of what belongs to one answer, its end."""
_CHUNKS = 64
"""Of 64 KiB, in one go: more than a pipe holds, so what had been written before is among them, and
an end to any flood.
"""


class Printed:
    """The reading end of a pipe that standard output and error of a process go to. It is never waited for."""

    def __init__(self, descriptor: int) -> None:
        # Its own: the number of one that was closed is soon somebody else's.
        self._descriptor = os.dup(descriptor)
        os.set_blocking(self._descriptor, False)
        self._ended: deque[tuple[bytes, int]] = deque()
        self._kept, self._dropped = b"", 0
        self._lock = threading.Lock()
        self._closing, self._close = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Ends the thread. The descriptor that was given is its owner's to close."""
        os.close(self._close)
        self._reader.join()
        os.close(self._closing)
        os.close(self._descriptor)

    def _read(self) -> None:
        # Ctrl-C is for the main thread, which waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._closing, select.POLLIN)
        while self._closing not in (descriptor for descriptor, _ in poll.poll()):
            if not self.drain():
                return

    def drain(self) -> bool:
        """Reads what is there; False once nobody can write any more."""
        with self._lock:
            try:
                for _ in range(_CHUNKS):
                    chunk = os.read(self._descriptor, 65536)
                    if not chunk:
                        return False
                    self._take(chunk)
            except BlockingIOError:
                pass
        return True

    def _take(self, chunk: bytes) -> None:
        *ended, rest = (self._kept + chunk).split(MARK)
        for text in ended:
            self._keep(text)
            self._ended.append((self._kept, self._dropped))
            self._kept, self._dropped = b"", 0
        self._keep(rest)

    def of_answer(self, *, kept_bytes: int) -> str:
        """What belongs to the answer just read, its last `kept_bytes`."""
        self.drain()
        return _text(*(self._ended.popleft() if self._ended else (b"", 0)), kept_bytes)

    def rest(self) -> str:
        """What belongs to no answer that was read: the last words of a process."""
        self.drain()
        with self._lock:
            unread = [*self._ended, (self._kept, self._dropped)]
        return _text(b"".join(text for text, _ in unread), sum(dropped for _, dropped in unread), KEPT_BYTES)

    def _keep(self, text: bytes) -> None:
        self._kept = text[-KEPT_BYTES:]
        self._dropped += len(text) - len(self._kept)


def _text(kept: bytes, dropped: int, kept_bytes: int) -> str:
    dropped += max(len(kept) - kept_bytes, 0)
    lines = kept[-kept_bytes:].decode("utf-8", "backslashreplace").splitlines(keepends=True)
    # Of faulthandler, kilobytes.
    text = "".join(line for line in lines if not line.startswith("Extension modules:"))
    return f"[{dropped} bytes before this] {text}" if dropped else text
