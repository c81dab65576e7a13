"""`judge`: judges saved tensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from suite.commands.options import json_option, misuse, op_options_option
from suite.commands.output import write
from suite.commands.saved import parse_options, pick_inputs, pick_outputs
from suite.formats import DTYPES
from suite.ops import NAMES, get_op


@click.command("judge")
@click.option("--op", required=True, type=click.Choice(NAMES))
@click.option(
    "--tensors",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=(
        "Inputs by name (x; logits, target; q, k, v, ...), y and lse; or upstream and dx, dq, ...; .npz or"
        " .safetensors."
    ),
)
@click.option("--dim", type=int, help="The reduced dim, -1 by default; short for --option dim=DIM.")
@op_options_option()
@click.option("--dtype", type=click.Choice(DTYPES), help="Format of raw bit patterns in an .npz.")
@json_option()
def command(
    op: str,
    tensors: Path,
    dim: int | None,
    settings: tuple[str, ...],
    dtype: str | None,
    json_file: Path | None,
) -> None:
    """Judges saved tensors: x, the input, and y, what a kernel made of it. For C++, CUDA, JAX and
    other machines.
    """
    from dataclasses import asdict

    from suite.inputs.saved_tensors import load
    from suite.records.record import plain
    from suite.verdict.judge import judge as judge_tensors

    try:
        options = parse_options(op, settings) | ({"dim": dim} if dim is not None else {})
        saved = load(tensors, dtype=dtype)
        if "return_lse" in get_op(op).options and {"lse", "upstream_lse"} & set(saved):
            options = {"return_lse": True} | options
        inputs = pick_inputs(op, saved, tensors)
        judgement = judge_tensors(
            op, inputs, pick_outputs(op, inputs, saved, options, tensors), options=options
        )
    except (ValueError, TypeError) as error:
        misuse(str(error))
    click.echo(judgement.message)
    if json_file is not None:
        write(json_file, json.dumps(plain(asdict(judgement)), allow_nan=False, indent=1))
    sys.exit(0 if judgement.passed else 1)
