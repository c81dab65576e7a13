"""`check`: judges a kernel on the cases, or on the inputs in a file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suite.commands.options import (
    Selection,
    kernels_option,
    misuse,
    op_options_option,
    out_option,
    profile_option,
    run,
    selection,
)
from suite.commands.output import finish, holding, print_summary, write_json, write_report
from suite.commands.saved import parse_options, pick_inputs

if TYPE_CHECKING:
    from suite.run import Result


@click.command("check")
@kernels_option("NAME, FILE.py:FUNC or pkg.mod:FUNC.", required=True)
@profile_option("quick")
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Judge on x, or logits and target, of this .npz or .safetensors.",
)
@op_options_option("With --input. ")
@out_option("Also write a run folder.")
@selection
def command(
    kernels: tuple[str, ...],
    profile: str,
    input_file: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    json_file: Path | None,
    **selected: Any,
) -> None:
    """Judges a kernel: yours, by FILE.py:FUNC, or one of this suite's by name."""
    if selected["resume"] and out is None:
        misuse("--resume goes on with the run in a folder: name it with --out")
    with holding(out, resume=selected["resume"]):
        if input_file is not None:
            result = _check_input(kernels, input_file, settings, Selection(**selected), out=out)
        elif settings:
            misuse("--option goes with --input; a case has its options in its id")
        else:
            result = run(kernels, profile, Selection(**selected), out=out)
        write_json(json_file, result)
        if result.records:
            print_summary(result, verbose=True)
            if out is not None and input_file is None:
                write_report(out)
    finish(result)


def _check_input(
    kernels: Sequence[str],
    input_file: Path,
    settings: Sequence[str],
    selected: Selection,
    *,
    out: Path | None,
) -> Result:
    """Judges kernels on the inputs in a file, in the logits' own dtype, or in the dtypes given
    where they hold the values.
    """
    import torch

    from suite.case import Case
    from suite.execution.evaluation import evaluate
    from suite.execution.hosts import Hosts
    from suite.formats import get_format
    from suite.inputs.saved_tensors import load
    from suite.ops import get_op
    from suite.oracle import Oracle
    from suite.oracle.cache import default_folder
    from suite.records.environment import probe
    from suite.records.store import Store, StoreError
    from suite.run import Result
    from suite.tensors import dtype_name, to_numpy

    if selected.patterns or selected.known or selected.resume or selected.shard != "1/1":
        misuse("--input judges one input; it goes with none of --case, --known-failures, --resume, --shard")
    if len(selected.ops) != 1:
        misuse("--input needs exactly one --op")
    ops, dtypes, device = selected.ops, selected.dtypes, selected.device
    closing = contextlib.ExitStack()
    try:
        op, options = get_op(ops[0]), parse_options(ops[0], settings)
        tensors = pick_inputs(op.name, load(input_file, dtype=dtypes[0] if dtypes else None), input_file)
        logits = tensors[op.arguments[0]]
        if not logits.is_floating_point():
            raise ValueError(
                f"{input_file}: {op.arguments[0]} has dtype {dtype_name(logits)}; expected such as float32"
            )
        inputs, records = {name: to_numpy(tensor) for name, tensor in tensors.items()}, []
        for dtype in dtypes or (dtype_name(logits),):
            for name, values in inputs.items():
                if tensors[name].is_floating_point() and not op.input_format(name, get_format(dtype)).holds(
                    values
                ):
                    raise ValueError(f"{input_file} has values of {name} that {dtype} cannot hold")
        judged = op.of(inputs)
        judged.problem(
            inputs, judged.resolve_options(options, {name: tuple(x.shape) for name, x in inputs.items()})
        )
        torch.set_num_threads(selected.threads)
        oracle, environment = Oracle(default_folder()), probe(device)
        hosts = closing.enter_context(
            Hosts(isolate=selected.isolate, memory_gibibytes=selected.memory, timeout=selected.timeout)
        )
        store = Store(out) if out is not None else None
        if store is not None:
            store.write_environment(environment)
        for dtype in dtypes or (dtype_name(logits),):
            case = Case(
                op=op.name,
                family="file",
                shape=tuple(logits.shape),
                options=options,
                tensors=_sizes_of(inputs) if op.name == "attention" else {},
                target=(
                    "probabilities"
                    if "target" in tensors and tensors["target"].is_floating_point()
                    else "indices"
                ),
                upstream="file" if "upstream" in tensors else "",
                why=f"the tensors of {input_file.name}",
            )
            for specification in kernels:
                for kernel in hosts.load(specification, ops[0], device=device):
                    record = evaluate(
                        case,
                        kernel,
                        dtype=dtype,
                        device=device,
                        host=hosts.of(kernel),
                        timeout=selected.timeout,
                        oracle=oracle,
                        store=store,
                        strict=selected.strict,
                        env_id=environment["env_id"],
                        inputs=inputs,
                        input_file=str(input_file),
                    )
                    records.append(record)
        if store is not None:
            store.close()
    except ValueError as error:
        misuse(str(error))
    except StoreError as error:
        return Result(records=tuple(records), environment=environment, stopped=str(error))
    finally:
        closing.close()
    return Result(records=tuple(records), environment=environment)


def _sizes_of(inputs: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of attention's tensors that its queries do not tell."""
    _, key_heads, keys, _ = inputs["k"].shape
    return {"keys": keys, "key_heads": key_heads, "value_size": inputs["v"].shape[3]}
