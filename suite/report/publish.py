"""Publishing: a run is copied into reports/<machine>/<run>/, anonymous and packed, and the pages
about all of them are written.

What is published is a run folder like any other: `compare`, `report` and `merge` read it.
docs/publishing.md says how a run to be published is made.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from suite.records.configuration import FILE, Configuration, read_configuration, unlike_facts
from suite.records.record import Measurement, Record
from suite.records.store import Run, latest, refuse_twice
from suite.report.advice import versions_of
from suite.report.compare_runs import read_runs
from suite.report.html import render
from suite.report.presentable import changed, mapped
from suite.report.privacy import private
from suite.report.published import (
    BEGIN,
    FOLDER,
    index_page,
    index_table,
    read_published,
    readme_table,
    with_table,
)

NOISE = re.compile(r"\((?:r|tm|c)\)|@.*|\b(?:cpu|processor|\d+-core)\b", re.IGNORECASE | re.ASCII)
"""What makers put around the name of a model."""


def publish(
    folders: Sequence[Path],
    *,
    reports: Path,
    name: str | None = None,
    replace: bool = False,
    show_paths: bool = False,
) -> Path:
    """Copies a run, or several of one environment as one, to reports/<machine>/<name>/, and returns
    that folder.

    name: of the folder; by default the day on which the run began, with its profile. replace: also
    where another published run has that name. show_paths: leave home directories, user and host
    names in every file. The pages are write_pages()'s. Raises ValueError where a folder is no whole
    run, the runs do not belong together, or the name is taken or none.
    """
    if name is not None and not FOLDER.fullmatch(name):
        raise ValueError(
            f"--name {name!r:.80} must be letters, digits, '.', '_' and '-', such as 2026-11-21-quick"
        )
    refuse_twice(folders)
    runs = read_runs(folders)
    configurations = [read_configuration(run.folder) for run in runs if (run.folder / FILE).exists()]
    _refuse_incomplete(runs)
    _refuse_unlike(runs)
    _refuse_two_versions(runs)
    _refuse_contradictions(runs)
    keep: Callable[[str], str] = str if show_paths else private
    environment = mapped(
        {fact: value for run in reversed(runs) for fact, value in run.environment.items()}, keep, None
    )
    records = sorted(latest(r for run in runs for r in run.records), key=lambda r: r.started)
    measurements = [m for run in runs for m in run.measurements]
    configuration = configurations[0] if len(configurations) == 1 else None
    _refuse_one_name([*records, *measurements], keep)
    target = reports / machine_slug(environment) / (name or _default_name(records, configuration))
    _refuse_taken(target, replace=replace)
    reports.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publishing-", dir=reports) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        _write_json(folder / "env.json", environment)
        if configuration is not None:
            _write_json(folder / FILE, _anonymous(configuration, keep).to_dict())
        _write_lines(folder / "records-1.jsonl.gz", (r.to_json() for r in _kept(records, keep)))
        _write_lines(folder / "measurements-1.jsonl.gz", (m.to_json() for m in _kept(measurements, keep)))
        [copy] = read_runs([folder])
        page = render([copy], show_paths=show_paths)
        (folder / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        folder.rename(target)
    return target


def write_pages(reports: Path) -> list[Path]:
    """Writes what pages() says and returns the paths. Raises ValueError as it does."""
    found = pages(reports)
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
    return list(found)


def pages(reports: Path) -> dict[Path, str]:
    """The text of each page that is made of the published runs: index.html and README.md in their
    folder and, where a README.md beside that folder has the markers, that with its table.

    Raises ValueError, naming the folder, for a published run that cannot be read, or for markers
    that are no pair.
    """
    published = read_published(reports)
    found = {reports / "index.html": index_page(published), reports / "README.md": index_table(published)}
    readme = reports.resolve().parent / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN in text:
        found[readme] = with_table(text, readme_table(published))
    return found


def machine_slug(environment: Mapping[str, Any]) -> str:
    """The folder of a machine's runs: kind, maker and model of its device, such as cpu-amd-epyc and
    cuda-nvidia-h200.

    Raises ValueError where env.json has no such thing.
    """
    kind, model = environment.get("device"), environment.get("gpu") or environment.get("cpu")
    if not (isinstance(kind, str) and isinstance(model, str)) or not (named := _words(NOISE.sub(" ", model))):
        raise ValueError("env.json names no device and model, of which a published run's folder has its name")
    return "-".join([*_words(kind.partition(":")[0]), *named])[:80]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower(), re.ASCII)


def _default_name(records: Sequence[Record], configuration: Configuration | None) -> str:
    day = next((r.started[:10] for r in records if r.started), "")
    profile = str(configuration.asked.get("profile", "")) if configuration is not None else "bench"
    name = f"{day}-{profile}"
    if not re.match(r"\d{4}-\d\d-\d\d-.", name) or not FOLDER.fullmatch(name):
        raise ValueError("the run does not say when it began, or by which profile; give it a --name")
    return name


def _anonymous(configuration: Configuration, keep: Callable[[str], str]) -> Configuration:
    return replace(
        configuration,
        asked=mapped(configuration.asked, keep, None),
        kernels=mapped(configuration.kernels, keep, None),
    )


def _kept(rows: Iterable[Any], keep: Callable[[str], str]) -> Iterator[Any]:
    """The records or measurements with every text as it may be passed on; most texts stand in many
    of them.
    """
    known: dict[str, str] = {}

    def change(text: str) -> str:
        if text not in known:
            known[text] = keep(text)
        return known[text]

    return (changed(row, change, items=None) for row in rows)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Packs lines, if there are any; equal lines give equal bytes."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        packed = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=9, mtime=0) as stream:
            stream.write(text.encode())
        path.write_bytes(packed.getvalue())


def _refuse_one_name(rows: Iterable[Record | Measurement], keep: Callable[[str], str]) -> None:
    """What names an evaluation must stay apart from all others: two kernels would become one."""
    named: dict[str, str] = {}
    for text in dict.fromkeys(
        text for row in rows for text in (row.kernel, row.case, row.op, row.dtype, row.device)
    ):
        if (other := named.setdefault(keep(text), text)) != text:
            raise ValueError(
                f"{other} and {text} have one name without private paths, {keep(text)}; "
                "run them from other folders, or publish with --show-paths"
            )


def _refuse_incomplete(runs: Sequence[Run]) -> None:
    for run in runs:
        planned = read_configuration(run.folder).planned if (run.folder / FILE).exists() else 0
        if len(run.records) < planned:
            had = f"{str(run.folder)!r} has {len(run.records):,} of {planned:,} planned evaluations"
            raise ValueError(f"{had}; go on with it by --resume")


def _refuse_unlike(runs: Sequence[Run]) -> None:
    first, found = runs[0], list[str]()
    for run in runs[1:]:
        ids = [one.environment.get("env_id") for one in (first, run)]
        if not ids[0] or ids[0] != ids[1]:
            names = (f"in {first.folder}", f"in {run.folder}")
            found += unlike_facts(first.environment, run.environment, names=names) or [
                f"env_id: {ids[0]} and {ids[1]}"
            ]
    if found:
        raise ValueError("\n  ".join(["these ran in unlike environments; publish them one by one:", *found]))


def _refuse_two_versions(runs: Sequence[Run]) -> None:
    """Of a kernel that was changed between the runs, the verdicts of one version would stand beside
    the speed of the other.
    """
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for run in runs:
        for key, versions in versions_of(run.records).items():
            for version in sorted(versions):
                found.setdefault(key, {}).setdefault(version, run.folder)
    mixed = [
        f"{op} {kernel}: {', '.join(f'{version} in {folder}' for version, folder in versions.items())}"
        for (op, kernel), versions in found.items()
        if len(versions) > 1
    ]
    if mixed:
        raise ValueError(
            "\n  ".join(
                ["these kernels have two versions; run the newer one again, or publish one by one:", *mixed]
            )
        )


def _refuse_contradictions(runs: Sequence[Run]) -> None:
    seen: dict[str, Record] = {}
    for run in runs:
        for record in run.records:
            other = seen.setdefault(record.id, record)
            if (other.status, other.broken) != (record.status, record.broken):
                raise ValueError(
                    f"these contradict each other; publish them under two names: {record.case} {record.dtype}"
                    f" {record.kernel} is {other.status} in one of them and {record.status} in the other"
                )


def _refuse_taken(target: Path, *, replace: bool) -> None:
    if not target.exists():
        return
    if not replace:
        raise ValueError(
            f"{str(target)!r} is there; --replace puts this run in its place, --name gives another"
        )
    if not (target / "env.json").is_file():
        raise ValueError(f"{str(target)!r} is no published run: it has no env.json; nothing was replaced")
