"""`publish`: copies runs into the published ones and writes their pages."""

from __future__ import annotations

from pathlib import Path

import click

from suite.commands.options import misuse, show_paths_option
from suite.commands.output import full


@click.command("publish")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN]...")
@click.option(
    "--reports",
    type=click.Path(path_type=Path, file_okay=False),
    default="reports",
    show_default=True,
    metavar="DIR",
)
@click.option("--name", metavar="NAME", help="Of the published run. Default: its day and profile.")
@click.option("--replace", is_flag=True, help="Put it in the place of another published run of that name.")
@show_paths_option()
def command(
    folders: tuple[Path, ...], reports: Path, name: str | None, replace: bool, show_paths: bool
) -> None:
    """Copies runs of one environment, as one run, to reports/<machine>/<name>/, and writes the
    pages of all published runs.

    Without RUN it writes the pages alone.
    """
    from suite.records.store import FULL
    from suite.report import publish as publishing

    if not folders and (name is not None or replace or show_paths):
        misuse("--name, --replace and --show-paths are of a run that is published; name one")
    try:
        if folders:
            folder = publishing.publish(
                folders, reports=reports, name=name, replace=replace, show_paths=show_paths
            )
            click.echo(f"published: {folder}")
        for path in publishing.write_pages(reports):
            click.echo(f"written: {path}")
    except ValueError as error:
        misuse(str(error))
    except OSError as error:
        if error.errno not in FULL:
            misuse(str(error))
        full(str(error))
