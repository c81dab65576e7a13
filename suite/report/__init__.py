"""Reports: records in; CSV, HTML and terminal text out. Nothing here imports torch."""

from __future__ import annotations

import sys
from pathlib import Path

from suite.records.configuration import read_configuration
from suite.records.store import FULL, Run, read_run


class FullDiskError(ValueError):
    """A disk that does not take the report; what was recorded is whole."""


def write_report(folders: list[Path], *, page: Path | None = None, show_paths: bool = False) -> Path:
    """Writes records.csv and report.html from these run folders, into the first one unless `page`
    names the HTML file.

    show_paths: leave home directories, user and host names in them; else they stand there as ~,
    USER and HOST. A run with fewer records than planned is said to be so, first on the page and on
    standard error. Returns the page's path. Raises FullDiskError where a disk is full, any other
    ValueError where a folder is no run or the page cannot be written.
    """
    from suite.report.csv import write_csv
    from suite.report.html import render
    from suite.report.presentable import unnamed
    from suite.report.visible import visible

    runs = [read_run(folder) for folder in folders]
    incomplete = [line for run in runs if (line := _incomplete(run, named=len(runs) > 1))]
    target = page or folders[0] / "report.html"
    try:
        records = (record for run in runs for record in run.records)
        write_csv(records if show_paths else unnamed(records), target.with_name("records.csv"))
        page_text = render(runs, show_paths=show_paths, incomplete=incomplete)
        target.write_text(page_text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        kind = FullDiskError if error.errno in FULL else ValueError
        raise kind(f"{str(target)!r} cannot be written: {error.strerror}") from None
    for line in incomplete:
        print(visible(line, lines=False), file=sys.stderr)
    return target


def _incomplete(run: Run, *, named: bool) -> str:
    """A sentence where the run has fewer records than it planned; nothing where it has them all, or
    does not say.
    """
    try:
        planned = read_configuration(run.folder).planned
    except ValueError:
        return ""
    if len(run.records) >= planned:
        return ""
    whose = f" of run {run.folder.name}" if named else ""
    return (
        f"Incomplete: {len(run.records):,} of {planned:,} planned evaluations{whose} are recorded; "
        "go on with the same command and --resume."
    )
