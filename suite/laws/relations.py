"""The relations, one per function."""

from __future__ import annotations

import numpy as np

from suite.formats import Array
from suite.judge import Judgement
from suite.laws import Finding, Trial


def repeat(trial: Trial) -> Finding:
    """A second call on the same bits is judged like the first: a kernel has no memory."""
    again = trial.call(trial.x)
    return _finding("a second call on the same input", trial.judge(trial.x, again), _same(again, trial.output))


def permutation(trial: Trial) -> Finding:
    """Reversing a row reverses its result: the order of the entries decides rounding only, and no result is replayed."""
    reversed_x = np.flip(trial.x, axis=trial.dim).copy()
    output = trial.call(reversed_x)
    expected = np.flip(trial.output, axis=trial.dim) if trial.keeps_length else trial.output
    return _finding("the same rows reversed", trial.judge(reversed_x, output), _same(output, expected))


def batch(trial: Trial) -> Finding:
    """A row gives the same result alone as among others: nothing leaks between the rows of a batch."""
    if trial.x.ndim < 2:
        return Finding(held=True, note="one row only")
    batch_axis = 0 if trial.dim != 0 else 1
    row_in_output = batch_axis if trial.keeps_length or trial.dim > batch_axis else batch_axis - 1
    bitwise = True
    for row in {0, trial.x.shape[batch_axis] - 1}:
        alone = np.take(trial.x, [row], axis=batch_axis)
        output = trial.call(alone)
        bitwise &= _same(output, np.take(trial.output, [row], axis=row_in_output))
        finding = _finding(f"row {row} on its own", trial.judge(alone, output), bitwise)
        if not finding.held:
            return finding
    return Finding(held=True, bitwise=bitwise)


def _finding(what: str, judgement: Judgement, bitwise: bool) -> Finding:
    held = judgement.status in ("passed", "unjudged")
    return Finding(held=held, bitwise=bitwise, note="" if held else f"{what}: {judgement.message}")


def _same(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and np.array_equal(a, b, equal_nan=True))
