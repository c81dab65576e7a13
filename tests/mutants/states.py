"""Mutants of merge_states: tests/honest/states.py with one step wrong."""

from __future__ import annotations

import functools

import torch

from suite.kernels.parts.partial import finite
from tests.honest.states import OP, Merge, average, log_sum, powers
from tests.mutants.mutant import FLOAT32, LN2, LOG2E, mutant, round_to, step

NARROW = ("float32", "bfloat16", "float16")
SPECIAL = ("law_broken", "inaccurate", "nonfinite")


wrong = functools.partial(step, OP, Merge(), dtypes=NARROW)
"""wrong(step, breaks, *statuses) registers the kernel with a function in place of a step."""

wrong_call = functools.partial(mutant, OP, dtypes=NARROW)
"""wrong_call(breaks, *statuses) registers f(o_a, lse_a, o_b, lse_b)."""


@wrong("powers", "no maximum is taken out of the exponentials", *SPECIAL)
def no_maximum(lse_a, lse_b):
    return torch.zeros_like(lse_a), torch.exp(lse_a), torch.exp(lse_b)


@wrong("powers", "the smaller log-sum-exp is taken out: exp overflows", *SPECIAL)
def minimum_taken_out(lse_a, lse_b):
    m = torch.minimum(lse_a, lse_b)
    return m, torch.exp(lse_a - finite(m)), torch.exp(lse_b - finite(m))


@wrong("powers", "exp2 of natural log-sum-exps")  # sgl-project/sglang#33064; vllm-project/vllm#28840
def weights_in_base_2(lse_a, lse_b):
    m = torch.maximum(lse_a, lse_b)
    return m, torch.exp2(lse_a - finite(m)), torch.exp2(lse_b - finite(m))


@wrong("powers", "differences below -8 are taken for -8", dtypes=FLOAT32)
def difference_clamped(lse_a, lse_b):
    m = torch.maximum(lse_a, lse_b)
    return m, torch.exp((lse_a - finite(m)).clamp(min=-8)), torch.exp((lse_b - finite(m)).clamp(min=-8))


@wrong(
    "powers", "two empty states give NaN: -inf - -inf", *SPECIAL
)  # flashinfer-ai/flashinfer#4051; vllm-project/vllm#28181
def empty_nan(lse_a, lse_b):
    m = torch.maximum(lse_a, lse_b)
    return m, torch.exp(lse_a - m), torch.exp(lse_b - m)


@wrong("powers", "weights are rounded to bfloat16")
def weights_in_bfloat16(lse_a, lse_b):
    m, w_a, w_b = powers(lse_a, lse_b)
    return m, round_to(w_a, torch.bfloat16), round_to(w_b, torch.bfloat16)


@wrong("powers", "the log-sum-exps are rounded to float16", *SPECIAL)
def log_sum_exps_in_float16(lse_a, lse_b):
    return powers(round_to(lse_a, torch.float16), round_to(lse_b, torch.float16))


@wrong("powers", "each log-sum-exp is itself the weight", *SPECIAL)
def weights_without_exp(lse_a, lse_b):
    return torch.zeros_like(lse_a), lse_a, lse_b


@wrong("average", "the outputs are exchanged")
def weights_swapped(w_a, o_a, w_b, o_b):
    return average(w_b, o_a, w_a, o_b)


@wrong("average", "the weighted sum is not divided by the sum of weights")
def not_normalised(w_a, o_a, w_b, o_b):
    return w_a * o_a + w_b * o_b


@wrong("average", "both outputs count alike")
def mean(w_a, o_a, w_b, o_b):
    return (o_a + o_b) / 2


@wrong("average", "both outputs are added")
def added(w_a, o_a, w_b, o_b):
    return o_a + o_b


@wrong("average", "only the output of the larger weight is kept")
def larger_kept(w_a, o_a, w_b, o_b):
    return torch.where(w_a >= w_b, o_a, o_b) * ((w_a + w_b) > 0)


@wrong("average", "products are rounded to bfloat16 before they are added")
def products_in_bfloat16(w_a, o_a, w_b, o_b):
    total = torch.where(w_a + w_b == 0, 1.0, w_a + w_b)
    return round_to(w_a * o_a / total, torch.bfloat16) + round_to(w_b * o_b / total, torch.bfloat16)


@wrong("average", "an epsilon of 1e-6 is added to the sum of weights", dtypes=FLOAT32)
def epsilon_in_the_sum(w_a, o_a, w_b, o_b):
    return (w_a * o_a + w_b * o_b) / (w_a + w_b + 1e-6)


@wrong("average", "the last entry of the outputs is not written", "inaccurate", "nonfinite", "law_broken")
def last_entry_not_written(w_a, o_a, w_b, o_b):
    o = average(w_a, o_a, w_b, o_b)
    o[..., -1] = 0
    return o


@wrong("log_sum", "lse is in base 2")
def lse_in_base_2(m, w_a, w_b):
    return log_sum(m, w_a, w_b) * LOG2E


@wrong("log_sum", "lse is the larger one")
def lse_of_the_maximum(m, w_a, w_b):
    return m


@wrong("log_sum", "lse is the log of the sum, without the maximum", *SPECIAL)
def lse_without_the_maximum(m, w_a, w_b):
    return torch.log(w_a + w_b)


@wrong("log_sum", "lse is that of the mean of both sums")
def lse_of_the_mean(m, w_a, w_b):
    return log_sum(m, w_a, w_b) - LN2


@wrong("log_sum", "the log of 1 + w is taken for w")
def lse_to_first_order(m, w_a, w_b):
    return m + (w_a + w_b - 1)


@wrong("log_sum", "lse is rounded to bfloat16")
def lse_in_bfloat16(m, w_a, w_b):
    return round_to(log_sum(m, w_a, w_b), torch.bfloat16)


@wrong("log_sum", "lse of two empty states is the lowest number", *SPECIAL)
def lse_of_empty_states_finite(m, w_a, w_b):
    return log_sum(m, w_a, w_b).clamp(min=torch.finfo(m.dtype).min)


@wrong("log_sum", "lse of two empty states is 0", *SPECIAL)  # flashinfer-ai/flashinfer#4484
def lse_of_empty_states_0(m, w_a, w_b):
    lse = log_sum(m, w_a, w_b)
    return torch.where(lse == -torch.inf, 0.0, lse)


@wrong("states", "the second state is ignored", *SPECIAL)
def second_state_ignored(a, b):
    return a, (b[0], torch.full_like(b[1], -torch.inf))


@wrong("states", "the first state's lse is read for both", *SPECIAL)
def lse_b_ignored(a, b):
    return a, (b[0], a[1])


@wrong("states", "lse_b is that of the next head", *SPECIAL)
def lse_of_the_next_head(a, b):
    return a, (b[0], b[1].roll(1, 1))


@wrong("states", "lse_b is read as [B, L, H]", *SPECIAL)
def lse_transposed(a, b):
    return a, (b[0], b[1].transpose(1, 2).reshape(b[1].shape))


@wrong("states", "an empty first state makes the merged one empty", *SPECIAL)
def empty_state_wins(a, b):
    return a, (b[0], torch.where(a[1] == -torch.inf, -torch.inf, b[1]))


@wrong_call("lse is the sum of both", *SPECIAL)
def lse_is_the_sum(o_a, lse_a, o_b, lse_b):
    return Merge()(o_a, lse_a, o_b, lse_b)[0], lse_a + lse_b


@wrong_call("the result is computed in the outputs' own format", *SPECIAL, dtypes=("bfloat16", "float16"))
def all_in_the_format(o_a, lse_a, o_b, lse_b):
    _, w_a, w_b = powers(lse_a[..., None].to(o_a.dtype), lse_b[..., None].to(o_a.dtype))
    return average(w_a, o_a, w_b, o_b), Merge()(o_a, lse_a, o_b, lse_b)[1]


@wrong_call("the merged output is written over the first one", "law_broken")
def first_state_overwritten(o_a, lse_a, o_b, lse_b):
    o, lse = Merge()(o_a, lse_a, o_b, lse_b)
    return o_a.copy_(o), lse


@wrong_call("the result of the first call of a shape is returned for all", *SPECIAL, stateful=True)
def first_result_replayed():
    kept: dict = {}

    def merge(o_a, lse_a, o_b, lse_b):
        if o_a.shape not in kept:
            kept[o_a.shape] = Merge()(o_a, lse_a, o_b, lse_b)
        return kept[o_a.shape]

    return merge
