"""`merge`: joins the run folders of shards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from suite.commands.options import misuse, out_option
from suite.commands.output import finish, print_summary, write_report
from suite.records.configuration import Configuration, digest
from suite.records.known_failures import read, stale
from suite.records.record import Record
from suite.session import Result, default_known_failures


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

    try:
        merged = join(folders, unlike_environments=unlike_environments)
    except (ValueError, OSError) as error:
        misuse(str(error))
    with _holding(out):
        try:
            result = Result(
                records=merged.records,
                environment=merged.environment,
                stale=_stale(merged.records, merged.configuration),
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


@contextlib.contextmanager
def _holding(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a new run folder until its report is written; misuse where one is
    in it, or was.
    """
    from suite.records.store import held, refuse_records

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(folder))
            refuse_records(folder, resumable=False)
        except ValueError as error:
            misuse(str(error))
        except OSError as error:
            misuse(f"--out {str(folder)!r} cannot be made: {error.strerror}")
        yield


def _stale(records: Sequence[Record], configuration: Configuration) -> tuple[str, ...]:
    """The known failures that passed in the records of a whole run, which may have been made elsewhere.

    Raises ValueError where a list that the run had is not here.
    """
    asked = configuration.asked
    files, patterns = asked.get("known-failures"), asked.get("case")
    if not isinstance(files, dict) or not isinstance(patterns, list):
        raise ValueError("run.json does not say which known failures and cases were asked for")
    if asked.get("strict"):
        return ()
    entries = default_known_failures()
    for path, digest_then in files.items():
        if not Path(path).is_file() or digest(Path(path).read_bytes()) != digest_then:
            raise ValueError(f"known-failures file {path!r} is not here as it was when the runs were made")
        entries += read(Path(path))
    ran = {record.kernel for record in records}
    entries = [entry for entry in entries if entry.kernel in ran]
    # That an entry matches an existing case, each shard has checked: here every entry's own pattern
    # stands for one.
    existing = [record.case for record in records] + [entry.case for entry in entries]
    return tuple(stale(entries, records, existing, narrowed=bool(patterns)))
