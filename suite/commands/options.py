"""The options that several commands share, and what a wrong one ends in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from suite.case import DIRECTIONS, PROFILES
from suite.execution.isolation import ISOLATE, MOST_THREADS, TIMEOUT_SECONDS
from suite.formats import DTYPES
from suite.ops import NAMES
from suite.records.store import StoreError
from suite.session import MisuseError, Request, Session

RUNS = Path("runs")
"""Where run folders are, unless --out names another place."""

F = TypeVar("F", bound=Callable[..., Any])


def misuse(text: str) -> NoReturn:
    """Ends the command with this message and exit code 2."""
    raise click.UsageError(text)


def parse_sizes(option: str, text: str, separator: str, example: str) -> tuple[int, ...]:
    """The sizes in the text of an option; misuse where it has others."""
    parts = text.split(separator)
    if not all(part.isascii() and part.isdigit() and 0 < len(part) < 10 and int(part) > 0 for part in parts):
        misuse(f"{option} {text!r} must be sizes joined by {separator!r}, as {example}")
    return tuple(int(part) for part in parts)


class _Positive(click.FloatRange):
    """A number above 0 and up to a thousand million: NaN is none."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True, max=1e9)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        number = super().convert(value, param, context)
        if number != number:
            self.fail(f"{value!r} is not a number above 0", param, context)
        return float(number)


POSITIVE = _Positive()
DEVICE_TO_MEASURE = "cuda, cuda:1, ...; on cpu everything is small."
FILE = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)


def ops_option(help: str = "Only this op; may be repeated.") -> Callable[[F], F]:
    return click.option("--op", "ops", multiple=True, type=click.Choice(NAMES), help=help)


def kernels_option(
    help: str = "NAME, FILE.py:FUNC or pkg.mod:FUNC. Default: all own.", *, required: bool = False
) -> Callable[[F], F]:
    return click.option("--kernel", "kernels", multiple=True, required=required, metavar="K", help=help)


def dtypes_option(help: str = "Only this dtype; repeatable.") -> Callable[[F], F]:
    return click.option("--dtype", "dtypes", multiple=True, type=click.Choice(DTYPES), help=help)


def direction_option(help: str | None = None) -> Callable[[F], F]:
    kind = click.Choice((*DIRECTIONS, "both"))
    return click.option("--direction", type=kind, default="forward", show_default=True, help=help)


def device_option(help: str = "Device of the inputs: cpu, cuda, cuda:1, ...") -> Callable[[F], F]:
    return click.option("--device", default="cpu", show_default=True, help=help)


def profile_option(
    default: str, help: str = "How much to run.", *, choices: Sequence[str] = PROFILES
) -> Callable[[F], F]:
    kind = click.Choice(choices)
    return click.option("--profile", type=kind, default=default, show_default=True, help=help)


def threads_option(help: str) -> Callable[[F], F]:
    kind = click.IntRange(1, MOST_THREADS)
    return click.option("--threads", type=kind, default=1, show_default=True, help=help)


def out_option(help: str, *, required: bool = False) -> Callable[[F], F]:
    return click.option("--out", type=FOLDER, required=required, metavar="DIR", help=help)


def json_option(help: str | None = None) -> Callable[[F], F]:
    return click.option("--json", "json_file", type=FILE, metavar="FILE", help=help)


def op_options_option(help: str = "") -> Callable[[F], F]:
    help += "An option of the op, such as reduction=none; repeatable."
    return click.option("--option", "settings", multiple=True, metavar="NAME=VALUE", help=help)


def case_option() -> Callable[[F], F]:
    help = "Only cases whose id matches."
    return click.option("--case", "patterns", multiple=True, metavar="PATTERN", help=help)


def show_paths_option() -> Callable[[F], F]:
    help = "Leave home folders, user and host names as they are; else ~ and HOST."
    return click.option("--show-paths", is_flag=True, help=help)


def selection(function: F) -> F:
    """The options that select what runs; shared by run and check."""
    for option in reversed(
        [
            ops_option(),
            dtypes_option(),
            device_option(),
            direction_option("Cases of the forward, of the backward (autograd's gradients), or of both."),
            case_option(),
            click.option(
                "--isolate",
                type=click.Choice(ISOLATE),
                default="outside",
                show_default=True,
                help="Which kernels run in a process of their own.",
            ),
            click.option(
                "--timeout",
                type=POSITIVE,
                default=TIMEOUT_SECONDS,
                metavar="S",
                help="Per case, where isolated.",
            ),
            click.option(
                "--memory", type=POSITIVE, metavar="GIB", help="Memory, where isolated. Default: half of it."
            ),
            click.option(
                "--strict", is_flag=True, help="Ignore what kernels declare; judge by best practice."
            ),
            click.option("--known-failures", "known_failures", multiple=True, type=FILE, metavar="FILE"),
            json_option("Write records here."),
            click.option(
                "--resume",
                is_flag=True,
                help="Go on with the run in --out: what it has recorded is not run again.",
            ),
            click.option(
                "--shard",
                default="1/1",
                metavar="I/N",
                help="Only part I of N of the cases; merge joins the parts.",
            ),
            threads_option("Of torch, for kernels."),
        ]
    ):
        function = option(function)
    return function


@contextlib.contextmanager
def opened(*, ops: Sequence[str], dtypes: Sequence[str] = (), **asked: Any) -> Iterator[Session]:
    """The session of what the options ask; empty ops or dtypes are all.

    Misuse ends the command with 2, a run folder that cannot be written with 4.
    """
    for name, values in (("kernel", asked["kernels"]), ("case", asked.get("patterns", ()))):
        if "--" in values:
            misuse(f"--{name} '--' names nothing")
    try:
        request = Request(
            ops=tuple(dict.fromkeys(ops)) or NAMES, dtypes=tuple(dict.fromkeys(dtypes)) or DTYPES, **asked
        )
        with Session(request) as session:
            yield session
    except MisuseError as error:
        misuse(str(error))
    except StoreError as error:
        click.echo(str(error), err=True)
        sys.exit(4)
