"""The command `softmax-suite`, also `python -m suite`.

Exit codes: 0 passed, known_failure or unsupported; 1 any other status, or a known failure that
passed; 2 misuse; 3 nothing judged; 4 internal error, or a full disk; 130 interrupted, report
written. A module of this package is a command and is imported when the command is named; heavy
imports happen inside it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from suite.commands.options import misuse
from suite.version import __version__

COMMANDS = (
    "bench",
    "check",
    "claims",
    "compare",
    "doctor",
    "gpu-goals",
    "gpu-run",
    "judge",
    "list",
    "merge",
    "publish",
    "references",
    "report",
    "reproduce",
    "run",
    "schema",
    "tolerance",
    "tune",
)
"""Each is a module of this package, with `command` in it."""


class Commands(click.Group):
    """Imports the module of a command when the command is named."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"suite.commands.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="softmax-suite")
def cli() -> None:
    """Tells the truth about softmax kernels, against certified references, by proved bounds.

    \b
    softmax-suite check --op softmax --kernel my.py:f    judge your kernel
    softmax-suite run                                    run everything, write a report
    softmax-suite judge --op softmax --tensors dump.npz  judge saved tensors
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: as cli(), but an unexpected error ends with exit code 4 and one line,
    never a traceback.
    """
    given = list(arguments) if arguments is not None else None
    try:
        for word in given or ():
            if "\0" in word:
                misuse(f"{word!r} has a NUL character in it")
        code = cli.main(args=given, prog_name="softmax-suite", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        click.echo(f"internal error: {type(error).__name__}: {error}", err=True)
        sys.exit(4)
    sys.exit(code if isinstance(code, int) else 0)
