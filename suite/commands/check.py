"""`check`: judges a kernel on the cases, or on the inputs in a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suite.commands.options import (
    FILE,
    kernels_option,
    misuse,
    op_options_option,
    opened,
    out_option,
    profile_option,
    selection,
)
from suite.commands.output import finish, print_summary, write_json, write_report
from suite.commands.progress import ShownProgress
from suite.commands.saved import parse_options, pick_inputs
from suite.records.store import StoreError
from suite.session import Result, Session

if TYPE_CHECKING:
    from suite.case import Case


@click.command("check")
@kernels_option("NAME, FILE.py:FUNC or pkg.mod:FUNC.", required=True)
@profile_option("quick")
@click.option(
    "--input",
    "input_file",
    type=FILE,
    metavar="FILE",
    help="Judge on x, or logits and target, of this .npz or .safetensors.",
)
@op_options_option("With --input. ")
@out_option("Also write a run folder.")
@selection
def command(
    input_file: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    json_file: Path | None,
    **asked: Any,
) -> None:
    """Judges a kernel: yours, by FILE.py:FUNC, or one of this suite's by name."""
    if asked["resume"] and out is None:
        misuse("--resume goes on with the run in a folder: name it with --out")
    if settings and input_file is None:
        misuse("--option goes with --input; a case has its options in its id")
    given = _given(input_file, settings, asked) if input_file is not None else None
    if given is not None:
        asked["dtypes"] = tuple(given.cases)
    with opened(out=out, **asked) as session:
        result = session.run(ShownProgress(sys.stderr)) if given is None else _judged(session, given)
        write_json(json_file, result)
        if result.records:
            print_summary(result, verbose=True)
            if out is not None and given is None:
                write_report(out)
    finish(result)


@dataclass(frozen=True, kw_only=True)
class _Given:
    """The inputs in a file, and the case that they make in each format."""

    file: Path
    inputs: Mapping[str, Any]
    cases: Mapping[str, Case]


def _given(file: Path, settings: Sequence[str], asked: Mapping[str, Any]) -> _Given:
    """The inputs in a file, in the logits' own format, or in those asked for where they hold the values.
    Misuse ends the command.
    """
    from suite.inputs.saved_tensors import load
    from suite.ops import get_op
    from suite.tensors import dtype_name, to_numpy

    if asked["patterns"] or asked["known_failures"] or asked["resume"] or asked["shard"] != "1/1":
        misuse("--input judges one input; it goes with none of --case, --known-failures, --resume, --shard")
    if len(asked["ops"]) != 1:
        misuse("--input needs exactly one --op")
    dtypes = tuple(dict.fromkeys(asked["dtypes"]))
    try:
        op, options = get_op(asked["ops"][0]), parse_options(asked["ops"][0], settings)
        tensors = pick_inputs(op.name, load(file, dtype=dtypes[0] if dtypes else None), file)
        logits = tensors[op.arguments[0]]
        if not logits.is_floating_point():
            raise ValueError(
                f"{file}: {op.arguments[0]} has dtype {dtype_name(logits)}; expected such as float32"
            )
        inputs = {name: to_numpy(tensor) for name, tensor in tensors.items()}
        floating = {name for name, tensor in tensors.items() if tensor.is_floating_point()}
        for dtype in dtypes or (dtype_name(logits),):
            _check_held(op.name, {name: inputs[name] for name in floating}, dtype, file)
        judged = op.of(inputs)
        shapes = {name: tuple(x.shape) for name, x in inputs.items()}
        judged.problem(inputs, judged.resolve_options(options, shapes))
        case = _case(op.name, inputs, options, why=f"the tensors of {file.name}")
    except ValueError as error:
        misuse(str(error))
    return _Given(file=file, inputs=inputs, cases=dict.fromkeys(dtypes or (dtype_name(logits),), case))


def _check_held(op: str, inputs: Mapping[str, Any], dtype: str, file: Path) -> None:
    from suite.formats import get_format
    from suite.ops import get_op

    for name, values in inputs.items():
        if not get_op(op).input_format(name, get_format(dtype)).holds(values):
            raise ValueError(f"{file} has values of {name} that {dtype} cannot hold")


def _case(op: str, inputs: Mapping[str, Any], options: Mapping[str, Any], *, why: str) -> Case:
    from suite.case import Case
    from suite.ops import get_op

    levels = get_op(op).inputs.levels_of(inputs)
    target = levels.pop("target", "indices")
    return Case(
        op=op,
        family="file",
        shape=tuple(next(iter(inputs.values())).shape),
        options=options,
        tensors=levels,
        target=target,
        upstream="file" if "upstream" in inputs else "",
        why=why,
    )


def _judged(session: Session, given: _Given) -> Result:
    """Every kernel on the inputs, in every format."""
    stopped = ""
    try:
        for dtype, case in given.cases.items():
            for kernel in session.kernels[case.op]:
                session.evaluate(case, kernel, dtype, inputs=given.inputs, input_file=str(given.file))
        session.close_store()
    except ValueError as error:
        misuse(str(error))
    except StoreError as error:
        stopped = str(error)
    return Result(records=tuple(session.records), environment=session.environment, stopped=stopped)
