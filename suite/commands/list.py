"""`list`: what there is. Only its cases and kernels look at source files, and nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

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
    """The families of every op, and what else a case of attention may hold, by argument."""
    from suite.inputs import all_families, attention, attention_tensors, first_sentence, states
    from suite.inputs.upstream import UPSTREAMS
    from suite.ops import NAMES

    yield "families of logits"
    for name, family in all_families().items():
        yield f"  {name:<26}{family.summary}"
    others: dict[str, Mapping[str, Any]] = {
        "attention": attention.FAMILIES,
        "merge_states": states.FAMILIES,
        **attention_tensors.TENSORS,
        "upstream": UPSTREAMS,
    }
    for what, named in others.items():
        yield (
            f"families of {what}"
            if what in NAMES
            else "the backward, upstream="
            if named is UPSTREAMS
            else f"attention, {what}="
        )
        for name, function in named.items():
            summary = first_sentence(getattr(function, "generate", function))
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
