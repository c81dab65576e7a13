"""The relations, one per function: it yields its calls, is sent their outputs, and returns its finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from suite.formats import Array
from suite.laws import Finding, Inquiry, Trial
from suite.verdict.judgement import Judgement


def repeat(trial: Trial) -> Inquiry:
    """A second call on the same bits is judged like the first: a kernel has no memory."""
    [again] = yield [trial.call(trial.x)]
    return compare(trial, "a second call on the same input", again)


def replay(trial: Trial) -> Inquiry:
    """After a call on other values of the same shape, and for those too, the result is right: none
    is kept and replayed.
    """
    moved = np.roll(trial.x, 1, axis=trial.dim)
    output, again = yield [trial.call(moved), trial.call(trial.x)]
    what = "the entries of each row moved on by one"
    found = _moved(trial, what, moved, output, lambda y: np.roll(y, -1, axis=trial.dim))
    if not found.held:
        return found
    return compare(trial, "the first input once more", again)


def permutation(trial: Trial) -> Inquiry:
    """Reversing a row reverses its result: the order of the entries decides rounding only, and no
    result is replayed.
    """
    moved = np.flip(trial.x, axis=trial.dim).copy()
    [output] = yield [trial.call(moved)]
    return _moved(trial, "the same rows reversed", moved, output, lambda y: np.flip(y, axis=trial.dim))


def shift(trial: Trial) -> Inquiry:
    """A common shift of all logits, exactly representable, is judged like the rows themselves: only
    differences count.
    """
    finite = np.isfinite(trial.x)
    largest = float(np.abs(trial.x[finite]).max(initial=1.0))
    amount = max(2.0 ** ((trial.format.precision + 1) // 2), 2.0 ** np.ceil(np.log2(largest)))
    reach = amount + largest
    if reach > trial.format.largest / 4:
        return Finding(held=True, note="no shift leaves these logits in the format")
    grid = float(trial.format.ulp(np.array(2 * reach)))
    rounded = np.where(finite, np.rint(np.where(finite, trial.x, 0.0) / grid) * grid, trial.x)
    still, shifted = yield [trial.call(rounded), trial.call(rounded + amount)]
    found = finding(f"the logits as multiples of {grid:g}", trial.judge(rounded, still), True)
    if not found.held:
        return found
    bitwise = trial.keeps_length and _same(still, shifted)
    return finding(f"these shifted by {amount:g}", trial.judge(rounded + amount, shifted), bitwise)


def batch(trial: Trial) -> Inquiry:
    """A row gives the same result alone as among others: nothing leaks between the rows of a batch."""
    if trial.x.ndim < 2 or trial.targeted:
        return Finding(
            held=True, note="one row only" if trial.x.ndim < 2 else "rows have targets, which stay a batch"
        )
    batch_axis = 0 if trial.dim != 0 else 1
    row_in_output = batch_axis if trial.keeps_length or trial.dim > batch_axis else batch_axis - 1
    size = trial.x.shape[batch_axis]
    parts = {f"row {row} on its own": [row] for row in sorted({0, size - 1})}
    parts |= {f"the first {size // 2} rows after all of them": list(range(size // 2))} if size > 1 else {}
    calls = [trial.call(np.take(trial.x, rows, axis=batch_axis)) for rows in parts.values()]
    # Before the last: a larger call of the same row length, whose memory or state might be taken
    # for this one's.
    outputs = yield [*calls[:-1], trial.call(trial.x), calls[-1]]
    bitwise = True
    for (what, rows), output in zip(parts.items(), [*outputs[:-2], outputs[-1]], strict=True):
        mixed = trial.output.copy()
        mixed.swapaxes(0, row_in_output)[rows] = output.swapaxes(0, row_in_output)
        found = compare(trial, what, mixed)
        bitwise &= bool(found.bitwise)
        if not found.held:
            return found
    return Finding(held=True, bitwise=bitwise)


def neighbour(trial: Trial) -> Inquiry:
    """A row keeps its result when every other row of the batch turns to NaN, infinities and huge numbers."""
    if not trial.keeps_length and trial.output.ndim != trial.x.ndim - 1:
        return Finding(held=True, note="the rows are reduced to one result")
    hostile = trial.x.copy()
    rows = np.moveaxis(hostile, trial.dim, -1)
    for count, index in enumerate(np.ndindex(rows.shape[:-1])):
        if count % 2:
            rows[index] = (np.nan, trial.format.largest / 4, -np.inf, np.inf)[count // 2 % 4]
    [output] = yield [trial.call(hostile)]
    kept = trial.output.copy()
    old, new = (np.moveaxis(y, trial.dim, -1) if trial.keeps_length else y for y in (kept, output))
    for count, index in enumerate(np.ndindex(rows.shape[:-1])):
        if count % 2 == 0:
            old[index] = new[index]
    return compare(trial, "the rows between hostile ones", kept)


def written(trial: Trial) -> Inquiry:
    """Every entry of the output is written: fresh memory that holds NaN shows none of it
    (fill_uninitialized_memory).
    """
    [output] = yield [trial.call(trial.x, memory="filled")]
    return compare(trial, "with uninitialised memory full of NaN", output)


def canaries(trial: Trial) -> Inquiry:
    """Nothing is written outside the input and the tensors that the kernel makes, and nothing
    outside the input is read.
    """
    [output] = yield [trial.call(trial.x, memory="guarded")]
    return compare(trial, "between canaries", output)


def compare(trial: Trial, what: str, output: Any) -> Finding:
    """Judges an output that must be right for the trial's own rows; one with the same bits has been
    judged already.
    """
    if _same(output, trial.output):
        return Finding(held=True, bitwise=True)
    return finding(what, trial.judge(trial.x, output), False)


def _moved(trial: Trial, what: str, x: Array, output: Array, back: Callable[[Array], Array]) -> Finding:
    """Judges a call with the entries of each row moved; moved back, the result must be right for
    the trial's own rows.

    A target does not move with its row's entries, so that the result is another and is judged for x itself.
    """
    if trial.targeted:
        return finding(what, trial.judge(x, output), None)
    return compare(trial, what, back(output) if trial.keeps_length else output)


def finding(what: str, judgement: Judgement, bitwise: bool | None) -> Finding:
    held = judgement.status in ("passed", "unjudged")
    return Finding(held=held, bitwise=bitwise, note="" if held else f"{what}: {judgement.message}")


def _same(a: Any, b: Any) -> bool:
    """Whether the outputs of two calls are equal, each of a tuple where there are several."""
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a.shape == b.shape and np.array_equal(a, b, equal_nan=True))
