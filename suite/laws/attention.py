"""The relations of attention, one per function, as in relations.py. Where both sides have the same
exact value, the other side is judged by the reference of the first: a law is then as strict as the
judge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from suite.formats import Array
from suite.laws import Call, Finding, Inquiry, Trial, shapes_of
from suite.laws.relations import compare, finding
from suite.ops.attention import given
from suite.ops.attention.settings import SETTINGS, TENSORS
from suite.ops.attention.settings.base import Place, sizes_of
from suite.ops.attention.settings.causal import CAUSAL
from suite.settings import Part

HUGE = 2.0**10
"""What hidden keys and values hold: far from every result, and a number of every format."""

WIDE = 2.0**10
"""A softcap that ordinary scores hardly feel: s - c tanh(s / c) is at most s^3 / (3 c^2), and c u
is still small.
"""


def reversed_keys(trial: Trial) -> Inquiry:
    """Keys and values in reverse order, with their columns of the mask, give the same result: a sum
    has no order.
    """
    if _positional(trial):
        return Finding(held=True, note="keys have positions here")
    changes = {"k": _backwards(trial.inputs["k"], 2), "v": _backwards(trial.inputs["v"], 2)}
    if trial.inputs.get("mask") is not None:
        changes["mask"] = _backwards(_whole_mask(trial), 3)
    [output] = yield [Call(changes, {})]
    return compare(trial, "keys in reverse order", output)


def reversed_queries(trial: Trial) -> Inquiry:
    """Queries in reverse order, with their rows of the mask, give the same results in reverse: no
    query knows another.
    """
    if _positional(trial, keys=False):
        return Finding(held=True, note="queries have positions here")
    changes = {"q": _backwards(trial.inputs["q"], 2)}
    if trial.inputs.get("mask") is not None:
        changes["mask"] = _backwards(_whole_mask(trial), 2)
    [output] = yield [Call(changes, {})]
    return compare(trial, "queries in reverse order", _each(output, lambda y: _backwards(y, 2)))


def prefix(trial: Trial) -> Inquiry:
    """The first queries give the same result without the later ones: none of them is seen by another."""
    length = trial.inputs["q"].shape[2]
    count = length - max(length // 4, 1)
    if count < 1 or trial.options["causal"] == "bottom_right":
        return Finding(held=True, note="no shorter prefix has the same alignment")
    changes = {"q": trial.inputs["q"][:, :, :count]}
    if trial.inputs.get("mask") is not None:
        changes["mask"] = _whole_mask(trial)[:, :, :count]
    [output] = yield [Call(changes, {})]
    return compare(
        trial,
        f"the first {count} queries alone",
        _placed(trial, output, (slice(None), slice(None), slice(count))),
    )


def causal_prefix(trial: Trial) -> Inquiry:
    """Under a causal mask the first queries give the same result without the later keys."""
    count = trial.inputs["q"].shape[2] * 3 // 4
    if (
        trial.options["causal"] != "top_left"
        or not 0 < count < trial.inputs["k"].shape[2]
        or "mask" in trial.inputs
    ):
        return Finding(held=True, note="no causal prefix")
    inputs = {name: trial.inputs[name][:, :, :count] for name in ("q", "k", "v")}
    if "kv_lengths" in trial.inputs:
        inputs["kv_lengths"] = np.minimum(trial.inputs["kv_lengths"], count)
    [output] = yield [Call(inputs, {})]
    return compare(
        trial, f"the first {count} of all", _placed(trial, output, (slice(None), slice(None), slice(count)))
    )


def masked(trial: Trial) -> Inquiry:
    """Causal, window, kv_lengths and a boolean mask are what one boolean mask of what they show is."""
    place, named = _place(trial), given(trial.inputs, trial.options)
    shown = {setting.name: setting.equivalent(value, place) for setting, value in named}
    if "mask" in shown and shown["mask"] is None:
        return (yield from _same_as_before(trial, {}))
    mask = np.ones((1, 1, *place.shape[2:]), dtype=np.bool_)
    for one in shown.values():
        mask = mask if one is None else mask & one
    beside = any(setting.uses_positions for setting, _ in named if shown[setting.name] is None)
    inputs: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for setting, _ in named:
        if shown[setting.name] is not None and not (setting.places_queries and beside):
            (inputs if setting.part is Part.TENSOR else options)[setting.name] = setting.default
    calls = {"one boolean mask instead": Call({**inputs, "mask": mask}, options)}
    if np.isfinite(trial.inputs["q"]).all() and np.isfinite(trial.inputs["k"]).all():  # NaN + -inf is NaN
        additive = np.where(mask, 0.0, -np.inf)
        calls["one additive mask of -inf instead"] = Call({**inputs, "mask": additive}, options)
    return (yield from _same_as_before(trial, calls))


def neutral(trial: Trial) -> Inquiry:
    """Every option at its limit changes nothing: the default scale given, a window that reaches
    over all, a mask that shows all, no bias, slopes of 0, a sink at -inf, all keys counted.
    """
    shapes, named = shapes_of(trial.inputs), [setting for setting, _ in given(trial.inputs, trial.options)]
    calls = {}
    for setting in SETTINGS:
        if setting not in named:
            for what, value in setting.neutral(shapes).items():
                one = {setting.name: value}
                calls[what] = Call(one, {}) if setting.part is Part.TENSOR else Call({}, one)
    return (yield from _same_as_before(trial, calls))


def repeated_heads(trial: Trial) -> Inquiry:
    """Shared key heads are what their repetition is: head h reads key head h // (H / G)."""
    share = trial.inputs["q"].shape[1] // trial.inputs["k"].shape[1]
    if share == 1:
        return Finding(held=True, note="no heads are shared")
    changes = {name: np.repeat(trial.inputs[name], share, axis=1) for name in ("k", "v")}
    return (yield from _same_as_before(trial, {"key heads repeated": Call(changes, {"enable_gqa": False})}))


def hidden_keys(trial: Trial) -> Inquiry:
    """Keys that nobody sees change nothing, whatever finite numbers they hold: behind kv_lengths,
    or masked.
    """
    if trial.options["causal"] == "bottom_right":
        return Finding(held=True, note="more keys would move the diagonal")
    batches, size = trial.inputs["k"].shape[0], trial.inputs["k"].shape[2]
    longer = {
        name: np.concatenate(
            [trial.inputs[name], np.full_like(trial.inputs[name][:, :, :1].repeat(7, axis=2), HUGE)], axis=2
        )
        for name in ("k", "v")
    }
    calls = {}
    if "mask" not in trial.inputs:
        counted = trial.inputs.get("kv_lengths", np.full(batches, size))
        calls["7 more keys behind kv_lengths"] = Call({**longer, "kv_lengths": counted}, {})
    whole = _whole_mask(trial)
    hide = False if whole.dtype == np.bool_ else -np.inf
    mask = np.concatenate([whole, np.full((*whole.shape[:3], 7), hide)], axis=3)
    calls["7 more keys under the mask"] = Call({**longer, "mask": mask}, {})
    return (yield from _same_as_before(trial, calls))


def shifted_scores(trial: Trial) -> Inquiry:
    """A number added to all scores of a query changes nothing: only differences count."""
    if "sink" in trial.inputs or ("mask" in trial.inputs and trial.inputs["mask"].dtype != np.bool_):
        return Finding(held=True, note="a shift would count here")
    bias = np.full((1, 1, trial.inputs["q"].shape[2], trial.inputs["k"].shape[2]), 16.0)
    if "mask" in trial.inputs:
        bias = np.where(_whole_mask(trial), bias, -np.inf)
    return (yield from _judged(trial, {"16 added to all scores": Call({"mask": bias}, {})}))


def wide_softcap(trial: Trial) -> Inquiry:
    """A softcap far above every score caps nothing: c tanh(s / c) is s within its rounding, as the
    cap goes to infinity.
    """
    return (yield from _judged(trial, {f"a softcap of {WIDE:,.0f}": Call({}, {"softcap": WIDE})}))


def equal_values(trial: Trial) -> Inquiry:
    """The average of equal values is that value: an output lies within the hull of V, which is one
    point here.
    """
    if not np.isfinite(trial.inputs["q"]).all() or not np.isfinite(trial.inputs["k"]).all():
        return Finding(held=True, note="NaN is no average")
    column = np.arange(trial.inputs["v"].shape[3])
    values = np.where(column % 2 == 0, 1.0, -3.0)
    return (
        yield from _judged(
            trial, {"equal values": Call({"v": np.broadcast_to(values, trial.inputs["v"].shape)}, {})}
        )
    )


def with_log_sum_exp(trial: Trial) -> Inquiry:
    """The result with its log-sum-exp is judged as both, and the sum alone is not another's."""
    return (
        yield from _judged(
            trial, {"with return_lse": Call({}, {"return_lse": not trial.options["return_lse"]})}
        )
    )


def parts(trial: Trial) -> Inquiry:
    """Both halves of the keys, each with its log-sum-exp, are right, so that merging them gives the whole."""
    size = trial.inputs["k"].shape[2]
    mask = trial.inputs.get("mask")
    lowest = mask is not None and bool((np.isfinite(mask) & (mask <= -trial.format.largest / 4)).any())
    if size < 2 or _positional(trial) or "sink" in trial.inputs or lowest:
        return Finding(held=True, note="no halves of the same meaning")
    cut = (size + 1) // 2
    calls = {}
    for what, chosen in (("the first half of the keys", slice(cut)), ("the second half", slice(cut, None))):
        inputs = {name: trial.inputs[name][:, :, chosen] for name in ("k", "v")}
        if "mask" in trial.inputs:
            inputs["mask"] = _whole_mask(trial)[..., chosen]
        calls[what] = Call(inputs, {"return_lse": True})
    return (yield from _judged(trial, calls))


def alone(trial: Trial) -> Inquiry:
    """A batch entry gives the same result alone as among others: nothing leaks between them."""
    batches = trial.inputs["q"].shape[0]
    if batches < 2:
        return Finding(held=True, note="one batch entry only")
    calls = [Call(_entry(trial, batch), {}) for batch in (0, batches - 1)]
    outputs = yield calls
    bitwise = True
    for batch, output in zip((0, batches - 1), outputs, strict=True):
        found = compare(
            trial, f"batch entry {batch} alone", _placed(trial, output, (slice(batch, batch + 1),))
        )
        bitwise &= bool(found.bitwise)
        if not found.held:
            return found
    return Finding(held=True, bitwise=bitwise)


def hostile_neighbours(trial: Trial) -> Inquiry:
    """A batch entry, and a query, keeps its result when every other one's query turns to NaN,
    infinities and huge numbers.
    """
    query = trial.inputs["q"].copy()
    batches, _, length, _ = query.shape
    index = np.arange(length)
    hostile = (index[None, :] + np.arange(batches)[:, None]) % 2 == 1
    values = np.array([np.nan, trial.format.largest / 4, -np.inf, np.inf])[index // 2 % 4]
    query = np.where(hostile[:, None, :, None], values[None, None, :, None], query)
    [output] = yield [Call({"q": query}, {})]

    def mended(new: Array, old: Array) -> Array:
        bad = hostile[:, None, :].reshape(batches, 1, length, *[1] * (new.ndim - 3))
        return np.where(bad, old, new)

    kept = tuple(map(mended, _tuple(output), _tuple(trial.output)))
    return compare(trial, "the queries between hostile ones", kept if isinstance(output, tuple) else kept[0])


def other_inputs(trial: Trial) -> Inquiry:
    """A call on other queries of the same shape is right too, and so is the first again after it:
    none is kept and replayed.
    """
    other = Call({"q": -trial.inputs["q"]}, {})
    output, again = yield [other, Call({}, {})]
    found = finding("the queries negated", trial.judge_call(other, output), None)
    return compare(trial, "the first input once more", again) if found.held else found


def _same_as_before(trial: Trial, calls: dict[str, Call]) -> Inquiry:
    """Calls whose exact result is the trial's own; those that the kernel takes."""
    calls = {what: call for what, call in calls.items() if trial.supports(call)}
    if not calls:
        return Finding(held=True, note="the kernel takes no such call")
    outputs = yield list(calls.values())
    bitwise = True
    for what, output in zip(calls, outputs, strict=True):
        if output is None:
            continue
        found = compare(trial, what, output)
        bitwise &= bool(found.bitwise)
        if not found.held:
            return found
    return Finding(held=True, bitwise=bitwise)


def _judged(trial: Trial, calls: dict[str, Call]) -> Inquiry:
    """Calls that are judged by a reference of their own; those that the kernel takes."""
    calls = {what: call for what, call in calls.items() if trial.supports(call)}
    if not calls:
        return Finding(held=True, note="the kernel takes no such call")
    outputs = yield list(calls.values())
    for (what, call), output in zip(calls.items(), outputs, strict=True):
        if output is None:
            continue
        found = finding(what, trial.judge_call(call, output), None)
        if not found.held:
            return found
    return Finding(held=True)


def _positional(trial: Trial, *, keys: bool = True) -> bool:
    """Whether what a query sees, or adds, depends on its position; or, of keys, on theirs."""
    named = [setting for setting, _ in given(trial.inputs, trial.options)]
    return any(setting.uses_positions or (keys and setting.counts_keys) for setting in named)


def _whole_mask(trial: Trial) -> Any:
    """The mask as [B, H, L, S]; one that shows everything where there is none."""
    shape = (*trial.inputs["q"].shape[:3], trial.inputs["k"].shape[2])
    mask = trial.inputs.get("mask")
    return np.broadcast_to(np.ones(1, dtype=bool) if mask is None else mask, shape)


def _place(trial: Trial) -> Place:
    """Where all queries stand."""
    shape = sizes_of(shapes_of(trial.inputs))
    return Place.of_all(shape, CAUSAL.offset(trial.options["causal"], *shape[2:]))


def _entry(trial: Trial, batch: int) -> dict[str, Any]:
    """The inputs of one batch entry."""
    return {
        name: TENSORS[name].entry(tensor, batch) if name in TENSORS else tensor[batch : batch + 1]
        for name, tensor in trial.inputs.items()
    }


def _placed(trial: Trial, output: Any, where: tuple[slice, ...]) -> Any:
    """The trial's output with a part of it from another call."""

    def place(old: Array, new: Array) -> Array:
        mixed = old.copy()
        mixed[where] = new
        return mixed

    mixed = tuple(map(place, _tuple(trial.output), _tuple(output)))
    return mixed if isinstance(output, tuple) else mixed[0]


def _backwards(tensor: Any, axis: int) -> Any:
    return np.ascontiguousarray(np.flip(tensor, axis=axis))


def _each(output: Any, change: Any) -> Any:
    return tuple(map(change, output)) if isinstance(output, tuple) else change(output)


def _tuple(output: Any) -> tuple[Any, ...]:
    return output if isinstance(output, tuple) else (output,)
