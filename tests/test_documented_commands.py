"""Every command that README.md and docs/ print in a block is run as it is printed, made small.

What a page shows is read from the page: `softmax-suite` and pytest lines of its blocks, in order, in one
folder. Placeholders (RUN, BASE, FILE, my.py:f) are names of things in that folder; parts in [brackets] are
run with and without. `make` is for .ci/run, which runs every target that a page names but make gpu.
"""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4,}\S.*\n)+", re.MULTILINE)
PUBLISHED = Path("reports/cpu-amd-epyc/2026-11-21-quick")

PARSED = {
    "softmax-suite bench --device cuda": "needs a GPU",
    "softmax-suite gpu-run --out DIR --references references.npz": "needs a GPU (test_gpu_run.py: CPU)",
    "softmax-suite tune --device cuda --out configurations.json": "needs a GPU (test_tune.py: CPU)",
    "softmax-suite claims": "half a minute; .ci/run runs it, as make claims",
    "softmax-suite claims --json claims.json": "half a minute",
    "softmax-suite claims --exhaustive --claim torch-log": "minutes",
}
"""Commands whose words are parsed and no more, with the reason."""

SMALL = {
    "run": ["--profile=smoke", "--no-measure", "--dtype=float32"],
    "check": ["--profile=smoke"],
    "bench": ["--profile=smoke", "--dtype=float32"],
    "references": ["--profile=smoke", "--kernel=shifted", "--op=softmax", "--dtype=float64"],
}
"""Words that are added to a command, so that it takes a second."""

SMALLER = {"4096x4096": "64x64", "1024,4096": "16,32", "SECONDS": "60", "GIB": "4", "...": ""}
"""Texts of printed commands that are replaced: sizes by small ones, placeholders of numbers by numbers."""

ONE = ["--op=softmax", "--kernel=shifted"]
"""Added to `run` and `bench` where the page names no op and no kernel."""

FIRST = {"softmax-suite merge one two three --out all": [
    "softmax-suite run --shard 2/3 --out two", "softmax-suite run --shard 3/3 --out three",
]}  # fmt: skip
"""Commands that a page leaves to the reader."""

KERNEL = """
from suite.kernels import own_kernels

f = own_kernels("{op}")["shifted"].call
"""


def commands_of(page: Path) -> list[str]:
    """The command lines of the page's blocks, without what is said beside them."""
    text = page.read_text(encoding="utf-8")
    blocks = [*FENCED.findall(text), *INDENTED.findall(FENCED.sub("", text))]
    lines = [re.split(r" {2,}", line.strip())[0] for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(softmax-suite|pytest|python3? -m) ", line)]


def with_and_without_brackets(command: str) -> list[str]:
    """The command with the first alternative of its [optional parts], and without them."""
    without = re.sub(r" \[[^]]*\]", "", command)
    whole = re.sub(r"\|[\w|]+", "", command.replace("[", "").replace("]", ""))
    return list(dict.fromkeys([whole, without]))


def words_of(command: str) -> list[str]:
    """The words of a command, made small."""
    for text, small in SMALLER.items():
        command = command.replace(text, small)
    words = shlex.split(command)
    if command.startswith("softmax-suite"):
        words += [] if "--load" in words else SMALL.get(words[1], [])
        if words[1] in ("run", "bench") and "--op" not in words and "--kernel" not in words:
            words += ONE
        elif words[1] in ("run", "bench") and "--op" not in words:
            words += ONE[:1]
    return words


@pytest.fixture(scope="session")
def cli():
    """The command, as pyproject.toml names it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, _ = project["project"]["scripts"]["softmax-suite"].partition(":")
    return importlib.import_module(module).cli


@pytest.fixture(scope="session")
def finished(cli, tmp_path_factory):
    """A run folder."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = CliRunner().invoke(cli, ["run", *SMALL["run"], *ONE, f"--out={folder}"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """The folder that commands run in, with what placeholders name. Its cache, where bench has its
    lock, is this worker's own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTMAX_SUITE_CACHE", str(finished.parent / "cache"))
    for name in ("RUN", "BASE", "NEW", "runs/mine"):
        shutil.copytree(finished, tmp_path / name)
    shutil.copytree(ROOT / PUBLISHED, tmp_path / PUBLISHED)
    return tmp_path


def prepare(place: Path, words: list[str]) -> None:
    """The kernel and the tensors that the command means, and room for what it makes."""
    op = "attention" if "attention" in words else "softmax"
    (place / "my.py").write_text(KERNEL.format(op=op))
    x = np.linspace(-3, 3, 48, dtype=np.float32).reshape(4, 12)
    np.savez(place / "dump.npz", x=x)
    if "publish" in words:  # a second one of the same day would need a name
        shutil.rmtree(place / "reports")
        shutil.copytree(ROOT / PUBLISHED, place / PUBLISHED)
    if "--out" in words and "--resume" not in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)


def run(command: str, cli, place: Path) -> None:
    words = words_of(command)
    prepare(place, words)
    if words[0] == "softmax-suite":
        result = CliRunner().invoke(cli, words[1:])
        code, output = result.exit_code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    else:
        words = [sys.executable, "-m", *words] if words[0] == "pytest" else [sys.executable, *words[1:]]
        words = [
            found for word in words for found in ([*map(str, ROOT.glob(word))] if "*" in word else [word])
        ]
        storage = [f"--benchmark-storage=file://{place}", f"--rootdir={ROOT}", f"--confcutdir={ROOT}"]
        narrow = ["--op=softmax", "--kernel=fused", "--dtype=float32", "--profile=smoke"]
        done = subprocess.run(
            [*words, *storage, *narrow],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        code, output = done.returncode, done.stdout + done.stderr
    assert code == 0, f"{shlex.join(words)}: exit code {code}\n{output}"
    assert "Traceback" not in output


@pytest.mark.share(of=4)
@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_as_they_are_printed(page, cli, place, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # bench's times do not count here
    for printed in commands_of(page):
        for command in with_and_without_brackets(printed):
            if command in PARSED:
                name, *words = shlex.split(command)[1:]
                cli.get_command(click.Context(cli), name).make_context(name, words).close()
                continue
            for before in FIRST.get(command, []):
                run(before, cli, place)
            run(command, cli, place)


def test_what_is_only_parsed_is_printed_somewhere():
    printed = {
        command for page in PAGES for line in commands_of(page) for command in with_and_without_brackets(line)
    }

    assert printed >= {*PARSED, *FIRST}


def test_the_targets_of_make_that_pages_name_are_run_by_ci():
    ci, makefile = (ROOT / ".ci/run").read_text(), (ROOT / "Makefile").read_text()
    run_by_ci = set(re.findall(r"[a-z-]+", " ".join(re.findall(r"^step make (.*)", ci, re.MULTILINE))))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    parts = set(re.search(r"^check: (.*)", makefile, re.MULTILINE).group(1).split())

    assert named - {"gpu"} - ({"check"} if parts <= run_by_ci else set()) <= run_by_ci


FORGETS_THE_LAST_OF_EACH_TILE = """
import torch


def f(x, dim=-1):
    rows = x.movedim(dim, -1).float()
    e = torch.exp(rows - rows.amax(-1, keepdim=True))
    kept = torch.arange(e.shape[-1]) % 128 != 127
    y = e / torch.where(kept, e, 0.0).sum(-1, keepdim=True)
    return y.to(x.dtype).movedim(-1, dim)
"""


def test_the_failure_that_the_readme_shows_is_what_check_prints(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_softmax.py").write_text(FORGETS_THE_LAST_OF_EACH_TILE)
    [shown] = [
        block
        for block in FENCED.findall((ROOT / "README.md").read_text())
        if "my_softmax.py:f  inaccurate" in block
    ]
    command = next(line for line in shown.splitlines() if "reproduce" in line).split("softmax-suite ")[1]

    result = CliRunner().invoke(cli, shlex.split(command))

    assert result.exit_code == 1
    assert shown.strip() in result.output
