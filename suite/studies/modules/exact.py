"""Forward and gradient of the modules from their parameters, in mpmath, independent of torch's
kernels and its autograd.

The formulas are written a second time, on numpy arrays of exact numbers; the gradient is that of
the tape (tape.py). Only sizes of a few dozen numbers a tensor are meant: a number takes about 10
microseconds for every operation on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from suite.studies.modules.additive_attention import AddedInput, AdditiveAttention
from suite.studies.modules.attention_softmax import AttentionSoftmax, PooledAttentionSoftmax
from suite.studies.modules.lstm_attention import LSTMAttention
from suite.studies.modules.multi_head_attention import MultiHeadAttention
from suite.studies.modules.multiplicative_attention import MultiplicativeAttention, ScaledInput
from suite.studies.modules.position_attention import PositionAttention
from suite.studies.modules.tape import Objects, gradients, numbers, values
from suite.studies.modules.transformer_stack import TransformerStack
from suite.tensors import to_float64, to_numpy

BITS = 256


class Weights:
    """A module's parameters and buffers as exact numbers, by name; `of` is a part's."""

    def __init__(self, tensors: Mapping[str, Objects], prefix: str = "") -> None:
        self._tensors, self._prefix = tensors, prefix

    def __getitem__(self, name: str) -> Objects:
        return self._tensors[self._prefix + name]

    def of(self, part: str) -> Weights:
        return Weights(self._tensors, f"{self._prefix}{part}.")


# The mathematics, of arrays of numbers.


def softmax(x: Objects, axis: int = -1) -> Objects:
    e = np.exp(x)  # mpmath has no largest number: no shift is needed
    return e / e.sum(axis, keepdims=True)


def sigmoid(x: Objects) -> Objects:
    return 1 / (1 + np.exp(-x))


def linear(w: Weights, x: Objects, *, bias: bool = True) -> Objects:
    y = x @ w["weight"].T
    return y + w["bias"] if bias else y


def layer_norm(w: Weights, x: Objects, epsilon: float) -> Objects:
    centred = x - x.sum(-1, keepdims=True) / x.shape[-1]
    variance = (centred * centred).sum(-1, keepdims=True) / x.shape[-1]
    return centred / np.sqrt(variance + epsilon) * w["weight"] + w["bias"]


def attention_softmax(module: AttentionSoftmax, w: Weights, x: Objects) -> Objects:
    a = softmax(x @ (w["query"] @ w["weight"]))
    return softmax(a[..., None] * x, -2)


def pooled_attention_softmax(module: PooledAttentionSoftmax, w: Weights, x: Objects) -> Objects:
    a = softmax(linear(w.of("energy"), linear(w.of("query"), x), bias=False), -2)
    return softmax((a * x).sum(-2))


def multi_head_attention(
    module: MultiHeadAttention, w: Weights, x: Objects, context: Objects | None = None
) -> Objects:
    import mpmath

    context = x if context is None else context
    d = module.head_size
    q, k, v = linear(w.of("query"), x), linear(w.of("key"), context), linear(w.of("value"), context)
    heads = [slice(h * d, (h + 1) * d) for h in range(module.heads)]
    scale = 1 / mpmath.sqrt(d)
    parts = [softmax(q[..., h] @ k[..., h].swapaxes(-2, -1) * scale) @ v[..., h] for h in heads]
    y = linear(w.of("output"), np.concatenate(parts, -1))
    return layer_norm(w.of("norm"), y, module.norm.eps) if isinstance(module.norm, nn.LayerNorm) else y


def transformer_stack(module: TransformerStack, w: Weights, x: Objects) -> Objects:
    layer: Any
    for number, layer in enumerate(module.layers):
        part = w.of(f"layers.{number}")
        inside = (
            layer_norm(part.of("before"), x, layer.before.eps)
            if isinstance(layer.before, nn.LayerNorm)
            else x
        )
        y = multi_head_attention(layer.attention, part.of("attention"), inside)
        y = x + y if layer.residual else y
        x = layer_norm(part.of("after"), y, layer.after.eps) if isinstance(layer.after, nn.LayerNorm) else y
    return x


def position_attention(module: PositionAttention, w: Weights, tokens: NDArray[np.int64]) -> Objects:
    z = w["embedding.weight"][tokens] + w["position"][: tokens.shape[-1]]
    p = softmax(z @ w["query"])
    return (p[..., None] * z).sum(-2)


def lstm_attention(module: LSTMAttention, w: Weights, tokens: NDArray[np.int64]) -> Objects:
    h = lstm(w.of("lstm"), w["embedding.weight"][tokens])
    p = softmax(np.tanh(linear(w.of("score"), h)), -2)
    return sigmoid(linear(w.of("dense"), (p * h).sum(-2)))


def lstm(w: Weights, x: Objects) -> Objects:
    """h of every time (Hochreiter and Schmidhuber 1997, with a forget gate), x [batch, n, size],
    gates in torch's order.
    """
    found = []
    h: Any = None
    c: Any = None
    for t in range(x.shape[1]):
        gates = x[:, t] @ w["weight_ih_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
        gates = gates if h is None else gates + h @ w["weight_hh_l0"].T
        enter, forget, candidate, leave = np.split(gates, 4, axis=-1)
        c = sigmoid(enter) * np.tanh(candidate) + (0 if c is None else sigmoid(forget) * c)
        h = sigmoid(leave) * np.tanh(c)
        found.append(h)
    return np.stack(found, axis=1)


def added_input(module: AddedInput, w: Weights, x: Objects) -> Objects:
    return x + linear(w.of("linear"), x, bias=False)


def additive_attention(module: AdditiveAttention, w: Weights, queries: Objects, keys: Objects) -> Objects:
    q, k = linear(w.of("query"), queries, bias=False), linear(w.of("key"), keys, bias=False)
    energy = linear(w.of("energy"), np.tanh(q[..., :, None, :] + k[..., None, :, :]), bias=False)
    return softmax(energy[..., 0]) @ keys


def scaled_input(module: ScaledInput, w: Weights, x: Objects) -> Objects:
    return x * w["weight"]


def multiplicative_attention(
    module: MultiplicativeAttention, w: Weights, queries: Objects, keys: Objects
) -> Objects:
    return softmax(queries @ linear(w.of("key"), keys, bias=False).swapaxes(-2, -1)) @ keys


def plain_softmax(module: nn.Softmax, w: Weights, x: Objects) -> Objects:
    return softmax(x, -1 if module.dim is None else module.dim)


FORMULAS: dict[type[nn.Module], Callable[..., Objects]] = {
    nn.Softmax: plain_softmax,
    AttentionSoftmax: attention_softmax,
    PooledAttentionSoftmax: pooled_attention_softmax,
    MultiHeadAttention: multi_head_attention,
    TransformerStack: transformer_stack,
    PositionAttention: position_attention,
    LSTMAttention: lstm_attention,
    AddedInput: added_input,
    AdditiveAttention: additive_attention,
    ScaledInput: scaled_input,
    MultiplicativeAttention: multiplicative_attention,
}


@dataclass(frozen=True, slots=True)
class Exact:
    """A module's output and gradients, as arrays of mpf."""

    output: Objects

    inputs: tuple[Objects | None, ...]
    """The gradients of floating inputs; None for tokens."""

    parameters: dict[str, Objects]
    """The gradients by name."""


def exact(
    module: nn.Module, inputs: Sequence[torch.Tensor], upstream: torch.Tensor, *, bits: int = BITS
) -> Exact:
    """The module's output and the gradients of sum(output * upstream), to about `bits` bits.

    The module's parameters, its inputs and upstream are taken as they stand, exactly. Dropout is
    left out, as in evaluation. Raises ValueError for a module that is none of FORMULAS or that
    drops out, and for an upstream of another shape.
    """
    import mpmath

    formula = next((formula for kind, formula in FORMULAS.items() if isinstance(module, kind)), None)
    if formula is None:
        known = ", ".join(kind.__name__ for kind in FORMULAS)
        raise ValueError(f"{type(module).__name__} has no exact formula; those with one: {known}")
    if any(isinstance(part, nn.Dropout) and part.training and part.p for part in module.modules()):
        raise ValueError(f"{type(module).__name__} drops out while it trains; call eval() first")
    with mpmath.mp.workprec(bits):
        parameters = {name: numbers(to_float64(tensor)) for name, tensor in module.named_parameters()}
        buffers = {name: numbers(to_float64(tensor)) for name, tensor in module.named_buffers()}
        arguments = [numbers(to_float64(x)) if x.is_floating_point() else to_numpy(x) for x in inputs]
        output = formula(module, Weights({**parameters, **buffers}), *arguments)
        if output.shape != tuple(upstream.shape):
            raise ValueError(f"upstream has shape {tuple(upstream.shape)}, the output {output.shape}")
        floating = [a for a in arguments if a.dtype == object]
        found = gradients(output, values(numbers(to_float64(upstream))), [*floating, *parameters.values()])
        of_inputs = iter(found[: len(floating)])
        return Exact(
            output=values(output),
            inputs=tuple(next(of_inputs) if a.dtype == object else None for a in arguments),
            parameters=dict(zip(parameters, found[len(floating) :], strict=True)),
        )
