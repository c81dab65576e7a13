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


def replay(trial: Trial) -> Finding:
    """After a call on other values of the same shape, and for those too, the result is right: none is kept and replayed."""
    other = np.roll(trial.x[::-1], 1, axis=trial.dim)
    finding = _finding("other rows of the same shape", trial.judge(other, trial.call(other)), True)
    if not finding.held:
        return finding
    again = trial.call(trial.x)
    return _finding("the first input once more", trial.judge(trial.x, again), _same(again, trial.output))


def permutation(trial: Trial) -> Finding:
    """Reversing a row reverses its result: the order of the entries decides rounding only, and no result is replayed."""
    reversed_x = np.flip(trial.x, axis=trial.dim).copy()
    output = trial.call(reversed_x)
    expected = np.flip(trial.output, axis=trial.dim) if trial.keeps_length else trial.output
    return _finding("the same rows reversed", trial.judge(reversed_x, output), _same(output, expected))


def shift(trial: Trial) -> Finding:
    """A common shift of all logits, exactly representable, is judged like the rows themselves: only differences count."""
    finite = np.isfinite(trial.x)
    largest = float(np.abs(trial.x[finite]).max(initial=1.0))
    amount = max(2.0 ** ((trial.format.precision + 1) // 2), 2.0 ** np.ceil(np.log2(largest)))
    reach = amount + largest
    if reach > trial.format.largest / 4:
        return Finding(held=True, note="no shift leaves these logits in the format")
    grid = float(trial.format.ulp(np.array(2 * reach)))
    rounded = np.where(finite, np.rint(np.where(finite, trial.x, 0.0) / grid) * grid, trial.x)
    finding, outputs = Finding(held=True), []
    for what, x in ((f"the logits as multiples of {grid:g}", rounded), (f"these shifted by {amount:g}", rounded + amount)):
        outputs.append(trial.call(x))
        bitwise = trial.keeps_length and _same(outputs[0], outputs[-1])
        finding = _finding(what, trial.judge(x, outputs[-1]), bitwise)
        if not finding.held:
            break
    return finding


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


def neighbour(trial: Trial) -> Finding:
    """A row keeps its result when every other row of the batch turns to NaN, infinities and huge numbers."""
    rows = np.moveaxis(trial.x, trial.dim, -1)
    shape, n = rows.shape, rows.shape[-1]
    hostile = rows.reshape(-1, n).copy()
    bad = np.array([np.nan, trial.format.largest / 4, -np.inf, np.inf])
    hostile[1::2] = bad[np.arange(len(hostile[1::2])) % len(bad)][:, None]
    x = np.ascontiguousarray(np.moveaxis(hostile.reshape(shape), -1, trial.dim))
    output = trial.call(x)
    kept, was = (
        (np.moveaxis(y, trial.dim, -1).reshape(-1, n) if trial.keeps_length else y.reshape(-1, 1))[::2]
        for y in (output, trial.output)
    )
    return _finding("the rows between hostile ones", trial.judge(x, output), _same(kept, was))


def written(trial: Trial) -> Finding:
    """Every entry of the output is written: fresh memory that holds NaN shows none of it (fill_uninitialized_memory)."""
    output = trial.call(trial.x, memory="filled")
    return _finding("with uninitialised memory full of NaN", trial.judge(trial.x, output), _same(output, trial.output))


def canaries(trial: Trial) -> Finding:
    """Nothing is written outside the input and the tensors that the kernel makes, and nothing outside the input is read."""
    output = trial.call(trial.x, memory="guarded")
    return _finding("between canaries", trial.judge(trial.x, output), _same(output, trial.output))


def _finding(what: str, judgement: Judgement, bitwise: bool) -> Finding:
    held = judgement.status in ("passed", "unjudged")
    return Finding(held=held, bitwise=bitwise, note="" if held else f"{what}: {judgement.message}")


def _same(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and np.array_equal(a, b, equal_nan=True))
