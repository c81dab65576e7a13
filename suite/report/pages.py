"""Templates into text. A page is one file without scripts or outside requests, light and dark."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from suite.report.words import count, first_line, spaced, times

if TYPE_CHECKING:
    from jinja2 import Environment


def fill(template: str, **context: Any) -> str:
    """The text of a template of suite/report/templates; a name that the context lacks is an error."""
    return _environment().get_template(template).render(**context)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("suite.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(times=times, first_line=first_line, spaced=spaced, count=count)
    environment.filters["n"] = "{:,}".format
    return environment
