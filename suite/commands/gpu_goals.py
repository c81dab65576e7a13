"""`gpu-goals`: our timer and kernels beside their goals."""

from __future__ import annotations

from pathlib import Path

import click

from suite.commands.options import DEVICE_TO_MEASURE, FILE, misuse


@click.command("gpu-goals")
@click.argument("stage", type=click.Choice(["facts", "timers", "goals"]))
@click.option("--device", default="cuda", show_default=True, help=DEVICE_TO_MEASURE)
@click.option("--out", type=FILE, required=True, metavar="FILE", help="Where the rows go, as JSON.")
def command(stage: str, device: str, out: Path) -> None:
    """Measures one stage of a GPU run: the machine, our timer beside another, or our kernels beside
    their goals.
    """
    from suite.studies.gpu_goals import unusable, write_rows

    if reason := unusable(device):
        misuse(f"--device {device}{reason}")
    try:
        write_rows(stage, device, out, say=click.echo)
    except OSError as error:
        misuse(f"--out {str(out)!r} cannot be written: {error.strerror}")
