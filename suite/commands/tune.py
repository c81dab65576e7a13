"""`tune`: configurations of Triton's kernels for this device."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from suite.commands.options import DEVICE_TO_MEASURE, FILE, POSITIVE, misuse


@click.command("tune")
@click.option(
    "--out", type=FILE, required=True, metavar="FILE", help="Of configurations, with this device's rewritten."
)
@click.option("--device", default="cuda", show_default=True, help=DEVICE_TO_MEASURE)
@click.option("--kernels", "wanted", multiple=True, metavar="NAME", help="Only these; may be repeated.")
@click.option("--budget-seconds", type=POSITIVE, default=300.0, show_default=True, metavar="S")
def command(out: Path, device: str, wanted: tuple[str, ...], budget_seconds: float) -> None:
    """Times configurations of Triton's kernels and stores the fastest for this device.

    Exit code 1 after a fault of the device, with the kernels that are left.
    """
    from suite.kernels.parts.triton_configuration import PARAMETERS
    from suite.studies.gpu_goals import unusable
    from suite.studies.tuning import tune_all

    for name in wanted:
        if name not in PARAMETERS:
            misuse(f"--kernels {name!r} is not one of {', '.join(PARAMETERS)}")
    if reason := unusable(device):
        misuse(f"--device {device}{reason}")
    if reason := _unwritable(out):
        misuse(f"--out {str(out)!r} cannot be written: {reason}")
    try:
        whole = tune_all(
            wanted or tuple(PARAMETERS), out, device, budget_seconds=budget_seconds, say=click.echo
        )
    except (RuntimeError, ValueError, OSError) as error:
        misuse(str(error))
    sys.exit(0 if whole else 1)


def _unwritable(path: Path) -> str:
    """Why a file cannot be written or is no file of configurations; "" where it can."""
    if path.is_dir():
        return "it is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r}"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return "permission denied"
    return ""
