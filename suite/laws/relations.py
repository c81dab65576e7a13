"""The relations, one per function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from suite.formats import Array
from suite.judge import Judgement
from suite.laws import Finding, Trial


def repeat(trial: Trial) -> Finding:
    """A second call on the same bits is judged like the first: a kernel has no memory."""
    return _compare(trial, "a second call on the same input", trial.call(trial.x))


def replay(trial: Trial) -> Finding:
    """After a call on other values of the same shape, and for those too, the result is right: none is kept and replayed."""
    moved = np.roll(trial.x, 1, axis=trial.dim)
    finding = _moved(trial, "the entries of each row moved on by one", moved, lambda y: np.roll(y, -1, axis=trial.dim))
    if not finding.held:
        return finding
    return _compare(trial, "the first input once more", trial.call(trial.x))


def permutation(trial: Trial) -> Finding:
    """Reversing a row reverses its result: the order of the entries decides rounding only, and no result is replayed."""
    moved = np.flip(trial.x, axis=trial.dim).copy()
    return _moved(trial, "the same rows reversed", moved, lambda y: np.flip(y, axis=trial.dim))


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
    if trial.x.ndim < 2 or trial.targeted:
        return Finding(held=True, note="one row only" if trial.x.ndim < 2 else "rows have targets, which stay a batch")
    batch_axis = 0 if trial.dim != 0 else 1
    row_in_output = batch_axis if trial.keeps_length or trial.dim > batch_axis else batch_axis - 1
    bitwise = True
    for row in {0, trial.x.shape[batch_axis] - 1}:
        outputs = trial.output.copy()
        outputs.swapaxes(0, row_in_output)[row] = trial.call(np.take(trial.x, [row], axis=batch_axis)).swapaxes(
            0, row_in_output
        )[0]
        finding = _compare(trial, f"row {row} on its own", outputs)
        bitwise &= bool(finding.bitwise)
        if not finding.held:
            return finding
    half = trial.x.shape[batch_axis] // 2
    if half:
        trial.call(trial.x)  # a larger call of the same row length, whose memory or state might be taken for this one's
        outputs = trial.output.copy()
        some = trial.call(np.take(trial.x, range(half), axis=batch_axis))
        outputs.swapaxes(0, row_in_output)[:half] = some.swapaxes(0, row_in_output)
        finding = _compare(trial, f"the first {half} rows after all of them", outputs)
        bitwise &= bool(finding.bitwise)
        if not finding.held:
            return finding
    return Finding(held=True, bitwise=bitwise)


def neighbour(trial: Trial) -> Finding:
    """A row keeps its result when every other row of the batch turns to NaN, infinities and huge numbers."""
    if not trial.keeps_length and trial.output.ndim != trial.x.ndim - 1:
        return Finding(held=True, note="the rows are reduced to one result")
    hostile = trial.x.copy()
    rows = np.moveaxis(hostile, trial.dim, -1)
    for count, index in enumerate(np.ndindex(rows.shape[:-1])):
        if count % 2:
            rows[index] = (np.nan, trial.format.largest / 4, -np.inf, np.inf)[count // 2 % 4]
    output, kept = trial.call(hostile), trial.output.copy()
    old, new = (np.moveaxis(y, trial.dim, -1) if trial.keeps_length else y for y in (kept, output))
    for count, index in enumerate(np.ndindex(rows.shape[:-1])):
        if count % 2 == 0:
            old[index] = new[index]
    return _compare(trial, "the rows between hostile ones", kept)


def written(trial: Trial) -> Finding:
    """Every entry of the output is written: fresh memory that holds NaN shows none of it (fill_uninitialized_memory)."""
    return _compare(trial, "with uninitialised memory full of NaN", trial.call(trial.x, memory="filled"))


def canaries(trial: Trial) -> Finding:
    """Nothing is written outside the input and the tensors that the kernel makes, and nothing outside the input is read."""
    return _compare(trial, "between canaries", trial.call(trial.x, memory="guarded"))


def _compare(trial: Trial, what: str, output: Array) -> Finding:
    """Judges an output that must be right for the trial's own rows; one with the same bits has been judged already."""
    if _same(output, trial.output):
        return Finding(held=True, bitwise=True)
    return _finding(what, trial.judge(trial.x, output), False)


def _moved(trial: Trial, what: str, x: Array, back: Callable[[Array], Array]) -> Finding:
    """Calls with the entries of each row moved; moved back, the result must be right for the trial's own rows.

    A target does not move with its row's entries, so that the result is another and is judged for x itself.
    """
    output = trial.call(x)
    if trial.targeted:
        return _finding(what, trial.judge(x, output), None)
    return _compare(trial, what, back(output) if trial.keeps_length else output)


def _finding(what: str, judgement: Judgement, bitwise: bool | None) -> Finding:
    held = judgement.status in ("passed", "unjudged")
    return Finding(held=held, bitwise=bitwise, note="" if held else f"{what}: {judgement.message}")


def _same(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and np.array_equal(a, b, equal_nan=True))
