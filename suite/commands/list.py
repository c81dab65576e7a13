"""`list`: what there is. Only its cases and kernels look at source files, and nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click

from suite.case import PROFILES, CaseError
from suite.commands.options import misuse
from suite.records import strict_json
from suite.selection import case_specifications

REPORTS = Path(__file__).parent.parent.parent / "reports"
"""The published runs of a checkout."""


def ops() -> Iterator[str]:
    from suite.ops import NAMES, get_op

    for name in NAMES:
        yield f"{name:<14}{get_op(name).summary}"


def kernels() -> Iterator[str]:
    from suite.kernels import kernel_names
    from suite.ops import NAMES

    for op in NAMES:
        yield f"{op:<14}{', '.join(kernel_names(op))}"


def inputs() -> Iterator[str]:
    """The families of every op, and the kinds of what else its cases may hold."""
    from suite.inputs.upstream import UPSTREAM
    from suite.ops import NAMES, get_op
    from suite.settings import Part

    found = [get_op(name) for name in NAMES]
    sections = {f"families of {op.inputs.owner}": op.inputs.families() for op in found}
    for op in found:
        for setting in op.settings:
            if setting.part is Part.TENSOR:
                sections[f"{op.name}, {setting.name}="] = {
                    kind: setting.summary(kind) for kind in setting.names()
                }
    sections["the backward, upstream="] = {kind: UPSTREAM.summary(kind) for kind in UPSTREAM.names()}
    for heading, named in sections.items():
        yield heading
        for name, summary in named.items():
            yield f"  {name:<26}{summary}"


def laws() -> Iterator[str]:
    from suite.laws import all_laws

    for name, statement in all_laws().items():
        yield f"{name:<20}{statement}"


def cases() -> Iterator[str]:
    """Every case id, after the smallest profile that runs it."""
    for specification in case_specifications():
        seen = set()
        for profile in PROFILES:
            for case in specification.cases(profile):
                if case.seed == 0 and case.id not in seen:
                    seen.add(case.id)
                    yield f"{case.profile:<10}{case.id}"


def machines() -> Iterator[str]:
    """The published runs: reports/<machine>/<run>/env.json."""
    paths = sorted(REPORTS.glob("*/*/env.json"))
    if not paths:
        yield "no published runs here: they are in reports/ of a checkout"
    for path in paths:
        try:
            environment = strict_json.read(path)
            device = environment.get("gpu") or environment["cpu"]
        except (OSError, ValueError, KeyError, AttributeError):
            device = "its env.json cannot be read"
        yield f"{path.parent.parent.name}/{path.parent.name}: {device}"


LISTED: dict[str, Callable[[], Iterator[str]]] = {
    "ops": ops,
    "kernels": kernels,
    "cases": cases,
    "inputs": inputs,
    "laws": laws,
    "machines": machines,
}


@click.command("list")
@click.argument("what", type=click.Choice(list(LISTED)))
def command(what: str) -> None:
    """Lists ops, kernels, cases, inputs, laws or machines."""
    try:
        for line in LISTED[what]():
            click.echo(line)
    except CaseError as error:
        misuse(str(error))
