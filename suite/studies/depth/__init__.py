"""Gradients through depth, rank collapse, the Lipschitz constant of softmax, and what attention in
front of it changes.

transformer_stack   gradient norms through 1 to 64 layers of self-attention, with and without residuals
                    and LayerNorm
rank_collapse       ||X - 1 m^T||_2 / ||X||_2 after each layer, m = the mean token (Dong et al., arXiv
                    2103.03404)
lipschitz           the largest norm of the Jacobian of torch.softmax over many rows (Nair, arXiv
                    2510.23012: at most 1/2)
attention_softmax   vanished gradients of softmax and of softmax behind attention, on the same inputs:
                    docs/depth.md

These are the ops of the measurements, and no verdicts. All weights and inputs are numbers of every
format (common()), so that a format's run and the float64 run that it is compared with start from
the same numbers. `kernel` names the module, `dtype` the format of its tensors. Shares are of
entries or rows, between 0 and 1; a number that is not finite is None.

data, JSON-ready, by op:
    transformer_stack   depths; gain, error and false_zeros by depth L: ||dx_0|| / ||dx_L||, the
                        relative error of dx_0 against
                        the float64 run, and the share of its entries that are 0 while the float64
                        entry is a normal number of the format. layers, query: by layer of the
                        deepest stack, ||dx_l|| / ||dx_L|| and the norm of the gradient of W_q over
                        that of W_v. overflow: the first layer whose output is not finite, or None.
                        one_hot: the share of its last layer's softmaxes that are exactly one-hot.
                        check: the relative error of the float64 gradient against the exact one, at
                        CHECKED layers
    rank_collapse       smallest, median, largest: over DRAWS draws, by layer, from the input on
    rank_collapse_exact log10: of the same ratio of Frobenius norms, by layer, in mpmath: no format's floor
    lipschitz           lengths; infinity and two: the largest norm over ENTRIES / n rows of each length n
    attention_softmax   scales; by scale, zeros and false_zeros: shares of gradients that are exactly
                        0, and those of them that
                        are normal numbers of the format; tiny: the share whose exact value is below
                        the normal numbers; dead: rows without any gradient; lost: rows whose
                        gradient is off by its own norm or more, dead ones included; saturated: rows
                        whose largest output is exactly 1; gain: the median of ||dx|| /
                        ||upstream||, exact; order, order_below_zero: the share of rows whose
                        largest input has not the largest output, as they are and moved down to a
                        largest input of -1, in float64: of modules whose outputs are the inputs'
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from suite.case import PROFILES
from suite.formats import DTYPES, Array, Format, bfloat16, float16, float64, get_format
from suite.inputs.draws import Draw
from suite.records.record import Measurement
from suite.tensors import to_float64, to_torch

if TYPE_CHECKING:
    import torch
    from torch import nn

    from suite.studies.modules.transformer_stack import TransformerStack

STACKS: dict[str, dict[str, Any]] = {
    "attention": {"residual": False, "norm": "none"},
    "LayerNorm before": {"residual": False, "norm": "before"},
    "LayerNorm after": {"residual": False, "norm": "after"},
    "residual": {"residual": True, "norm": "none"},
    "residual, LayerNorm before": {"residual": True, "norm": "before"},
    "residual, LayerNorm after": {"residual": True, "norm": "after"},
    "residual, LayerNorm inside": {"residual": True, "norm": "output"},
}
"""The stacks by name, as arguments of TransformerStack. Without a residual, LayerNorm inside and
after are the same.
"""

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
TOKENS = 32
SIZE = 64
HEADS = 4

CHECKED = 2
CHECKED_SIZE = 8

COLLAPSE_SIZE = 64
COLLAPSE_LAYERS = 12
DRAWS = 8
EXACT_LAYERS = 6

LENGTHS = (2, 3, 8, 32)
ENTRIES = 2**15

SCALES = (1.0, 4.0, 16.0, 64.0)
BATCH = 8
POSITIONS = 6
FEATURES = 16
HIDDEN = 4
BITS = 1024
"""Of the exact gradients at the largest scale: a product of two weights of e^-400 still has 130
bits and more.
"""


def measure(profile: str = "quick", *, dtypes: Sequence[str] = DTYPES) -> Iterator[Measurement]:
    """The measurements of this chapter on the CPU, nothing at profile "smoke". ValueError: for an
    unknown profile or dtype.
    """
    from suite.version import __version__

    if profile not in PROFILES:
        raise ValueError(f"profile={profile!r} is not one of {', '.join(PROFILES)}")
    formats = [get_format(name) for name in dtypes]
    if profile == "smoke":
        return
    measured: dict[str, dict[str, Callable[[], dict[str, dict[str, Any]]]]] = {
        "lipschitz": {"softmax": lambda: lipschitz(formats)},
        "attention_softmax": {name: partial(vanishing, name, formats) for name in CONTENDERS},
        "rank_collapse": {name: partial(rank_collapse, name, formats) for name in STACKS},
        "rank_collapse_exact": {"attention": lambda: {"float64": {"log10": exact_residuals(EXACT_LAYERS)}}},
        "transformer_stack": {name: partial(gradients_through, name, formats) for name in STACKS},
    }
    for op, by_kernel in measured.items():
        for kernel, of_formats in by_kernel.items():
            for name, data in of_formats().items():
                yield Measurement(
                    kind="depth", kernel=kernel, op=op, dtype=name, suite_version=__version__, data=data
                )


def common(values: Array) -> Array:
    """Values rounded to numbers that every format of DTYPES holds: those of bfloat16, and multiples
    of 2^-24 as of float16.
    """
    return float16.round(bfloat16.round(values))


def norm(x: torch.Tensor) -> float:
    """The Euclidean norm of all entries, in float64."""
    return float(np.linalg.norm(to_float64(x)))


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def with_common_weights(make: Callable[[], nn.Module], key: str) -> Any:
    """The module in float64 with weights that every format holds."""
    import torch

    from suite.studies.modules.weights import built

    module = built(make, key)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(to_torch(common(to_float64(parameter)), float64))
    return module


def in_format(module: nn.Module, format: Format) -> Any:
    """The same module, now in this format: with common weights there and back changes none of them."""
    import torch

    return module.to(getattr(torch, format.name))


def false_zeros(got: Array, expected: Array, format: Format) -> float:
    """The share of entries that are exactly 0 while the expected one is a normal number of the format."""
    return float(np.mean((got == 0) & (np.abs(expected) >= format.smallest_normal)))


# Gradients through depth.


def gradients_through(
    name: str, formats: Sequence[Format], *, depths: Sequence[int] = DEPTHS
) -> dict[str, dict[str, Any]]:
    """The data of op transformer_stack of one of STACKS, by format."""
    from suite.studies.modules.transformer_stack import TransformerStack

    deepest = depths[-1]
    stack = with_common_weights(
        lambda: TransformerStack(deepest, SIZE, HEADS, **STACKS[name]), f"depth: {name}"
    )
    x = common(Draw("depth: input").normal(TOKENS, SIZE))
    upstream = common(Draw("depth: upstream").normal(TOKENS, SIZE))
    runs = {
        f.name: _backward(in_format(stack, f), x, upstream, f, depths)
        for f in dict.fromkeys((float64, *formats))
    }
    reference = runs["float64"][0]
    check = exact_error(name)
    found = {}
    for f in formats:
        inputs, layers, others = runs[f.name]
        found[f.name] = {
            "depths": list(depths),
            "gain": [finite(float(np.linalg.norm(g) / np.linalg.norm(upstream))) for g in inputs],
            "error": [finite(_relative(g, right)) for g, right in zip(inputs, reference, strict=True)],
            "false_zeros": [false_zeros(g, right, f) for g, right in zip(inputs, reference, strict=True)],
            "layers": layers,
            **others,
            "check": check,
        }
    return found


def _backward(
    stack: TransformerStack, x: Array, upstream: Array, format: Format, depths: Sequence[int]
) -> tuple[list[Array], list[float | None], dict[str, Any]]:
    """The input's gradient for each depth; of the deepest stack every layer's gain, the query's,
    and where it overflows.
    """
    import torch

    states = stack.states(to_torch(x, format).requires_grad_())
    up = to_torch(upstream, format)
    inputs = [to_float64(torch.autograd.grad(states[L], states[0], up, retain_graph=True)[0]) for L in depths]
    attention: list[Any] = [layer.attention for layer in stack.layers]
    weights = [weight for part in attention for weight in (part.query.weight, part.value.weight)]
    found = torch.autograd.grad(states[-1], [*states[:-1], *weights], up)
    of_states, of_weights = found[: len(states) - 1], [norm(g) for g in found[len(states) - 1 :]]
    layers = [finite(norm(g) / float(np.linalg.norm(upstream))) for g in of_states]
    query = [finite(q / v) if v else None for q, v in zip(of_weights[::2], of_weights[1::2], strict=True)]
    overflow = next(
        (number for number, state in enumerate(states) if not bool(torch.isfinite(state).all())), None
    )
    top: Any = stack.layers[-1]
    last = top.before(states[-2].detach())
    one_hot = float((top.attention.weights(last, last).amax(-1) == 1).double().mean())
    return inputs, layers, {"query": query, "overflow": overflow, "one_hot": one_hot}


def _relative(got: Array, expected: Array) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def exact_error(name: str) -> float:
    """The relative error of float64's input gradient of CHECKED small layers against the exact one."""
    import torch

    from suite.studies.modules.exact import exact
    from suite.studies.modules.transformer_stack import TransformerStack

    stack = with_common_weights(
        lambda: TransformerStack(CHECKED, CHECKED_SIZE, 2, **STACKS[name]), f"depth, small: {name}"
    )
    x = to_torch(
        common(Draw("depth, small: input").normal(CHECKED_SIZE, CHECKED_SIZE)), float64
    ).requires_grad_()
    upstream = to_torch(common(Draw("depth, small: upstream").normal(CHECKED_SIZE, CHECKED_SIZE)), float64)
    [got] = torch.autograd.grad(stack(x), [x], upstream)
    [right] = exact(stack, (x,), upstream).inputs
    return _relative(to_float64(got), np.asarray(right, dtype=np.float64))


# Rank collapse.


def rank_collapse(name: str, formats: Sequence[Format], *, draws: int = DRAWS) -> dict[str, dict[str, Any]]:
    """The data of op rank_collapse of one of STACKS with one head and as many tokens as features,
    by format.
    """
    import torch

    from suite.studies.modules.transformer_stack import TransformerStack

    residuals: dict[str, list[list[float]]] = {f.name: [] for f in formats}
    for draw in range(draws):
        stack = with_common_weights(
            lambda: TransformerStack(COLLAPSE_LAYERS, COLLAPSE_SIZE, 1, **STACKS[name]), f"rank {draw}"
        )
        x = common(Draw(f"rank {draw}: input").normal(COLLAPSE_SIZE, COLLAPSE_SIZE))
        for f in formats:
            with torch.no_grad():
                states = in_format(stack, f).states(to_torch(x, f))
            residuals[f.name].append([relative_residual(to_float64(state)) for state in states])
    return {name: _spread(np.array(values)) for name, values in residuals.items()}


def relative_residual(x: Array) -> float:
    """||X - 1 m^T||_2 / ||X||_2, m = the mean row: 0 where all tokens are the same, NaN where an
    entry is not finite.
    """
    if not np.isfinite(x).all():
        return math.nan
    return float(np.linalg.norm(x - x.mean(axis=0), 2) / np.linalg.norm(x, 2))


def _spread(values: Array) -> dict[str, list[float | None]]:
    return {
        "smallest": [finite(float(v)) for v in values.min(axis=0)],
        "median": [finite(float(v)) for v in np.median(values, axis=0)],
        "largest": [finite(float(v)) for v in values.max(axis=0)],
    }


def exact_residuals(layers: int, *, size: int = 8, bits: int = BITS) -> list[float]:
    """log10 of the relative residual (of Frobenius norms) after each layer of attention alone, in
    mpmath: no floor at 2^-53.

    Dong et al.'s bound is cubic: each number is about three times the one before.
    """
    import mpmath

    from suite.studies.modules.exact import Weights, transformer_stack
    from suite.studies.modules.tape import numbers, values
    from suite.studies.modules.transformer_stack import TransformerStack

    found = []
    with mpmath.mp.workprec(bits):
        x = numbers(Draw("rank, exact: input").normal(size, size))
        for number in range(layers):
            stack = with_common_weights(
                lambda: TransformerStack(1, size, 1, **STACKS["attention"]), f"rank, exact {number}"
            )
            w = Weights({name: numbers(to_float64(tensor)) for name, tensor in stack.named_parameters()})
            x = transformer_stack(stack, w, x)
            state = values(x)
            x = numbers_of(state)
            centred = state - state.sum(0) / size
            found.append(float(mpmath.log10(mpmath.sqrt((centred**2).sum() / (state**2).sum()))))
    return found


def numbers_of(state: Any) -> Any:
    """mpf values as Numbers without a past."""
    from suite.studies.modules.tape import Number

    return np.array([[Number(v) for v in row] for row in state], dtype=object)


# The Lipschitz constant.


def lipschitz(formats: Sequence[Format]) -> dict[str, dict[str, Any]]:
    """The data of op lipschitz, by format: autograd's Jacobian of torch.softmax at rows from 4 N(0, 1)."""
    found = {}
    for f in formats:
        norms = [
            jacobian_norms(softmax_jacobian(common(4 * Draw(f"Lipschitz {n}").normal(ENTRIES // n, n)), f))
            for n in LENGTHS
        ]
        found[f.name] = {
            "lengths": list(LENGTHS),
            "infinity": [float(infinity.max()) for infinity, _ in norms],
            "two": [float(two.max()) for _, two in norms],
        }
    return found


def softmax_jacobian(x: Array, format: Format) -> Array:
    """dy_i / dx_j as autograd gives it in the format, for rows x [rows, n]: [rows, i, j]."""
    import torch

    n = x.shape[1]
    rows = to_torch(np.repeat(x[:, None, :], n, axis=1), format).requires_grad_()
    upstream = torch.eye(n, dtype=rows.dtype).expand(rows.shape)
    return to_float64(torch.autograd.grad(torch.softmax(rows, -1), rows, upstream)[0])


def jacobian_norms(jacobian: Array) -> tuple[Array, Array]:
    """The infinity norm, which is the 1-norm of the transposed, and the 2-norm of matrices [rows, n, n]."""
    return np.abs(jacobian).sum(axis=2).max(axis=1), np.linalg.norm(jacobian, 2, axis=(1, 2))


# Softmax and softmax behind attention, on the same inputs.


def attention_softmax() -> nn.Module:
    """Its scores are the logits themselves: q^T W = 1."""
    from suite.studies.modules.attention_softmax import AttentionSoftmax

    return AttentionSoftmax(1, 1).double()


def pooled_attention_softmax() -> nn.Module:
    from suite.studies.modules.attention_softmax import PooledAttentionSoftmax

    module: nn.Module = with_common_weights(
        lambda: PooledAttentionSoftmax(FEATURES, HIDDEN), "vanishing: pooled"
    )
    return module


def mean_softmax() -> nn.Module:
    """The pooled module with equal weights: what averaging alone does."""
    import torch

    module: Any = pooled_attention_softmax()
    with torch.no_grad():
        module.energy.weight.zero_()
    return module  # type: ignore[no-any-return]


def plain_softmax() -> nn.Module:
    from torch import nn

    return nn.Softmax(-2)


LOGITS, TOKENS_OF_FEATURES = (BATCH * POSITIONS, FEATURES, 1), (BATCH, POSITIONS, FEATURES)
CONTENDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "softmax": (plain_softmax, LOGITS, -2),
    "attention_softmax": (attention_softmax, LOGITS, -2),
    "softmax of the mean": (mean_softmax, TOKENS_OF_FEATURES, -1),
    "attention_softmax, pooled": (pooled_attention_softmax, TOKENS_OF_FEATURES, -1),
}
"""The module, the shape of its input and the dim of its softmax. All inputs hold the same numbers."""


def vanishing(
    name: str, formats: Sequence[Format], *, scales: Sequence[float] = SCALES
) -> dict[str, dict[str, Any]]:
    """The data of op attention_softmax of one of CONTENDERS, by format."""
    make, shape, dim = CONTENDERS[name]
    module = make()
    found: dict[str, dict[str, Any]] = {f.name: {"scales": list(scales)} for f in formats}
    for scale in scales:
        x = scale * common(Draw("vanishing: input").normal(*shape))
        columns = _counts(module, x, dim, formats)
        for format_name, counts in columns.items():
            for quantity, value in counts.items():
                found[format_name].setdefault(quantity, []).append(value)
    return found


def _counts(module: nn.Module, x: Array, dim: int, formats: Sequence[Format]) -> dict[str, dict[str, float]]:
    """Of one scale: the quantities by format."""
    import torch

    from suite.studies.modules.exact import exact

    output = in_format(module, float64)(to_torch(x, float64))
    upstream = common(Draw("vanishing: upstream").normal(*output.shape))
    right = exact(module, (to_torch(x, float64),), to_torch(upstream, float64), bits=BITS)
    expected = np.asarray(right.inputs[0], dtype=np.float64)
    # A row is what one softmax of the output normalises; the pooled module has one for all positions.
    pooled = output.ndim < x.ndim
    row: tuple[int, ...] = (-2, -1) if pooled else (dim,)
    order = (
        {}
        if pooled
        else {
            "order": reordered(module, x, dim),
            "order_below_zero": reordered(module, x - x.max(dim, keepdims=True) - 1, dim),
        }
    )
    found = {}
    for f in formats:
        leaf = to_torch(x, f).requires_grad_()
        y = in_format(module, f)(leaf)
        got = to_float64(torch.autograd.grad(y, leaf, to_torch(upstream, f))[0])
        found[f.name] = {
            "zeros": float(np.mean(got == 0)),
            "false_zeros": false_zeros(got, expected, f),
            "tiny": float(np.mean(np.abs(expected) < f.smallest_normal)),
            "dead": float(np.mean((got == 0).all(axis=row))),
            "lost": float(np.mean(_norms(got - expected, row) >= _norms(expected, row))),
            "saturated": float(np.mean(to_float64(y).max(axis=-1 if pooled else dim) == 1)),
            "gain": float(np.median(_norms(expected, row) / _norms(upstream, dim))),
            **order,
        }
    return found


def _norms(x: Array, axis: int | tuple[int, ...]) -> Array:
    return np.asarray(np.sqrt((x**2).sum(axis=axis)))


def reordered(module: nn.Module, x: Array, dim: int) -> float:
    """The share of rows whose largest input has not the largest output, in float64."""
    y = to_float64(module(to_torch(x, float64)))
    chosen = np.take_along_axis(y, np.expand_dims(x.argmax(axis=dim), dim), axis=dim)
    return float(np.mean(chosen < y.max(axis=dim, keepdims=True)))
