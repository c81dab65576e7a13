"""`tolerance`: the rtol and atol that theory allows."""

from __future__ import annotations

import json
from pathlib import Path

import click

from suite.commands.options import json_option, misuse
from suite.commands.output import write
from suite.formats import DTYPES
from suite.ops import row_ops


@click.command("tolerance")
@click.option("--op", required=True, type=click.Choice(row_ops()))
@click.option(
    "--shape", metavar="ROWSxN", help="Shape of the input, or the length of its rows: 32x8192, 8192."
)
@click.option("--dtype", type=click.Choice(DTYPES), help="Of the output. Default: that of the input file.")
@click.option("--dim", default=-1, show_default=True, help="The reduced dim.")
@click.option("--gap", type=float, help="Every finite logit is at most this far below its row's largest.")
@click.option("--largest", type=float, help="Every finite logit is at most this in magnitude.")
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For x of this file: sharper.",
)
@json_option()
def command(
    op: str,
    shape: str | None,
    dtype: str | None,
    dim: int,
    gap: float | None,
    largest: float | None,
    input_file: Path | None,
    json_file: Path | None,
) -> None:
    """Prints the rtol and atol that theory allows, with a line of assert_close to paste."""
    from dataclasses import asdict

    from suite.inputs.saved_tensors import load, pick
    from suite.records.record import plain
    from suite.studies.tolerance import AGAINST, NoToleranceError
    from suite.studies.tolerance import tolerance as find

    sizes = None
    if shape is not None:
        parts = shape.split("x")
        if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
            misuse(f"--shape {shape!r} must be sizes joined by x, as 32x8192 or 8192")
        sizes = tuple(int(part) for part in parts)
    found = []
    try:
        x = None if input_file is None else pick(load(input_file, dtype=dtype), ("x", "input"), input_file)
        for against in AGAINST:
            try:
                found.append(
                    find(op, sizes, dtype, dim=dim, gap=gap, largest=largest, input=x, against=against)
                )
            except NoToleranceError:
                if not found:
                    raise
    except (ValueError, TypeError) as error:
        misuse(str(error))
    first = found[0]
    click.echo(
        f"{op} {first.dtype}, rows of {first.n}\nholds for  {first.assumptions}\nfrom       {first.basis}"
    )
    for one in found:
        click.echo(
            f"\nagainst {one.against}: rtol {one.rtol:g}, atol {one.atol:g}\n  {one.assert_close}\n "
            f" {one.defaults}"
        )
    for against in AGAINST[len(found) :]:
        click.echo(f"\nagainst {against}: no tolerance says anything")
    click.echo("\none pair for all entries is weaker than judge(), which has a bound for each entry")
    if json_file is not None:
        write(
            json_file,
            json.dumps({"tolerances": [plain(asdict(one)) for one in found]}, allow_nan=False, indent=1),
        )
