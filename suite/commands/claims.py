"""`claims`: measures published results again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from suite.commands.options import json_option, misuse
from suite.commands.output import write


@click.command("claims")
@click.option(
    "--claim", "names", multiple=True, metavar="NAME", help="Only this claim; repeatable. Default: all."
)
@click.option(
    "--exhaustive", is_flag=True, help="On all numbers where a sample is the default: minutes for each."
)
@json_option()
def command(names: tuple[str, ...], exhaustive: bool, json_file: Path | None) -> None:
    """Measures published numerical results again, beside what was published."""
    from suite.records.environment import probe
    from suite.studies import claims as published

    try:
        selected = published.select(names)
    except ValueError as error:
        misuse(str(error))
    results = [published.check(one, exhaustive=exhaustive) for one in selected]
    machine = probe()
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    click.echo(
        f"{machine['cpu']}, {machine['machine']}, {machine['libc']}, Python {machine['python']}, {packages}\n"
    )
    click.echo(published.table(results))
    if json_file is not None:
        data = {"environment": machine, "claims": [result.to_dict() for result in results]}
        write(json_file, json.dumps(data, allow_nan=False, indent=1))
