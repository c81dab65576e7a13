"""`references`: the costly references of a selection, in a file that travels."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from suite.case import DIRECTIONS, PROFILES
from suite.commands.options import (
    case_option,
    dtypes_option,
    kernels_option,
    misuse,
    opened,
    ops_option,
)
from suite.commands.output import finish
from suite.commands.progress import ShownProgress


@click.command("references")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Make references, for elsewhere.",
)
@click.option(
    "--load",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Put those of a file in place.",
)
@ops_option()
@kernels_option()
@dtypes_option()
@click.option("--profile", type=click.Choice(PROFILES), help="How much. Default: smoke.")
@click.option("--direction", type=click.Choice((*DIRECTIONS, "both")), help="Default: forward.")
@case_option()
def command(
    out: Path | None,
    load: Path | None,
    kernels: tuple[str, ...],
    profile: str | None,
    direction: str | None,
    **selected: Any,
) -> None:
    """Makes a file of the costly references that a run of a selection needs, or loads one where
    such a run will be.

    Makes them by running the selection here, on the CPU: its kernels' verdicts do not matter. bench
    needs none of them.
    """
    from suite.oracle import bundle
    from suite.oracle.cache import default_folder

    if (out is None) == (load is None):
        misuse("--out FILE makes a file of references, --load FILE reads one; give one of them")
    if load is not None:
        if kernels or profile or direction or any(selected.values()):
            misuse("--load takes no selection: it loads all that the file has")
        try:
            count = bundle.unpack(load, default_folder())
        except OSError as error:
            misuse(f"--load {str(load)!r}: {error.strerror}")
        except ValueError as error:
            misuse(str(error))
        click.echo(f"{count} references loaded into {default_folder()}")
        return
    assert out is not None
    if not out.absolute().parent.is_dir():
        misuse(f"{str(out)!r} cannot be written: there is no such folder")
    with _empty_cache() as folder:
        with opened(
            kernels=kernels, profile=profile or "smoke", direction=direction or "forward", **selected
        ) as session:
            result = session.run(ShownProgress(sys.stderr))
        if result.exit_code not in (0, 1):
            finish(result)
        try:
            count = bundle.pack(folder, out)
        except OSError as error:
            misuse(f"{str(out)!r} cannot be written: {error.strerror}")
    click.echo(f"{out}: {count} references, {out.stat().st_size / 2**20:.1f} MiB")


@contextlib.contextmanager
def _empty_cache() -> Iterator[Path]:
    """A cache folder of its own in the place of the user's: what is in it at the end is what was needed."""
    before = os.environ.get("SOFTMAX_SUITE_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTMAX_SUITE_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["SOFTMAX_SUITE_CACHE"]
            if before is not None:
                os.environ["SOFTMAX_SUITE_CACHE"] = before
