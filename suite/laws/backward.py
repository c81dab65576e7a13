"""The relations of backward ops, as in relations.py: the gradient is linear in the upstream gradient."""

from __future__ import annotations

import numpy as np

from suite.inputs.draws import Draw
from suite.laws import Call, Finding, Inquiry, Trial
from suite.laws.relations import finding
from suite.ops import SECOND, UPSTREAM


def doubled(trial: Trial) -> Inquiry:
    """Twice the upstream gives twice the gradient, to the bit where nothing under- or overflows:
    the way back is linear.
    """
    upstreams = {name: values for name, values in trial.inputs.items() if name.startswith(UPSTREAM)}
    if any(
        np.abs(values[np.isfinite(values)]).max(initial=0.0) > trial.format.largest / 4
        for values in upstreams.values()
    ):
        return Finding(held=True, note="twice the upstream is no number of the format")
    call = Call({name: 2 * values for name, values in upstreams.items()}, {})
    [output] = yield [call]
    first, second = (one if isinstance(one, tuple) else (one,) for one in (trial.output, output))
    bitwise = all(np.array_equal(2 * a, b, equal_nan=True) for a, b in zip(first, second, strict=True))
    return finding("the upstream doubled", trial.judge_call(call, output), bitwise)


def other_upstream(trial: Trial) -> Inquiry:
    """A second way back, with the upstream reversed, is right too: none is kept from before, and
    none is ignored.
    """
    call = Call(
        {name: np.flip(values).copy() for name, values in trial.inputs.items() if name.startswith(UPSTREAM)},
        {},
    )
    output, again = yield [call, Call({}, {})]
    found = finding("the upstream reversed", trial.judge_call(call, output), None)
    return (
        finding("the first upstream once more", trial.judge_call(Call({}, {}), again), None)
        if found.held
        else found
    )


def double_backward(trial: Trial) -> Inquiry:
    """Where a gradient can be differentiated again, that is right too: penalties on gradients and
    second orders need it.
    """
    x = trial.x
    if not {"x", "logits"} & set(trial.inputs):
        return Finding(held=True, note="no op of rows")
    upstream = Draw(f"second|{x.shape}").normal(*x.shape)
    call = Call({SECOND: trial.format.round(upstream)}, {})
    if not trial.supports(call):
        return Finding(held=True, note="the kernel takes no such call")
    [output] = yield [call]
    what = (
        "the gradient of the gradient (a backward that cannot be differentiated is marked"
        " once_differentiable)"
    )
    return finding(what, trial.judge_call(call, output), None)
