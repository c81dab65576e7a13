"""`schema`: prints the JSON Schema of what this suite writes."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> None:
    """Prints the JSON Schema of records, measurements and what --json writes."""
    from suite.records.record import published

    click.echo(json.dumps(published(), indent=2))
