"""The text of a judgement: where, got, expected, how bad, how many, where in the tile, what fits."""

from __future__ import annotations

import numpy as np

from suite.formats import Array
from suite.ops import AnyOp
from suite.oracle import Reference
from suite.verdict.judgement import Judgement
from suite.verdict.special import Mask


def message(op: AnyOp, judgement: Judgement, reference: Reference, y: Array) -> str:
    """The judgement of an output, given as rows, in words."""
    head = f"{judgement.op} {judgement.dtype} {list(judgement.shape)}: {judgement.status}"
    worst = judgement.worst
    if worst is None or judgement.passed:
        return (
            f"{head}, {judgement.ratio:.3g} × the bound, {judgement.judged:.0%} of {judgement.entries}"
            " entries judged"
        )
    if judgement.status == "unjudged":
        return (
            f"{head}: only {judgement.judged:.0%} of {judgement.entries} entries have a meaningful bound with"
            f" the declared numerics ({judgement.numerics}); nothing was proved"
        )
    lines = [
        f"{head}; broken: {', '.join(judgement.broken)}",
        f"  where     index {list(worst.index)}",
        f"  got       {worst.got}",
        f"  expected  {worst.expected}",
        f"  allowed   [{worst.lower}, {worst.upper}]",
        f"  input     {reference.problem.describe(worst.row, worst.column if y.shape[1] > 1 else None)}",
        f"  how bad   {worst.ratio:.4g} × the bound, {worst.ulp:.4g} ulp; numerics: {judgement.numerics}",
        f"  how many  {judgement.failed} of {judgement.entries} entries, in {judgement.failed_rows} of"
        f" {y.shape[0]} rows"
        + (
            f"; {judgement.overflow} are NaN or infinite where the definition is finite"
            if judgement.overflow
            else ""
        ),
    ]
    if note := op.row_note(y[worst.row]):
        lines.append(f"  its row   {note}")
    if y.shape[1] > 1:
        place = [f"first failing column {judgement.first_failing_column}", *judgement.tiles.values()]
        lines.append(f"  in tile   {'; '.join(place)}")
    if judgement.fits:
        lines.append(f"  looks like {judgement.fits}")
    return "\n".join(lines)


def beyond_message(beyond: Mask, output: Array) -> str:
    """The line about entries that cannot be right whatever the reference."""
    index = tuple(int(i) for i in np.argwhere(beyond)[0])
    what = (
        f"{int(beyond.sum())} entries cannot be right whatever the reference, the first at index"
        f" {list(index)}"
    )
    return f"  beyond    {what}: {float(output[index])!r}"
