"""`merge`: joins the run folders of shards."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from suite.commands.options import misuse, out_option
from suite.commands.output import finish, holding, print_summary, write_report


@click.command("merge")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@out_option("A new run folder.", required=True)
@click.option(
    "--unlike-environments", is_flag=True, help="Also join runs of machines or packages that differ."
)
def command(folders: tuple[Path, ...], out: Path, unlike_environments: bool) -> None:
    """Joins the run folders of shards into one, with its report, and says what overlaps and what is missing.

    Exit codes are those of run, for all records together; 1 also where something is missing or
    records contradict each other.
    """
    from suite.records.merge import join
    from suite.records.store import Store, StoreError
    from suite.run import Result, stale_in

    try:
        merged = join(folders, unlike_environments=unlike_environments)
    except (ValueError, OSError) as error:
        misuse(str(error))
    with holding(out, resume=False, resumable=False):
        try:
            result = Result(
                records=merged.records,
                environment=merged.environment,
                stale=stale_in(merged.records, merged.configuration),
            )
            with contextlib.closing(Store(out)) as store:
                merged.write(store)
        except ValueError as error:
            misuse(str(error))
        except StoreError as error:
            click.echo(str(error), err=True)
            sys.exit(4)
        for line in merged.findings:
            click.echo(line, err=True)
        if result.records:
            print_summary(result, verbose=False)
            write_report(out)
    if not merged.whole or merged.contradictions:
        sys.exit(1)
    finish(result)
