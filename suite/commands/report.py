"""`report`: writes the report of run folders."""

from __future__ import annotations

from pathlib import Path

import click

from suite.commands.options import misuse, show_paths_option
from suite.commands.output import full


@click.command("report")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Default: report.html in the first folder."
)
@show_paths_option()
def command(folders: tuple[Path, ...], out: Path | None, show_paths: bool) -> None:
    """Writes records.csv and report.html from run folders."""
    from suite.report import FullDiskError, write_report

    try:
        click.echo(f"report: {write_report(list(folders), page=out, show_paths=show_paths)}")
    except FullDiskError as error:
        full(str(error))
    except (ValueError, OSError) as error:
        misuse(str(error))
