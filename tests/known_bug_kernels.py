"""Kernels with the very bugs of public reports, each with the family that shows it.
docs/known-bugs.md lists them.

f(x [rows, n]) in x's own dtype, as the reported code would be written. `good` is the same op without the bug.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

INF = torch.inf
LN2, LOG2E = 0.6931471805599453, 1.4426950408889634
SMALL = (16, 33)


@dataclass(frozen=True)
class KnownBug:
    """A kernel with the bug of `sources` (repository#number), the case that shows it, and the
    dtypes that it shows in.
    """

    name: str
    op: str
    sources: tuple[str, ...]
    family: str
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    kernel: Callable[[Tensor], Tensor]


KNOWN_BUGS: dict[str, KnownBug] = {}


def bug(
    op: str,
    *sources: str,
    family: str,
    shape: tuple[int, int] = SMALL,
    dtypes: tuple[str, ...] = ("float32",),
):
    """Registers a kernel with a bug."""

    def register(kernel):
        KNOWN_BUGS[kernel.__name__] = KnownBug(kernel.__name__, op, sources, family, shape, dtypes, kernel)
        return kernel

    return register


def good(op: str, x: Tensor) -> Tensor:
    """The op without a bug: in float32, or float64, rounded once."""
    wide = x if x.dtype == torch.float64 else x.float()
    return getattr(torch, op)(wide, -1).to(x.dtype)


def top(x: Tensor) -> Tensor:
    return x.amax(-1, keepdim=True)


def summed(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


def softmax_of(x: Tensor, m: Tensor) -> Tensor:
    """softmax with m in place of the maximum."""
    e = torch.exp(x - m)
    return e / summed(e)


def one_by_one(e: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum in order, rounded to dtype after every addition."""
    total = torch.zeros(e.shape[0], 1, dtype=dtype)
    for column in e.unbind(-1):
        total = (total.float() + column[:, None].float()).to(dtype)
    return total


# The logarithm's domain: what is rounded away before it is subtracted.


@bug(
    "log_softmax",
    "pytorch/pytorch#38839",
    "ml-explore/mlx#4169",
    "pytorch/pytorch#195829",
    "pytorch/pytorch#11752",
    "BasisResearch/dynestyx#183",
    family="known_bugs",
    shape=(64, 33),
)
def log_softmax_minus_rounded_logsumexp(x):
    return x - torch.logsumexp(x, -1, keepdim=True)


@bug("log_softmax", "pytorch/pytorch#112714", family="normal", dtypes=("bfloat16", "float16"))
def log_softmax_rounds_max_plus_log_sum(x):
    wide = x.float()
    return (wide - torch.logsumexp(wide, -1, keepdim=True).to(x.dtype).float()).to(x.dtype)


@bug("log_softmax", "harvardnlp/annotated-transformer#109", "deeplearning4j/nd4j#458", family="normal_large")
def log_of_softmax(x):
    return torch.log(torch.softmax(x, -1))


@bug("log_softmax", "tensorflow/tensorflow#21271", family="known_bugs", shape=(64, 33))
def log_of_clipped_softmax(x):
    return torch.log(torch.softmax(x, -1) + 1e-7)


@bug("logsumexp", "pytorch/pytorch#187053", family="known_bugs", shape=(64, 33), dtypes=("float16",))
def denominator_in_half_scaled_by_a_wrong_maximum(x):
    m = top(x).float() + 20
    total = summed(torch.exp(x.float() - m)).half().float()
    return (m + torch.log(total)).squeeze(-1).half()


@bug("softmax", "tensorflow/tensorflow#2315", family="normal")
def softmax_returns_log_softmax(x):
    return torch.log_softmax(x, -1)


@bug(
    "logsumexp",
    "lightseekorg/tokenspeed#571",
    "deepseek-ai/FlashMLA#106",
    "ROCm/torch_migraphx#274",
    family="normal",
)
def logsumexp_in_base_2(x):
    return torch.logsumexp(x, -1) * LOG2E


@bug("logsumexp", "pytorch/pytorch#181645", family="normal")
def logsumexp_times_ln_2_twice(x):
    return torch.logsumexp(x, -1) * LN2


@bug("logsumexp", "jax-ml/jax#29058", family="normal", dtypes=("bfloat16", "float16"))
def base_2_logsumexp_converted_in_half(x):
    y = x * torch.tensor(LOG2E, dtype=x.dtype)
    return ((top(y) + torch.log2(summed(torch.exp2(y - top(y))))) * torch.tensor(LN2, dtype=x.dtype)).squeeze(
        -1
    )


@bug("logsumexp", "pytorch/pytorch#141802", family="ties", shape=(4, 300), dtypes=("bfloat16",))
def logsumexp_carries_its_state_in_bfloat16(x):
    state = torch.full((x.shape[0],), -INF, dtype=x.dtype)
    for column in x.unbind(-1):
        state = torch.logaddexp(state.float(), column.float()).to(x.dtype)
    return state


# Range: what is put into exp.


@bug(
    "softmax",
    "cornell-brg/hb-pytorch#61",
    "NVIDIA/FasterTransformer#43",
    "koaning/scikit-lego#506",
    family="known_bugs",
    shape=(64, 33),
)
def exp_without_shift(x):
    return softmax_of(x, torch.zeros(x.shape[0], 1, dtype=x.dtype))


@bug("log_softmax", "cornell-brg/hb-pytorch#61", "tenstorrent/tt-metal#10001", family="overflow_edge")
def log_softmax_without_shift(x):
    return x - torch.log(summed(torch.exp(x)))


@bug("softmax", "scikit-learn/scikit-learn#17978", "scikit-learn/scikit-learn#33168", family="very_negative")
def likelihoods_that_all_underflow(x):
    e = torch.exp(x)
    return e / summed(e)


@bug("softmax", "HabanaAI/vllm-fork#275", family="known_bugs", shape=(64, 33))
def constant_maximum(x):
    return softmax_of(x, torch.full((x.shape[0], 1), 10.0, dtype=x.dtype))


@bug("softmax", "manassharma07/crysx_nn#7", family="mixed_rows")
def maximum_of_the_whole_batch(x):
    return softmax_of(x, x.nan_to_num(0, 0, -INF).amax().expand(x.shape[0], 1))


@bug("softmax", "bytedance/lightseq#74", family="known_bugs", shape=(64, 33))
def maximum_starts_at_zero(x):
    return softmax_of(x, top(x).clamp(min=0))


@bug("softmax", "NVIDIA/TransformerEngine#652", family="masked_tiles_far_below")
def maximum_starts_at_minus_10000(x):
    return softmax_of(x, top(x).clamp(min=-10000))


@bug("softmax", "triton-lang/triton#3013", family="maximum_at_boundaries")
def maximum_skips_the_last_lane(x):
    return softmax_of(x, top(x[:, :-1]))


@bug("softmax", "pytorch/pytorch#62897", family="overflow_edge", dtypes=("bfloat16",))
def vector_body_forgets_the_maximum(x):
    wide, m = x.float(), top(x.float())
    body = wide.shape[1] // 16 * 16
    e = torch.cat([torch.exp(wide[:, :body]), torch.exp(wide[:, body:] - m)], -1)
    return (e / summed(e)).to(x.dtype)


@bug("logsumexp", "apple/coremltools#2690", family="known_bugs", shape=(64, 33), dtypes=("float16",))
def overflow_of_the_sum_becomes_zero(x):
    total = torch.exp(x.float()).sum(-1).half()
    return torch.log(total).nan_to_num(0, posinf=0.0)


@bug("logsumexp", "bdusell/semiring-einsum#13", family="known_bugs", shape=(64, 33))
def sum_of_logs_overflows(x):
    m = top(x) + top(x)
    return (m - top(x) + torch.log(summed(torch.exp(x + top(x) - m)))).squeeze(-1)


@bug("softmax", "pytorch/pytorch#2391", family="known_bugs", shape=(64, 33), dtypes=("float16",))
def centred_by_a_mean_summed_in_half(x):
    # 4 * 32000 leaves float16 before -32000 brings it back
    mean = one_by_one(x, torch.float16) / x.shape[1]
    return good("softmax", x - mean)


# Shift, scale and base: numerator and denominator must see the same argument.


@bug("softmax", "pytorch/pytorch#100775", "openxla/xla#44738", family="known_bugs", shape=(64, 33))
def fused_multiply_add_against_a_rounded_maximum(x):
    c = float(torch.tensor(LOG2E))
    e = torch.exp2((x.double() * c - (top(x) * c).double()).float())
    return e / summed(e)


@bug("softmax", "pytorch/pytorch#105190", family="alternating")
def maximum_of_the_unscaled_scores_under_a_negative_scale(x):
    scores, scale = -x, -1.0
    return softmax_of(scores * scale, top(scores) * scale)


@bug("softmax", "flashinfer-ai/flashinfer#5088", family="known_bugs", shape=(64, 33))
def product_fused_in_one_pass_and_rounded_in_the_other(x):
    c = float(torch.tensor(LOG2E))
    m = top(x) * c
    return torch.exp2((x.double() * c - m.double()).float()) / summed(torch.exp2(x * c - m))


@bug("softmax", "linkedin/Liger-Kernel#1266", family="normal_small")
def exp2_without_log2e_in_one_pass(x):
    m = top(x)
    return torch.exp2((x - m) * LOG2E) / summed(torch.exp2(x - m))


@bug("softmax", "Infatoshi/cuda-course#10", family="ramps")
def each_thread_uses_its_own_maximum(x):
    e = torch.cat([torch.exp(part - top(part)) for part in torch.split(x, 16, -1)], -1)
    return e / summed(e)


@bug("softmax", "jax-ml/jax#25984", family="offset")
def scores_times_log2e_rounded_before_the_maximum_is_subtracted(x):
    e = torch.exp2(x * LOG2E - top(x) * LOG2E)
    return e / summed(e)


@bug("softmax", "RL-Align/RL-Kernel#86", family="normal")
def scale_applied_twice(x):
    logits, temperature = x * 0.5, 0.5
    return torch.softmax(logits / temperature**2, -1)


@bug(
    "softmax",
    "tile-ai/TileOPs#1511",
    "sgl-project/sglang#33064",
    "vllm-project/vllm#28840",
    family="two_heavy_ends",
    shape=(16, 130),
)
def rescale_mixes_units(x):
    m, total = top(x[:, :16]), summed(torch.exp(x[:, :16] - top(x[:, :16])))
    for part in torch.split(x[:, 16:], 16, -1):
        new = torch.maximum(m, top(part))
        total = total * torch.exp2(m - new) + summed(torch.exp(part - new))
        m = new
    return torch.exp(x - m) / total


# Special values.


@bug("softmax", "pytorch/pytorch#131060", "robertknight/rten#1321", family="nan_and_infinity")
def nan_made_zero(x):
    return torch.softmax(x, -1).nan_to_num(0)


@bug("softmax", "pytorch/pytorch#141128", family="mixed_rows")
def nan_row_taken_for_a_masked_row(x):
    m = torch.where(x.isnan(), -INF, x).amax(-1, keepdim=True)
    m = torch.where(x.isnan().any(-1, keepdim=True), -INF, m)
    return torch.where(m == -INF, 0.0, torch.softmax(x, -1)).masked_fill(
        (x == -INF).all(-1, keepdim=True), torch.nan
    )


@bug("softmax", "ohdearquant/lattice#375", family="known_bugs", shape=(64, 33))
def not_normalised_where_the_sum_is_nan(x):
    e = torch.exp(x - torch.where(x.isnan(), -INF, x).amax(-1, keepdim=True)).nan_to_num(1.0)
    return torch.where(x.isnan().any(-1, keepdim=True), e, torch.softmax(x, -1))


@bug("softmax", "pytorch/pytorch#161150", family="known_bugs", shape=(64, 33))
def one_for_every_plus_infinity(x):
    return torch.where(top(x) == INF, (x == INF).to(x.dtype), torch.softmax(x, -1))


@bug("softmax", "tracel-ai/burn#4694", family="masked_tiles")
def online_recurrence_without_guard(x):
    m, total = torch.full((x.shape[0], 1), -INF), torch.zeros(x.shape[0], 1)
    for part in torch.split(x, 16, -1):
        new = torch.maximum(m, top(part))
        total = total * torch.exp(m - new) + summed(torch.exp(part - new))
        m = new
    return torch.exp(x - m) / total


@bug(
    "logsumexp",
    "rmcgibbo/logsumexp#2",
    "tinygrad/tinygrad#17822",
    "tensorflow/tensorflow#11692",
    family="masked_tiles",
)
def logsumexp_without_guard(x):
    return (top(x) + torch.log(summed(torch.exp(x - top(x))))).squeeze(-1)


@bug("logsumexp", "cupy/cupy#5716", "cupy/cupy#6172", family="known_bugs", shape=(64, 33))
def logaddexp_of_infinities_is_nan(x):
    state = torch.full((x.shape[0],), -INF)
    for column in x.unbind(-1):
        difference = state - column
        larger = torch.maximum(state, column)
        state = torch.where(larger == -INF, larger, larger + torch.log1p(torch.exp(-difference.abs())))
    return state


@bug(
    "logsumexp",
    "flashinfer-ai/flashinfer#4051",
    "vllm-project/vllm#28181",
    "vllm-project/vllm#27491",
    family="masked_tiles",
)
def two_empty_parts_merged_without_guard(x):
    left, right = torch.logsumexp(x[:, :16], -1), torch.logsumexp(x[:, 16:], -1)
    m = torch.maximum(left, right)
    return m + torch.log(torch.exp(left - m) + torch.exp(right - m))


@bug("logsumexp", "scipy/scipy#23548", family="known_bugs", shape=(64, 33))
def sign_of_an_infinite_sum_is_nan(x):
    m = top(x)
    total = torch.where(m.isinf(), m, summed(torch.exp(x - m)))
    sign = torch.where(m == -INF, 1.0, total / total.abs())
    return (torch.logsumexp(x, -1, keepdim=True) * sign).squeeze(-1)


@bug("logsumexp", "tinygrad/tinygrad#17853", "pytorch/pytorch#52213", family="known_bugs", shape=(64, 33))
def minus_infinity_at_the_start_poisons_the_row(x):
    state = x[:, 0]
    for column in x[:, 1:].unbind(-1):
        m = torch.maximum(state, column)
        state = m + torch.log(torch.exp(state - m) + torch.exp(column - m))
    return state


@bug("logsumexp", "flashinfer-ai/flashinfer#4452", family="masked_tiles")
def empty_row_reports_a_sentinel(x):
    return torch.logsumexp(x.clamp(min=-5e4), -1)


@bug("logsumexp", "Dao-AILab/flash-attention#978", "flashinfer-ai/flashinfer#4484", family="mixed_rows")
def empty_row_reports_plus_infinity(x):
    y = torch.logsumexp(x, -1)
    return torch.where(y == -INF, INF, y)


@bug("softmax", "ohdearquant/lattice#373", "NVIDIA/Megatron-LM#132", family="known_bugs", shape=(64, 33))
def masked_entries_become_minus_10000(x):
    return torch.softmax(torch.where(x == -INF, -10000.0, x), -1)


@bug("softmax", "paiml/trueno#190", family="masked_tiles")
def denominator_clamped_by_epsilon(x):
    e = torch.exp(x - top(x).clamp(min=-1e30))
    return e / summed(e).clamp(min=1e-12)


@bug(
    "softmax",
    "huggingface/transformers#31035",
    "huggingface/transformers#31303",
    "pytorch/pytorch#109517",
    family="known_bugs",
    shape=(64, 33),
)
def lowest_times_log2e_overflows_and_masks_a_whole_tile(x):
    y = x * LOG2E
    m, total = torch.full((x.shape[0], 1), -INF), torch.zeros(x.shape[0], 1)
    for part in torch.split(y, 16, -1):
        new = torch.maximum(m, top(part))
        total = total * torch.exp2(m - new) + summed(torch.exp2(part - new))
        m = new
    return torch.exp2(y - m) / total


@bug("softmax", "NVIDIA/Megatron-LM#731", "lucidrains/memory-compressed-attention#2", family="masked_tiles")
def masked_after_softmax_without_renormalising(x):
    masked = x == -INF
    return torch.softmax(x.masked_fill(masked, 0.0), -1) * ~masked


@bug("softmax", "pytorch/pytorch#118628", "pytorch/pytorch#107084", family="tiny_logits")
def logits_that_are_not_zero_read_as_a_mask(x):
    return torch.softmax(torch.where(x != 0, x, -INF), -1)


# Tiles, tails, strides and sizes.


@bug(
    "softmax",
    "vllm-project/vllm#55009",
    "tenstorrent/tt-metal#6832",
    "ROCm/rocm-libraries#10309",
    family="normal_small",
)
def padding_lanes_are_zeros(x):
    n = x.shape[1]
    return torch.softmax(pad(x, (0, -n % 64)), -1)[:, :n]


@bug("softmax", "flagos-ai/FlagGems#3716", "sgl-project/sglang#27154", family="mixed_rows")
def tail_lanes_hold_the_row_before(x):
    stale = torch.cat([torch.roll(x, 1, 0), x], -1)[:, -x.shape[1] - 3 :]
    return torch.softmax(stale, -1)[:, 3:]


@bug("softmax", "sonos/tract#2318", family="masked_tiles")
def padding_lanes_hold_the_lowest_number(x):
    n, lowest = x.shape[1], torch.finfo(x.dtype).min
    padded = pad(x, (0, -n % 8), value=lowest)
    return softmax_of(padded, top(padded))[:, :n]


@bug("softmax", "pytorch/pytorch#147284", family="normal_small", shape=(4, 769), dtypes=("float64",))
def misaligned_head_of_odd_rows_is_read_wrongly(x):
    y = torch.softmax(x, -1)
    n = x.shape[1]
    if n % 2 and 512 < n < 1024:
        e = torch.exp(x - top(x))
        y[1:] = (e / (summed(e) + e[:, :1]))[1:]
    return y


@bug("softmax", "NVIDIA/cutlass#586", family="sparse")
def tail_column_counted_twice(x):
    e = torch.exp(x - top(x))
    return e / (summed(e) + e[:, -1:])


@bug("softmax", "pytorch/pytorch#191937", family="maximum_at_boundaries", shape=(16, 33))
def single_column_of_the_last_tile_is_lost(x):
    n = x.shape[1]
    kept = x[:, : n - (n % 32 == 1)]
    return pad(torch.softmax(kept, -1), (0, n - kept.shape[1]))


@bug("softmax", "JuliaGPU/CUDA.jl#599", "onnx/onnx#3244", family="normal")
def other_dimension(x):
    return torch.softmax(x, 0)


@bug("softmax", "NVIDIA/TensorRT#2021", family="every_16_bit_value", shape=(65536, 2))
def rows_beyond_65535_are_not_computed(x):
    y = torch.softmax(x, -1)
    y[65535:] = 0
    return y


@bug("softmax", "facebookresearch/xformers#719", family="sparse", shape=(4, 33728))
def length_wraps_at_32767(x):
    e = torch.exp(x - top(x))
    return e / summed(e[:, : x.shape[1] if x.shape[1] < 2**15 else 0])


@bug("logsumexp", "Dao-AILab/flash-attention#2842", family="mixed_rows")
def empty_row_writes_into_the_slot_of_the_next(x):
    y = torch.logsumexp(x, -1)
    return torch.where(torch.roll((x == -INF).all(-1), 1, 0), -INF, y)


# Accuracy of the sum and of exp.


@bug("softmax", "pytorch/executorch#20090", family="ties", shape=(4, 512), dtypes=("bfloat16",))
def denominator_in_bfloat16(x):
    e = torch.exp(x.float() - top(x.float()))
    return (e / one_by_one(e, torch.bfloat16).float()).to(x.dtype)


@bug(
    "softmax",
    "numpy/numpy#22208",
    "pytorch/pytorch#93708",
    family="ties",
    shape=(2, 4096),
    dtypes=("float16",),
)
def denominator_in_half(x):
    e = torch.exp(x.float() - top(x.float()))
    return (e / one_by_one(e, torch.float16).float()).to(x.dtype)


@bug("softmax", "pytorch/pytorch#91597", family="ties", shape=(1, 70000), dtypes=("float16",))
def sum_cast_to_half_before_the_division(x):
    e = torch.exp(x.float() - top(x.float()))
    return (e / summed(e).half().float()).half()


@bug("softmax", "pytorch/pytorch#59489", family="normal_small", dtypes=("float16",))
def partial_sums_stored_in_half(x):
    e = torch.exp(x.float() - top(x.float()))
    total = sum(summed(part).half().float() for part in torch.split(e, 8, -1))
    return (e / total).half()


@bug("softmax", "pytorch/pytorch#123911", family="offset", dtypes=("float16", "bfloat16"))
def probabilities_rounded_and_renormalised(x):
    p = torch.softmax(x.float(), -1).to(x.dtype).float()
    return (p / summed(p)).to(x.dtype)


@bug("softmax", "NVIDIA/TransformerEngine#652", family="near_ties", dtypes=("float32",))
def scores_rounded_to_half_before_exp(x):
    return torch.softmax(x.bfloat16().float(), -1)


def schraudolph(x: Tensor) -> Tensor:
    """exp by writing x * 2^23 / ln 2 into the bits of a float: 3 % to 6 % off."""
    bits = (x.clamp(min=-87.0) * (2**23 / LN2) + (127 * 2**23 - 366393)).to(torch.int32)
    return bits.view(torch.float32)


@bug("softmax", "sonos/tract#2318", "sonos/tract#2677", family="normal", dtypes=("float32", "bfloat16"))
def exp_by_a_bit_trick(x):
    e = schraudolph(x.float() - top(x.float()))
    return (e / summed(e)).to(x.dtype)


@bug("softmax", "pytorch/pytorch#151441", family="midpoint_results", dtypes=("bfloat16", "float16"))
def exp_good_enough_for_half_only(x):
    wide = x.float()
    e = torch.exp(wide - top(wide))
    e = torch.where(wide < top(wide), e * (1 + 2.0**-14), e)
    return (e / summed(e)).to(x.dtype)


@bug("softmax", "openvinotoolkit/openvino#37857", family="masked_tiles")
def exp_saturates_at_a_floor(x):
    e = torch.exp(x - top(x)).clamp(min=8.1e-31)
    return e / summed(e)


@bug("softmax", "torch/nn#804", family="known_bugs", shape=(64, 33), dtypes=("float64",))
def exp_clamped_to_zero_below_13(x):
    d = x - top(x)
    e = torch.where(d < -13, 0.0, torch.exp(d))
    return e / summed(e)


@bug("softmax", "flagos-ai/FlagTree#973", family="normal")
def exp_applied_twice(x):
    return torch.softmax(torch.exp(x - top(x)), -1)


@bug("softmax", "pytorch/pytorch#121588", family="geometric_gaps")
def vector_body_and_tail_use_different_exps(x):
    d, m = x - top(x), x.shape[1] // 8 * 8
    e = torch.cat([torch.exp(d[:, :m]), torch.exp2(d[:, m:] * float(torch.tensor(LOG2E).half()))], -1)
    return e / summed(e)
