"""Attention to two sets of keys, as one: each a state, an output and the logarithm of its normaliser.

    lse = ln(e^lse_a + e^lse_b),    o = e^(lse_a - lse) o_a + e^(lse_b - lse) o_b

with the larger lse taken out of the exponentials (Flash-Decoding; ring attention, Liu et al., arXiv
2310.01889; FlashInfer, Ye et al., arXiv 2501.01005). Of two states with lse = -inf, o = 0 and lse =
-inf.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch

from suite.kernels.parts.partial import finite

State = tuple[torch.Tensor, torch.Tensor]


def merge(a: State, b: State) -> State:
    """(o, lse) of states (o [..., E], lse [..., 1]) of one dtype; where lse = -inf, o must be finite."""
    (o_a, lse_a), (o_b, lse_b) = a, b
    m = torch.maximum(lse_a, lse_b)
    w_a, w_b = torch.exp(lse_a - finite(m)), torch.exp(lse_b - finite(m))
    return average(o_a, w_a, o_b, w_b), m + torch.log(w_a + w_b)


def average(o_a: torch.Tensor, w_a: torch.Tensor, o_b: torch.Tensor, w_b: torch.Tensor) -> torch.Tensor:
    """(w_a o_a + w_b o_b) / (w_a + w_b), and 0 where both weights are."""
    d = w_a + w_b
    return (w_a * o_a + w_b * o_b) / torch.where(d == 0, 1.0, d)


def of_states(formula: Callable[[State, State], State]) -> Callable[..., State]:
    """Makes formula((o_a, lse_a), (o_b, lse_b)) a kernel merge_states, which rounds o to o_a's
    dtype and lse to lse_a's.

    The formula gets float32, float64 where a tensor has it, lse [..., 1], and o = 0 where lse =
    -inf: such a state weighs nothing, whatever its o. Raises ValueError, which names the tensor,
    for shapes that do not match and for dtypes that are not floating.
    """

    def merge_states(o_a: torch.Tensor, lse_a: torch.Tensor, o_b: torch.Tensor, lse_b: torch.Tensor) -> State:
        tensors = {"o_a": o_a, "lse_a": lse_a, "o_b": o_b, "lse_b": lse_b}
        for name, tensor in tensors.items():
            expected = o_a.shape if name.startswith("o") else o_a.shape[:-1]
            if o_a.ndim == 0 or tensor.shape != expected:
                raise ValueError(
                    f"{name} has shape {list(tensor.shape)}; o_a has {list(o_a.shape)}, so expected"
                    f" {list(expected)}"
                )
            if not tensor.is_floating_point():
                raise ValueError(f"{name} has dtype {tensor.dtype}; expected a floating one")
        compute = (
            torch.float64
            if any(tensor.dtype == torch.float64 for tensor in tensors.values())
            else torch.float32
        )
        a, b = (_seen(o.to(compute), lse.to(compute)[..., None]) for o, lse in ((o_a, lse_a), (o_b, lse_b)))
        o, lse = formula(a, b)
        return o.to(o_a.dtype), lse.squeeze(-1).to(lse_a.dtype)

    signature = inspect.signature(merge_states)
    functools.update_wrapper(merge_states, formula)
    merge_states.__signature__ = signature  # type: ignore[attr-defined]  # of the kernel, not of the formula
    return merge_states


def _seen(o: torch.Tensor, lse: torch.Tensor) -> State:
    """The state with o = 0 where lse = -inf, and no gradient there: exactly 0, where -inf - -inf
    would have it NaN.
    """
    nothing = lse == -torch.inf
    return o.masked_fill(nothing, 0.0), lse.masked_fill(nothing, -torch.inf)
