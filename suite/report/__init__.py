"""Reports: records in; CSV, HTML and terminal text out. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from suite.store import read_run


def write_report(folders: list[Path], *, page: Path | None = None, show_paths: bool = False) -> Path:
    """Writes records.csv and report.html from these run folders, into the first one unless `page` names the HTML file.

    show_paths: leave home directories, user and host names in them; else they stand there as ~, USER and HOST.
    Returns the page's path. Raises ValueError where a folder is no run or the page cannot be written.
    """
    from suite.report.csv import write_csv
    from suite.report.html import render
    from suite.report.presentable import unnamed

    runs = [read_run(folder) for folder in folders]
    target = page or folders[0] / "report.html"
    try:
        records = (record for run in runs for record in run.records)
        write_csv(records if show_paths else unnamed(records), target.with_name("records.csv"))
        target.write_text(render(runs, show_paths=show_paths), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ValueError(f"{str(target)!r} cannot be written: {error.strerror}") from None
    return target
