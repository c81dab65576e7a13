"""doctor: this machine's identity and a self-test of the judge on one right and three wrong
outputs; or kernel profiles.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from suite.commands.options import device_option, dtypes_option, kernels_option, misuse
from suite.formats import DTYPES, float32
from suite.inputs import build
from suite.ops import NAMES
from suite.oracle import Oracle, libm
from suite.oracle.cache import default_folder
from suite.oracle.certified import ASSUMED_ULP, certified_tier
from suite.records.environment import probe
from suite.verdict.judge import judge


def examine() -> Iterator[tuple[str, bool]]:
    """Lines to print, each with whether it is good news. Imports torch, so that its facts are among them."""
    import torch  # noqa: F401

    for name, value in probe().items():
        yield f"{name:<26}{_text(value)}", name != "subnormals_flushed" or not value
    yield f"{'certified tier':<26}{certified_tier()}", True
    accuracy = libm.accuracy()
    yield (
        (
            f"{'float64 tier':<26}exp {accuracy.exp_ulp:.3f} ulp, log {accuracy.log_ulp:.3f} ulp on"
            f" {accuracy.points} points against {accuracy.against}; the tier assumes {ASSUMED_ULP}"
        ),
        libm.is_accurate(),
    )
    yield f"{'reference cache':<26}{default_folder()}", True
    for name, kernel, expected in _SELF_TESTS:
        x = build("two_heavy_ends", 8, 1000, float32, 0).astype(np.float32)
        status = judge("softmax", x, kernel(x).astype(np.float32), oracle=Oracle()).status
        good = status == expected
        yield (
            (
                f"{'self-test':<26}{name}: {status}, as it must"
                f" be{'' if good else f'? No, {expected}: DO NOT TRUST THIS JUDGE'}"
            ),
            good,
        )


def profiles(kernels: Sequence[str], op: str, dtypes: Sequence[str], device: str) -> Iterator[str]:
    """Lines to print: the profile of each kernel in each format, a finding a line with its evidence.

    Raises ValueError where a kernel cannot be loaded.
    """
    from suite.execution.hosts import Hosts
    from suite.report.chapters.exponential import HEADINGS, words
    from suite.studies.exponential import measure

    with Hosts() as hosts:
        for kernel in [
            kernel for specification in kernels for kernel in hosts.load(specification, op, device=device)
        ]:
            for dtype in dtypes:
                data = measure(kernel, dtype, device=device, host=hosts.of(kernel)).data
                yield f"{op} {kernel.id} {dtype} on {device}"
                if "reason" in data:
                    yield f"  not measured: {data['reason']}"
                    continue
                for name, heading in HEADINGS.items():
                    finding = data["findings"][name]
                    found = words(name, finding)
                    yield f"  {heading:<20}{found}{': ' if found else ''}{finding['text']}"


Rows = NDArray[Any]


def _softmax(x: Rows) -> Rows:
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _last_entry_left_out(x: Rows) -> Rows:
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return np.asarray(e / e[:, :-1].sum(axis=1, keepdims=True))


def _two_percent(x: Rows) -> Rows:
    return _softmax(x) * 1.02


def _without_shift(x: Rows) -> Rows:
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(x + np.float32(100))
        return np.asarray(e / e.sum(axis=1, keepdims=True))


_SELF_TESTS: tuple[tuple[str, Callable[[Rows], Rows], str], ...] = (
    ("a right softmax", _softmax, "passed"),
    ("the last entry left out of the sum", _last_entry_left_out, "inaccurate"),
    ("all results 2 % too large", _two_percent, "inaccurate"),
    ("exp without a shift, overflowing", _without_shift, "nonfinite"),
)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)


@click.command("doctor")
@kernels_option("Print the profile of this kernel instead; repeatable.")
@click.option(
    "--op", default="softmax", show_default=True, type=click.Choice(NAMES), help="The op of --kernel."
)
@dtypes_option("Formats of --kernel. Default: all.")
@device_option("Device of --kernel: cpu, cuda, cuda:1, ...")
def command(kernels: tuple[str, ...], op: str, dtypes: tuple[str, ...], device: str) -> None:
    """Prints this machine's identity and checks that the judge can still tell right from wrong.

    With --kernel: prints what the arithmetic of a kernel looks like from outside.
    """
    if kernels:
        try:
            for line in profiles(kernels, op, dtypes or DTYPES, device):
                click.echo(line)
        except ValueError as error:
            misuse(str(error))
        return
    healthy = True
    for line, good in examine():
        healthy &= good
        click.echo(line)
    sys.exit(0 if healthy else 1)
