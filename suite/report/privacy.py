"""Reports are passed on: home directories, user names and host names do not stand in them unless asked.

A home directory is shown as ~: anyone's at the places where systems have them, and this machine's
own wherever it is. What a name looks like on another machine nobody knows: only this one's are
found outside of paths.
"""

from __future__ import annotations

import functools
import getpass
import os
import platform
import re

from suite.formats import DTYPES
from suite.ops import NAMES
from suite.records.record import STATUSES

SHORTEST = 3
ORDINARY = {
    *["localhost", "cpu", "cuda", "gpu", "torch", "numpy", "jax", "triton", "kernel", "suite"],
    *(*NAMES, *DTYPES, *STATUSES),
}
"""Host names that are words of every report, and so reveal nothing."""

_NAME = r"(?:[^/\\\s'\"`:;,<>()\[\]{}|]|(?<=\w)'(?=\w))+"
_WEB = r"https?://(?:(?![,;:|)\]}]/)[^\s'\"<>])+"
_UNIX = rf"(?<![\w.~\-/])(?:/+{_NAME})*?/+(?:home|Users)/+{_NAME}"
_ROOT = r"(?<![\w.~\-/])/+root(?![\w.\-])"
_WINDOWS = rf"\b[A-Za-z]:[\\/]+Users[\\/]+(?:[^\\/:*?\"<>|\r\n]{{1,64}}(?=[\\/])|{_NAME})"
_SHARE = rf"(?<![\w\\])\\{{2,4}}(?:{_NAME}\\+)+?(?:home|Users)\\+{_NAME}"


def private(text: str) -> str:
    """The text with ~ for home directories, USER for this machine's user in a path or an address,
    HOST for its name.
    """
    web_or_home, host, user = _patterns(_home(), platform.node(), _user())
    if "/" in text or "\\" in text:
        text = web_or_home.sub(
            lambda found: found[0] if found[0].startswith(("http:", "https:")) else "~", text
        )
    if user is not None:
        text = user.sub("USER", text)
    return text if host is None else host.sub("HOST", text)


@functools.cache
def _patterns(
    home: str, node: str, name: str
) -> tuple[re.Pattern[str], re.Pattern[str] | None, re.Pattern[str] | None]:
    own = rf"(?<![\w.~\-]){re.escape(home)}(?![\w.\-])|" if len(home) > SHORTEST else ""
    hosts = [part for part in dict.fromkeys((node, node.partition(".")[0])) if len(part) >= SHORTEST]
    hosts = [part for part in hosts if part.lower() not in ORDINARY]
    host = rf"(?<![\w\-])(?:{'|'.join(map(re.escape, hosts))})(?![\w\-])"
    user = rf"(?<=[/\\]){re.escape(name)}(?![\w\-]|\.\w)|(?<![\w.\-]){re.escape(name)}(?=@)"
    return (
        re.compile(f"{_WEB}|{own}{_UNIX}|{_ROOT}|{_WINDOWS}|{_SHARE}"),
        re.compile(host, re.IGNORECASE) if hosts else None,
        re.compile(user) if len(name) >= SHORTEST else None,
    )


def _home() -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 - ten times as fast as pathlib's, and asked for every text
    return "/" if home == "~" else home


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
