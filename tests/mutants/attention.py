"""Mutants of attention: tests/attention_kernels.py with one step wrong.

Each entry names what it breaks, the calls that bring it out (names of tests/attention_calls.py),
the public bug that it models where there is one, and the statuses of which one must catch it. A
fault of lse has right outputs o.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch

from suite.case import Case
from tests.attention_calls import CALLS
from tests.attention_kernels import (
    Attention,
    add,
    bias,
    cap,
    difference,
    factor,
    finish,
    finite_or_0,
    hide,
    online,
    positions,
    product,
    raw_scores,
    restrict,
    scores,
    share,
    start,
    step,
    tilt,
    whole,
    within,
)
from tests.mutants.mutant import BOTH, FLOAT32, LN2, LOG2E, MUTANTS, Mutant, round_to

FORMATS = (*BOTH, "float16")
NUMBERS = ("inaccurate", "nonfinite")
SPECIAL = ("law_broken", "inaccurate", "nonfinite")


@dataclass(frozen=True)
class AttentionMutant(Mutant):
    """A wrong kernel of attention. needs: calls of tests/attention_calls.py, each of which brings
    it out. source: a public bug.

    wrong: what is wrong, "o" or "lse".
    """

    needs: tuple[str, ...] = ("plain",)
    source: str = ""
    wrong: str = "o"

    def missing(self, case: Case) -> int:
        own = {"return_lse"} if self.wrong == "lse" else set()
        wanted = [{*CALLS[need].options, *CALLS[need].further, *own} for need in self.needs]
        return min(len(settings - {*case.options, *case.tensors}) for settings in wanted)


ATTENTION: dict[str, AttentionMutant] = {}


def mutant(name, make, breaks, needs=("plain",), *statuses, dtypes=BOTH, source="", wrong="o"):
    assert name not in ATTENTION, name
    needs = (needs,) if isinstance(needs, str) else tuple(needs)
    made = AttentionMutant(
        f"attention: {name}", "attention", breaks, statuses or NUMBERS, dtypes, make, needs, source, wrong
    )
    ATTENTION[name] = MUTANTS[made.name] = made


def wrong(step_name, breaks, needs=("plain",), *statuses, dtypes=BOTH, source="", of="o", **steps):
    """Registers the kernel with this function in place of a step."""

    def register(function):
        kernel = Attention(**{step_name: function}, **steps)
        mutant(
            function.__name__,
            lambda: kernel,
            breaks,
            needs,
            *statuses,
            dtypes=dtypes,
            source=source,
            wrong=of,
        )
        return function

    return register


def changed(breaks, needs=("plain",), *statuses, dtypes=BOTH, source=""):
    """Registers the right kernel of other arguments: f(given) gives those that differ, or {}."""

    def register(function):
        kernel = Attention(arguments=lambda given: replace(given, **function(given)))
        mutant(function.__name__, lambda: kernel, breaks, needs, *statuses, dtypes=dtypes, source=source)
        return function

    return register


def without(s, key):
    """s with these keys hidden; nothing changes where there are none."""
    s = s.clone()
    s[..., key] = -torch.inf
    return s


def rescored(breaks, needs=("plain",), *statuses, dtypes=BOTH, source=""):
    """Registers the right softmax of other scores: f(s [B, H, L, S])."""

    def register(function):
        kernel = Attention(scores=lambda steps, given: function(scores(steps, given)))
        mutant(function.__name__, lambda: kernel, breaks, needs, *statuses, dtypes=dtypes, source=source)
        return function

    return register


# tile boundaries


@rescored("the last key is left out")
def last_key_dropped(s):
    return without(s, -1)


@rescored("the first key is left out")
def first_key_dropped(s):
    return without(s, 0)


@rescored("the last key counts twice")
def last_key_doubled(s):
    return torch.cat([s[..., :-1], s[..., -1:] + LN2], -1)


@rescored("the last key of the first tile of 64 is left out")
def key_63_skipped(s):
    return without(s, slice(63, 64))


@rescored("the first key of the second tile of 64 is left out")
def key_64_skipped(s):
    return without(s, slice(64, 65))


@rescored("key 128 is left out: the loop over tiles of 128 ends and begins one off", "S = 130")
def key_128_skipped(s):
    return without(s, slice(128, 129))


@rescored("the last key before 128 is left out", "S = 128")
def key_127_skipped(s):
    return without(s, slice(127, 128))


@rescored("tiles of 16 overlap by a key, which counts twice")
def tiles_overlap(s):
    s = s.clone()
    s[..., 16::16] += LN2
    return s


@rescored("the last incomplete tile of 16 is left out: S // 16 tiles", ("plain", "S = 5"))
def incomplete_tile_dropped(s):
    return without(s, slice(s.shape[-1] // 16 * 16, None))


@rescored("the last tile of 64 is left out where S is a multiple of 64: (S - 1) // 64 tiles", "S = 128")
def complete_tile_dropped(s):
    return without(s, slice(-64, None)) if s.shape[-1] % 64 == 0 else s


@rescored("where S > 128, the keys of the second tile of 128 are left out", "S = 130")
def second_tile_lost(s):
    return without(s, slice(128, 256))


def padded(lanes, score=lambda s: torch.zeros_like(s[..., :1])):
    """A fold that reads lanes(S) keys beyond the last one, with a score and a value of 0."""

    def fold(s, v, sink):
        more = lanes(s.shape[-1])
        beyond = score(s).expand(*s.shape[:-1], more)
        return whole(torch.cat([s, beyond], -1), torch.nn.functional.pad(v, (0, 0, 0, more)), sink)

    return fold


mutant(
    "padding_counts",
    lambda: Attention(fold=padded(lambda n: -n % 64)),
    "keys that pad the last tile of 64 have the score 0 and count in the sum",
    ("plain", "S = 5"),
    source="ROCm/rocm-libraries#10309; pytorch/pytorch#159247",
)
mutant(
    "a_tile_too_many",
    lambda: Attention(fold=padded(lambda n: 64 if n % 64 == 0 else 0)),
    "S // 64 + 1 tiles: a whole tile of padding counts where S is a multiple of 64",
    "S = 128",
)
mutant(
    "last_key_fills_the_tile",
    lambda: Attention(fold=padded(lambda n: -n % 16, lambda s: s[..., -1:])),
    "a load that is clamped to the last key repeats it in the sum to the end of the tile",
)


@wrong("values", "the values of the second tile of 64 are those of the first", "S = 128")
def values_of_the_first_tile(v, heads):
    v = share(v, heads).clone()
    v[..., 64:128, :] = v[..., : v[..., 64:128, :].shape[-2], :].clone()
    return v


@wrong("values", "keys and values are off by one: value j + 1 goes with key j")
def values_shifted(v, heads):
    return share(v, heads).roll(-1, dims=-2)


@wrong(
    "output",
    "rows past the last complete tile of 8 queries are those before it",
    source="meta-pytorch/attention-gym#50",
)
def incomplete_tile_of_queries(o, s, given):
    o = o.clone()
    if given.length > 8 and given.length % 8:
        o[:, :, given.length // 8 * 8 :] = o[:, :, given.length // 8 * 8 - 1, None]
    return o


# masks


@changed("a boolean mask is inverted: True means hidden", "boolean mask")
def mask_inverted(given):
    return {"mask": ~given.mask} if given.mask is not None and given.mask.dtype == torch.bool else {}


@changed("the mask is ignored", ("boolean mask", "additive mask"))
def mask_ignored(given):
    return {"mask": None}


@wrong("bias", "an additive mask is ignored", "additive mask")
def additive_mask_ignored(s, mask):
    return s


@wrong("bias", "an additive mask is added twice", "additive mask")
def additive_mask_twice(s, mask):
    return bias(bias(s, mask), mask)


@wrong("bias", "an additive mask is subtracted", "additive mask", *SPECIAL)
def additive_mask_subtracted(s, mask):
    return s - torch.where(mask == -torch.inf, torch.inf, mask)


@wrong(
    "bias",
    "an additive mask is read as a boolean: what is not 0 is visible",
    "additive mask",
    source="pytorch/pytorch#107084",
)
def additive_mask_as_visible(s, mask):
    return hide(s, mask != 0)


@wrong(
    "bias",
    "an additive mask is read as a boolean: what is not 0 is hidden",
    "additive mask",
    source="pytorch/pytorch#118628",
)
def additive_mask_as_hidden(s, mask):
    return hide(s, mask == 0)


@wrong("bias", "an additive mask is stored in 8 bits", "additive mask")
def additive_mask_in_8_bits(s, mask):
    return s + torch.where(mask == -torch.inf, mask, round_to(mask.float(), torch.float8_e4m3fn))


@wrong("bias", "an additive mask is added to exponents of base 2 as it is", "additive mask")
def additive_mask_in_base_2(s, mask):
    return s + mask * LN2


@wrong("scores", "an additive mask is added before the scale", "additive mask")
def mask_before_scale(steps, given):
    s = raw_scores(steps, given)
    if given.mask is not None and given.mask.dtype != torch.bool:
        s = s + given.mask
    s = factor(given) * s
    s = cap(s, given.softcap) if given.softcap is not None else s
    return restrict(steps, tilt(s, given) if given.alibi_slopes is not None else s, given)


@wrong(
    "hide",
    "hidden keys get -1e4 instead of -inf",
    "low scores, masked",
    source="ohdearquant/lattice#373; NVIDIA/Megatron-LM#731",
)
def minus_ten_thousand(s, seen):
    return s.masked_fill(~seen, -1e4)


@wrong("hide", "hidden keys get -10: they leak", "boolean mask")
def minus_ten(s, seen):
    return s.masked_fill(~seen, -10.0)


@wrong(
    "hide",
    "hidden keys get the score 0",
    ("boolean mask", "causal, bottom right"),
    source="pytorch/pytorch#196678 (backward)",
)
def hidden_score_0(s, seen):
    return s.masked_fill(~seen, 0.0)


@changed("the mask of batch 0 is used for all", "boolean mask", source="ikawrakow/ik_llama.cpp#607")
def mask_of_batch_0(given):
    return {"mask": given.mask[:1]} if given.mask is not None and given.mask.ndim == 4 else {}


@changed("the mask of head 0 is used for all", "mask by head")
def mask_of_head_0(given):
    return {"mask": given.mask[..., :1, :, :]} if given.mask is not None and given.mask.ndim >= 3 else {}


@changed("the mask of the first query is used for all", "boolean mask")
def mask_of_query_0(given):
    return {"mask": given.mask[..., :1, :]} if given.mask is not None and given.mask.ndim >= 2 else {}


@changed("a mask [B, 1, L, S] is broadcast over the batch and by head", "boolean mask")
def mask_of_batch_as_head(given):
    if (
        given.mask is None
        or given.mask.ndim < 4
        or given.mask.shape[1] > 1
        or given.heads % given.mask.shape[0]
    ):
        return {}
    return {"mask": given.mask.transpose(0, 1).repeat(1, given.heads // given.mask.shape[0], 1, 1)}


@changed("a square mask is transposed", "square mask")
def mask_transposed(given):
    return (
        {"mask": given.mask.mT}
        if given.mask is not None and given.mask.shape[-1] == given.mask.shape[-2]
        else {}
    )


@changed("padded keys are visible: the mask is not read in the last incomplete tile of 64", "padded keys")
def padded_keys_visible(given):
    if given.mask is None or given.mask.shape[-1] != given.keys:
        return {}
    mask = given.mask.clone()
    mask[..., given.keys // 64 * 64 :] = True if mask.dtype == torch.bool else 0.0
    return {"mask": mask}


@changed("the mask is read one key to the right", "boolean mask")
def mask_shifted(given):
    return {"mask": given.mask.roll(1, -1)} if given.mask is not None and given.mask.shape[-1] > 1 else {}


@wrong(
    "output",
    "the mask multiplies the weights, and they are not renormalised",
    "boolean mask",
    source="lucidrains/memory-compressed-attention#2; NVIDIA/Megatron-LM#731",
)
def mask_after_softmax(o, s, given):
    if given.mask is None or given.mask.dtype != torch.bool:
        return o
    sink = None if given.sink is None else given.sink.to(s.dtype)[None, :, None, None]
    value = share(given.v, given.heads).to(s.dtype)
    seen, all_keys = (whole(x, value, sink)[1] for x in (s, scores(Attention(), replace(given, mask=None))))
    return o * difference(seen, all_keys)[..., None]


# causal


@wrong(
    "before",
    "strictly causal: a query does not see its own key",
    ("causal, top left", "causal, bottom right"),
)
def causal_strict(given):
    return torch.arange(given.keys) < positions(given)


@wrong("before", "a query sees one key of the future", ("causal, top left", "causal, square"))
def causal_one_ahead(given):
    return torch.arange(given.keys) <= positions(given) + 1


@changed(
    "top left is taken for bottom right",
    ("causal, top left", "causal, L > S"),
    source="Dao-AILab/flash-attention#1778",
)
def causal_bottom_right_always(given):
    return {"causal": "bottom_right"} if given.causal else {}


@changed(
    "bottom right is taken for top left",
    ("causal, bottom right", "causal, L > S, bottom right"),
    source="pytorch/pytorch#110144",
)
def causal_top_left_always(given):
    return {"causal": "top_left"} if given.causal else {}


@wrong("before", "the corner is one off where S > L", "causal, bottom right")
def causal_offset_by_one(given):
    return torch.arange(given.keys) <= positions(given) - int(given.keys > given.length)


@wrong("before", "where L > S the corner stays top left", "causal, L > S, bottom right")
def causal_offset_clamped(given):
    return torch.arange(given.keys) <= torch.arange(given.length)[:, None] + (
        max(given.keys - given.length, 0) if given.causal == "bottom_right" else 0
    )


@changed("causal is ignored", ("causal, top left", "causal, square"), source="paiml/entrenar#310")
def causal_ignored(given):
    return {"causal": None} if given.alibi_slopes is None and given.window is None else {}


@changed("causal is ignored for a single query", "causal, L = 1")
def causal_ignored_for_one_query(given):
    return {"causal": None} if given.length == 1 and given.causal == "top_left" else {}


@changed(
    "causal is ignored where a mask is given",
    "causal and mask",
    *SPECIAL,
    source="NVIDIA/TransformerEngine#1524",
)
def causal_ignored_with_a_mask(given):
    return (
        {"causal": None}
        if given.mask is not None and given.alibi_slopes is None and given.window is None
        else {}
    )


@wrong(
    "before",
    "the mask is applied in the tile on the diagonal only",
    "causal, square",
    source="Dao-AILab/flash-attention#436",
)
def causal_in_the_diagonal_tile(given):
    at = torch.arange(given.keys)
    return (at <= positions(given)) | (at // 16 > positions(given) // 16)


@wrong("before", "all keys of the tile on the diagonal are visible", ("causal, top left", "causal, square"))
def causal_by_tiles(given):
    return torch.arange(given.keys) // 16 <= positions(given) // 16


@wrong(
    "before",
    "the loop over keys stops before the tile that is partly visible",
    ("causal, bottom right", "causal, square"),
)
def causal_stops_early(given):
    at, last = torch.arange(given.keys), positions(given)
    return (at <= last) & ((at < (last + 1) // 16 * 16) | (last < 16))


# rescaling


def in_tiles(breaks, needs=("rising", "hard"), *statuses, dtypes=BOTH, source="", block=16, finish=finish):
    """Registers the fold over tiles of 16 keys with another step."""

    def register(function):
        kernel = Attention(fold=online(block=block, step=function, finish=finish))
        mutant(function.__name__, lambda: kernel, breaks, needs, *statuses, dtypes=dtypes, source=source)
        return function

    return register


def grown(state, tile):
    """(m_new, exp(s - m_new), exp(m - m_new))."""
    larger = torch.maximum(state[0], tile.amax(-1, keepdim=True))
    return larger, difference(tile, larger), difference(state[0], larger)


@in_tiles("neither sum is rescaled when the maximum grows")
def never_rescaled(state, tile, value):
    larger, e, _ = grown(state, tile)
    return larger, state[1] + e.sum(-1, keepdim=True), state[2] + e @ value


@in_tiles("the output is rescaled, the sum of weights is not")
def sum_not_rescaled(state, tile, value):
    larger, e, rescale = grown(state, tile)
    return larger, state[1] + e.sum(-1, keepdim=True), state[2] * rescale + e @ value


@in_tiles("the sum of weights is rescaled, the output is not")
def output_not_rescaled(state, tile, value):
    larger, e, rescale = grown(state, tile)
    return larger, state[1] * rescale + e.sum(-1, keepdim=True), state[2] + e @ value


@in_tiles("both sums are rescaled twice")
def rescaled_twice(state, tile, value):
    larger, e, rescale = grown(state, tile)
    return larger, state[1] * rescale**2 + e.sum(-1, keepdim=True), state[2] * rescale**2 + e @ value


@in_tiles("both sums are rescaled the wrong way round")
def rescaled_inversely(state, tile, value):
    larger, e, _ = grown(state, tile)
    rescale = torch.exp(larger - state[0]).nan_to_num(0.0, 0.0, 0.0)
    return larger, state[1] * rescale + e.sum(-1, keepdim=True), state[2] * rescale + e @ value


@in_tiles("the rescale is in base 2, the weights in base e")
def rescaled_in_base_2(state, tile, value):
    larger, e, rescale = grown(state, tile)
    rescale = rescale**LN2
    return larger, state[1] * rescale + e.sum(-1, keepdim=True), state[2] * rescale + e @ value


@in_tiles("a tile is shifted by the maximum before it: stale where it is finite")
def stale_maximum(state, tile, value):
    larger, _, rescale = grown(state, tile)
    e = difference(tile, torch.where(state[0] == -torch.inf, larger, state[0]))
    return larger, state[1] * rescale + e.sum(-1, keepdim=True), state[2] * rescale + e @ value


@in_tiles(
    "the maximum is that of the tile, whether larger or not, and what went before is only ever scaled down",
    ("falling", "hard"),
)
def maximum_of_the_last_tile(state, tile, value):
    larger = tile.amax(-1, keepdim=True)
    e, rescale = difference(tile, larger), difference(state[0], larger).clamp(max=1.0)
    return larger, state[1] * rescale + e.sum(-1, keepdim=True), state[2] * rescale + e @ value


@in_tiles("each tile is shifted by its own maximum only", ("rising", "falling", "plain"))
def tile_maximum_only(state, tile, value):
    larger = tile.amax(-1, keepdim=True)
    e = difference(tile, larger)
    return larger, state[1] + e.sum(-1, keepdim=True), state[2] + e @ value


@in_tiles(
    "the output is rescaled only where the maximum grows by more than 8, the sum always, and the end does not"
    " make it good",
    source="FlashAttention-4",
)
def threshold_without_correction(state, tile, value):
    larger, e, rescale = grown(state, tile)
    jump = (larger > state[0] + 8) | (state[0] == -torch.inf)
    return (
        larger,
        state[1] * rescale + e.sum(-1, keepdim=True),
        state[2] * torch.where(jump, rescale, 1.0) + e @ value,
    )


@in_tiles("the maximum of the first query of a tile of 4 is used for the others' rescale")
def rescale_of_another_query(state, tile, value):
    larger, e, rescale = grown(state, tile)
    other = rescale[:, :, torch.arange(tile.shape[-2]) // 4 * 4]
    return larger, state[1] * rescale + e.sum(-1, keepdim=True), state[2] * other + e @ value


@in_tiles("the running maximum starts at 0 instead of -inf", "low scores")
def maximum_from_0(state, tile, value):
    return step((state[0].clamp(min=0.0), *state[1:]), tile, value)


@in_tiles("the running maximum starts at -30 instead of -inf", "low scores")
def maximum_from_minus_30(state, tile, value):
    return step((state[0].clamp(min=-30.0), *state[1:]), tile, value)


@in_tiles(
    "a first tile that is hidden gives NaN: -inf - -inf",
    "padded on the left",
    source="pytorch/pytorch#109517",
)
def hidden_first_tile(state, tile, value):
    m, total, o = state
    larger = torch.maximum(m, tile.amax(-1, keepdim=True))
    e, rescale = torch.exp(tile - larger), torch.exp(m - larger)
    return larger, total * rescale + e.sum(-1, keepdim=True), o * rescale + e @ value


def merged_wrongly(weights):
    """Two halves of the keys, merged with weights of their two lse [B, H, L, 1]."""

    def fold(s, v, sink):
        half = (s.shape[-1] + 1) // 2
        if half == s.shape[-1]:
            return whole(s, v, sink)
        (a, lse_a), (b, lse_b) = (
            whole(s[..., :half], v[..., :half, :], sink),
            whole(s[..., half:], v[..., half:, :], None),
        )
        w = weights(lse_a[..., None], lse_b[..., None])
        return w * a + (1 - w) * b, torch.logaddexp(lse_a, lse_b)

    return fold


def share_of_left(lse_a, lse_b):
    return torch.where(lse_a == lse_b, 0.5, torch.sigmoid(lse_a - lse_b))


for _name, _breaks, _source, _weights in (
    ("merge_in_base_2", "parts are merged by exp2 of their natural lse",
        "sgl-project/sglang#33064; vllm-project/vllm#28840",
     lambda a, b: share_of_left(LN2 * a, LN2 * b)),
    ("merge_evenly", "parts are merged without their weights", "", lambda a, b: torch.full_like(a, 0.5)),
    ("merge_the_wrong_way", "parts are merged with each other's weight", "", lambda a,
        b: share_of_left(b, a)),
    ("merge_by_maximum", "only the part with the larger lse is kept", "", lambda a, b: (a >= b).to(a.dtype)),
):  # fmt: skip
    mutant(
        _name,
        functools.partial(Attention, fold=merged_wrongly(_weights)),
        _breaks,
        ("plain", "rising"),
        source=_source,
    )
mutant(
    "merge_of_two_empty_parts",
    lambda: Attention(fold=merged_wrongly(lambda a, b: torch.sigmoid(a - b))),
    "two empty parts are merged to NaN",
    "nothing seen",
    source="flashinfer-ai/flashinfer#4051; vllm-project/vllm#28181",
)


# sinks


def with_sink(breaks, needs=("sink",), *statuses, dtypes=BOTH, source=""):
    """Registers f(sink [1, H, 1, 1], s) in place of the sink."""

    def register(function):
        kernel = Attention(fold=lambda s, v, sink: whole(s, v, None if sink is None else function(sink, s)))
        mutant(function.__name__, lambda: kernel, breaks, needs, *statuses, dtypes=dtypes, source=source)
        return function

    return register


@changed("the sink is ignored", ("sink", "sink and nothing seen"))
def sink_ignored(given):
    return {"sink": None}


@with_sink("the sink is added for every key")
def sink_per_key(sink, s):
    return sink + math.log(s.shape[-1])


@with_sink("the sink is added for every tile of 16 keys")
def sink_per_tile(sink, s):
    return sink + math.log(math.ceil(s.shape[-1] / 16))


@with_sink("the sinks are those of the heads in reverse")
def sink_heads_reversed(sink, s):
    return sink.flip(1)


@with_sink("the sinks are those of the next head")
def sink_of_the_next_head(sink, s):
    return sink.roll(1, 1)


@with_sink("the sink of head 0 is used for all")
def sink_of_head_0(sink, s):
    return sink[:, :1].expand_as(sink)


@with_sink("the sink is scaled as if it were a score")
def sink_scaled(sink, s):
    return sink / 4


@with_sink("the sink enters exponents of base 2 as it is")
def sink_in_base_2(sink, s):
    return sink * LN2


@with_sink("the sink is a weight, not a logit")
def sink_as_weight(sink, s):
    return torch.log(sink.clamp(min=0.0))


@wrong("fold", "the sink has a value: that of the last key", "sink")
def sink_with_a_value(s, v, sink):
    if sink is None:
        return whole(s, v, None)
    extra = sink.expand(*s.shape[:-1], 1)
    return whole(torch.cat([s, extra], -1), torch.cat([v, v[..., -1:, :]], -2), None)


@wrong(
    "fold",
    "the sum begins with exp(sink - m) at a placeholder m of -1e5: infinite, and rescaled by 0 it is NaN",
    "sink",
    source="NVIDIA/TensorRT-LLM#19220",
)
def sink_at_a_placeholder(s, v, sink):
    if sink is None:
        return whole(s, v, None)
    m = s.new_full((*s.shape[:-1], 1), -1e5)
    return finish(*step((m, torch.exp(sink - m), s.new_zeros((*s.shape[:-1], v.shape[-1]))), s, v))


# softcap


@changed(
    "the softcap is ignored", "softcap", source="sgl-project/sglang#33915; sgl-project/sgl-kernel-xpu#491"
)
def softcap_ignored(given):
    return {"softcap": None}


@changed("the softcap is halved", "softcap")
def softcap_halved(given):
    return {"softcap": given.softcap / 2} if given.softcap else {}


@wrong("scores", "the softcap comes before the scale", "softcap", source="huggingface/trl#5691")
def softcap_before_scale(steps, given):
    s = raw_scores(steps, given)
    s = factor(given) * (cap(s, given.softcap) if given.softcap is not None else s)
    return restrict(steps, add(steps, s, given), given)


@wrong(
    "scores",
    "the softcap comes after the mask: -inf becomes -softcap",
    "softcap and mask",
    source="onnx/onnx#7865",
)
def softcap_after_mask(steps, given):
    s = scores(steps, replace(given, softcap=None))
    return s if given.softcap is None else cap(s, given.softcap)


@wrong("cap", "the softcap is not multiplied back", "softcap")
def softcap_not_multiplied(s, softcap):
    return torch.tanh(s / softcap)


@wrong("cap", "s tanh(s / c)", "softcap", source="unslothai/unsloth-zoo#593")
def softcap_times_score(s, softcap):
    return s * torch.tanh(s / softcap)


@wrong("cap", "the softcap cuts instead of bending", "softcap")
def softcap_clamps(s, softcap):
    return s.clamp(-softcap, softcap)


@wrong(
    "cap",
    "tanh by exponentials that overflow: inf / inf",
    "softcap, large scores",
    source="ggml-org/llama.cpp#9159",
)
def softcap_by_exponentials(s, softcap):
    e = torch.exp(2 * s / softcap)
    return softcap * (e - 1) / (e + 1)


@wrong("cap", "a tanh good to 2^-10 (tanh.approx)", "softcap", dtypes=FLOAT32)
def softcap_coarse(s, softcap):
    t = torch.tanh(s / softcap)
    return softcap * (t * (1 + 2.0**-10 * torch.sin(40 * t)))


@wrong(
    "cap",
    "the softcap acts on scores that log2(e) has multiplied",
    "softcap",
    source="sgl-project/sgl-kernel-xpu#491",
)
def softcap_in_base_2(s, softcap):
    return cap(s * LOG2E, softcap) / LOG2E


# ALiBi


def slopes(breaks, needs=("ALiBi",), *statuses, dtypes=BOTH, source=""):
    """Registers the right kernel of other slopes: f(slopes [H])."""

    def register(function):
        kernel = Attention(
            arguments=lambda given: (
                given
                if given.alibi_slopes is None
                else replace(given, alibi_slopes=function(given.alibi_slopes))
            )
        )
        mutant(function.__name__, lambda: kernel, breaks, needs, *statuses, dtypes=dtypes, source=source)
        return function

    return register


@slopes("ALiBi is added instead of subtracted")
def alibi_sign(slopes):
    return -slopes


@slopes("the slopes are those of the next head")
def alibi_of_the_next_head(slopes):
    return slopes.roll(1)


@slopes("the slope of head 0 is used for all")
def alibi_of_head_0(slopes):
    return slopes[:1].expand_as(slopes)


@slopes("ALiBi is ignored")
def alibi_ignored(slopes):
    return slopes * 0


@slopes("each slope is twice itself: the exponent counts heads from 0", source="paiml/aprender#2143")
def alibi_exponent_off_by_one(slopes):
    return slopes * 2


@slopes(
    "the slopes given are ignored for 2^(-8 (h + 1) / H)",
    ("ALiBi", "ALiBi, six heads"),
    source="ml-explore/mlx#3071; NVIDIA/TensorRT-LLM#1611",
)
def alibi_powers_of_two(slopes):
    heads = len(slopes)
    return (2.0 ** (-8.0 / heads * torch.arange(1, heads + 1, dtype=torch.float64))).to(slopes.dtype)


@slopes("ALiBi enters exponents of base 2 as it is")
def alibi_in_base_2(slopes):
    return slopes * LN2


@slopes("ALiBi is scaled as if it were a score")
def alibi_scaled(slopes):
    return slopes / 4


@wrong("tilt", "the distance is from the other corner", ("ALiBi", "ALiBi, not causal"))
def alibi_alignment(s, given):
    other = {"bottom_right": "top_left", "top_left": "bottom_right", None: "bottom_right"}[given.causal]
    return tilt(s, replace(given, causal=other))


@wrong("tilt", "the distance has a sign: keys of the future are favoured", "ALiBi, not causal")
def alibi_signed(s, given):
    distance = positions(given) - torch.arange(given.keys)
    return s - given.alibi_slopes.to(s.dtype)[:, None, None] * distance


@wrong("tilt", "the distance is one too small and never below 0", "ALiBi, not causal")
def alibi_distance_off_by_one(s, given):
    distance = ((positions(given) - torch.arange(given.keys)).abs() - 1).clamp(min=0)
    return s - given.alibi_slopes.to(s.dtype)[:, None, None] * distance


@wrong("tilt", "distances are counted inside a tile of 64", "ALiBi")
def alibi_in_the_tile(s, given):
    distance = (positions(given) - torch.arange(given.keys)).abs() % 64
    return s - given.alibi_slopes.to(s.dtype)[:, None, None] * distance


@wrong("tilt", "slope times distance is rounded to bfloat16", "ALiBi, six heads", dtypes=FLOAT32)
def alibi_in_bfloat16(s, given):
    distance = (positions(given) - torch.arange(given.keys)).abs()
    return s - round_to(given.alibi_slopes.to(s.dtype)[:, None, None] * distance, torch.bfloat16)


# windows


def windows(breaks, needs=("window",), *statuses, dtypes=BOTH, source=""):
    """Registers the right kernel of another window: f(left, right, given)."""

    def register(function):
        kernel = Attention(
            arguments=lambda given: (
                given if given.window is None else replace(given, window=function(*given.window, given))
            )
        )
        mutant(function.__name__, lambda: kernel, breaks, needs, *statuses, dtypes=dtypes, source=source)
        return function

    return register


def plus(side, more):
    return None if side is None else max(side + more, 0)


@windows(
    "the window is a key too wide on the left",
    ("window", "window to the left"),
    source="huggingface/transformers#39408; ml-explore/mlx-lm#390",
)
def window_wider_left(left, right, given):
    return plus(left, 1), right


@windows("the window is a key too narrow on the left", ("window", "window to the left"))
def window_narrower_left(left, right, given):
    return plus(left, -1), right


@windows("the window is a key too wide on the right", "window, not causal")
def window_wider_right(left, right, given):
    return left, plus(right, 1)


@windows("the window is a key too narrow on the right", "window, not causal")
def window_narrower_right(left, right, given):
    return left, plus(right, -1)


@windows("the right side is ignored", "window, not causal")
def window_right_ignored(left, right, given):
    return left, None


@windows("the left side is ignored", ("window", "window to the left"))
def window_left_ignored(left, right, given):
    return None, right


@windows(
    "the right side is as wide as the left",
    ("window, not causal", "window to the left"),
    source="ModelTC/LightLLM#1311",
)
def window_symmetric(left, right, given):
    return left, left


@windows("left and right are exchanged", "window, not causal", source="huggingface/transformers#41228")
def window_exchanged(left, right, given):
    return right, left


@windows(
    "an unlimited side is read as a side of 0", "window to the left", source="NVIDIA/TransformerEngine#3528"
)
def window_unlimited_is_0(left, right, given):
    return left or 0, right or 0


@windows("a side of 0 is read as unlimited", "window of 0")
def window_0_is_unlimited(left, right, given):
    return left or None, right or None


@wrong("near", "the window is relative to the other corner", ("window", "window to the left"))
def window_alignment(given):
    other = {"bottom_right": None, "top_left": "bottom_right", None: "bottom_right"}[given.causal]
    left, right = given.window
    away = torch.arange(given.keys) - positions(replace(given, causal=other))
    return (away >= -(left if left is not None else 10**9)) & (
        away <= (right if right is not None else 10**9)
    )


@wrong("near", "keys before the window in its first tile of 16 are visible", "window, 70 queries")
def window_by_tiles(given):
    at, here = torch.arange(given.keys), positions(given)
    left, right = given.window
    from_ = (
        torch.div(here - left, 16, rounding_mode="floor") * 16 if left is not None else torch.zeros_like(here)
    )
    return (at >= from_) & (at <= here + (right if right is not None else 10**9))


# grouped heads


def both(name, breaks, function, needs=("plain",), source=""):
    """A mutant of the head mapping, of keys and values alike."""
    mutant(name, lambda: Attention(share=function, values=function), breaks, needs, source=source)


both(
    "heads_tiled",
    "head h reads key head h % G",
    lambda t, heads: t.repeat(1, heads // t.shape[1], 1, 1),
    ("plain", "six heads"),
    source="onnx/onnx#7274; ekzhang/jax-js#180",
)
both("heads_reversed", "head h reads the key heads in reverse", lambda t, heads: share(t.flip(1), heads))
both(
    "heads_of_group_0",
    "the first key head is read by all",
    lambda t, heads: t[:, :1].expand(-1, heads, -1, -1),
)
both(
    "heads_rolled",
    "head h reads the next head's keys: (h + 1) // (H / G)",
    lambda t, heads: share(t, heads).roll(-1, 1),
)
both(
    "group_size_for_groups",
    "head h reads key head h // G: right only where the group has G heads",
    lambda t, heads: t[:, (torch.arange(heads) // t.shape[1]).clamp(max=t.shape[1] - 1)],
    ("six heads",),
    source="HazyResearch/HipKittens#22",
)


@wrong("values", "keys are shared rightly, the values are tiled")
def values_tiled(tensor, heads):
    return tensor.repeat(1, heads // tensor.shape[1], 1, 1)


# lengths


def lengths(breaks, needs=("lengths",), *statuses, dtypes=BOTH, source=""):
    """Registers the right kernel of other lengths: f(kv_lengths [B])."""

    def register(function):
        kernel = Attention(
            arguments=lambda given: (
                given if given.kv_lengths is None else replace(given, kv_lengths=function(given.kv_lengths))
            )
        )
        mutant(function.__name__, lambda: kernel, breaks, needs, *statuses, dtypes=dtypes, source=source)
        return function

    return register


@lengths("kv_lengths is ignored")
def lengths_ignored(n):
    return n * 0 + 10**6


@lengths("a key behind kv_lengths is visible")
def lengths_one_longer(n):
    return n + 1


@lengths("the last key of kv_lengths is not visible")
def lengths_one_shorter(n):
    return n - 1


@lengths("the length of batch 0 is used for all")
def length_of_batch_0(n):
    return n[:1].expand_as(n)


@lengths("the lengths are those of the other batch")
def lengths_of_the_other_batch(n):
    return n.flip(0)


@lengths("the last tile of 16 that a length reaches is read to its end", source="pytorch/executorch#9105")
def lengths_by_tiles(n):
    return (n + 15) // 16 * 16


@lengths("a length of 0 is read as 1", "length 0")
def length_0_is_1(n):
    return n.clamp(min=1)


@lengths("a length of 0 means no limit", "length 0")
def length_0_is_unlimited(n):
    return torch.where(n == 0, 10**6, n)


@wrong("within", "kv_lengths hides the first keys instead of the last", "lengths")
def lengths_from_the_end(given):
    return within(given).flip(-1)


# precision of the state


def stored(breaks, needs, dtype, of, dtypes):
    """A fold over tiles of 16 whose sum ("l") or output ("o") is stored in a dtype between tiles,
    or whose P is ("p").
    """

    def in_dtype(state, tile, value):
        m, total, o = step(state, tile, value, stored=dtype if of == "p" else None)
        return m, round_to(total, dtype) if of == "l" else total, round_to(o, dtype) if of == "o" else o

    short = str(dtype).removeprefix("torch.")
    what = {"l": "sum", "o": "output", "p": "P"}[of]
    mutant(
        f"{what}_in_{short}",
        lambda: Attention(fold=online(block=16, step=in_dtype)),
        breaks,
        needs,
        dtypes=dtypes,
    )


stored("the sum of weights is stored in bfloat16 between tiles", "S = 1040", torch.bfloat16, "l", BOTH)
stored("the sum of weights is stored in float16 between tiles", "S = 1040", torch.float16, "l", FLOAT32)
stored("the output is accumulated in bfloat16", "S = 1040", torch.bfloat16, "o", BOTH)
stored("the output is accumulated in float16", "S = 1040", torch.float16, "o", (*FLOAT32, "float16"))
stored("P is stored in float16, not declared", "plain", torch.float16, "p", FLOAT32)
stored("P is stored in bfloat16, not declared", "plain", torch.bfloat16, "p", (*FLOAT32, "float16"))
stored("P is stored in e4m3, not declared", ("plain", "S = 1040"), torch.float8_e4m3fn, "p", FORMATS)
stored("P is stored in e5m2, not declared", ("plain", "S = 1040"), torch.float8_e5m2, "p", FORMATS)


@in_tiles(
    "the maximum is stored in bfloat16, and what was summed is rescaled by the rounded one",
    ("rising", "hard"),
)
def maximum_in_bfloat16(state, tile, value):
    m, total, o = step(state, tile, value)
    return round_to(m, torch.bfloat16), total, o


@in_tiles(
    "values are huge and the output is accumulated in float16: it overflows",
    "huge values",
    dtypes=FLOAT32,
    source="thu-ml/SageAttention#164",
)
def output_overflows_in_float16(state, tile, value):
    m, total, o = step(state, tile, value)
    return m, total, round_to(o, torch.float16)


def tf32(x):
    """Truncated to 10 bits behind the point, as tensor cores read float32."""
    return (x.view(torch.int32) & ~0x1FFF).view(torch.float32) if x.dtype == torch.float32 else x


@wrong("product", "scores are products of tf32", dtypes=FLOAT32)
def scores_in_tf32(q, k):
    return tf32(q) @ tf32(k).mT


@wrong("values", "values are read as tf32", "normal values", dtypes=FLOAT32)
def values_in_tf32(v, heads):
    return tf32(share(v, heads))


@wrong("product", "products are rounded to bfloat16 before the scale", ("plain", "hard"), dtypes=FORMATS)
def products_in_bfloat16(q, k):
    return round_to(product(q, k), torch.bfloat16)


@rescored("scores are stored in bfloat16, not declared", ("plain", "hard"), dtypes=FORMATS)
def scores_in_bfloat16(s):
    return round_to(s, torch.bfloat16)


@rescored("scores are stored in float16, not declared", ("hard",), dtypes=FORMATS)
def scores_in_float16(s):
    return round_to(s, torch.float16)


@wrong(
    "product",
    "q log2(e) / sqrt(E) is rounded to bfloat16 before the product",
    ("plain", "hard"),
    dtypes=FORMATS,
)
def scaled_query_in_bfloat16(q, k):
    c = LOG2E / math.sqrt(q.shape[-1])
    return product(round_to(q * c, torch.bfloat16), k) / c


@wrong("round", "the output passes through bfloat16", dtypes=(*FLOAT32, "float16"))
def output_through_bfloat16(o, dtype):
    return o.to(torch.bfloat16).to(dtype)


def exponential(breaks, needs=("plain",), *statuses, dtypes=BOTH, source=""):
    """Registers f(s - m) in place of exp, where s is finite."""

    def register(function):
        def e(s, m):
            return torch.where(s == -torch.inf, 0.0, function(s - finite_or_0(m)))

        kernel = Attention(fold=online(block=16, step=functools.partial(step, exponential=e)))
        mutant(function.__name__, lambda: kernel, breaks, needs, *statuses, dtypes=dtypes, source=source)
        return function

    return register


@exponential("exp2 by a polynomial of degree 2 (relative error 1.7e-3)", dtypes=("float32", "float16"))
def exp_of_degree_2(z):
    z = z.clamp(min=-80) * LOG2E
    k = torch.floor(z)
    f = z - k
    return (1.0017 + f * (0.6573 + f * 0.3427)) * torch.exp2(k)


@exponential(
    "exp2 by a polynomial of degree 3 (relative error 8.8e-5)",
    dtypes=FLOAT32,
    source="FlashAttention-4 allows it for bfloat16",
)
def exp_of_degree_3(z):
    z = z.clamp(min=-80) * LOG2E
    k = torch.floor(z)
    f = z - k
    return (1 + f * (0.69514614 + f * (0.22764469 + f * 0.07711909))) * torch.exp2(k)


@exponential("Schraudolph's exponential: the bits of a line (relative error up to 3e-2)")
def exp_by_bits(z):
    scaled = (z.clamp(min=-80).double() * LOG2E + 127 - 0.0436) * 2**23
    return scaled.to(torch.int32).view(torch.float32).to(z.dtype)


@exponential("exponents are clamped at -8", "hard")
def exp_clamped(z):
    return torch.exp(z.clamp(min=-8))


@exponential("2^x instead of e^x")
def exp_in_base_2(z):
    return torch.exp2(z)


@wrong("fold", "no maximum is subtracted, not declared", ("large scores", "low scores"), source="textbook")
def no_maximum(s, v, sink):
    e = torch.exp(s)
    return finish(
        torch.zeros_like(s[..., :1]),
        e.sum(-1, keepdim=True) + (0 if sink is None else torch.exp(sink)),
        e @ v,
    )


# scale


def scaled(breaks, needs=("plain",), *statuses, dtypes=BOTH, source=""):
    """Registers f(given) in place of the scale."""
    return wrong("factor", breaks, needs, *statuses, dtypes=dtypes, source=source)


@scaled("the scale is 1 % too large", ("plain", "S = 1040"))
def scale_one_percent(given):
    return 1.01 * factor(given)


@scaled("no scale")
def scale_1(given):
    return 1.0 if given.scale is None else given.scale


@scaled("1 / E instead of 1 / sqrt(E)")
def scale_of_size(given):
    return 1 / given.q.shape[-1] if given.scale is None else given.scale


@scaled(
    "the scale is of E rounded up to a power of two",
    "six heads",
    source="intel/ipex-llm#12619; bytedance-iaas/sglang#485",
)
def scale_of_padded_size(given):
    return 2 ** (-math.ceil(math.log2(given.q.shape[-1])) / 2) if given.scale is None else given.scale


@scaled("the scale is of all heads' size together", source="Graylab/DL4Proteins-notebooks#12")
def scale_of_all_heads(given):
    return 1 / math.sqrt(given.q.shape[-1] * given.heads) if given.scale is None else given.scale


@scaled("the scale is of the values' size", "six heads")
def scale_of_values(given):
    return 1 / math.sqrt(given.v.shape[-1]) if given.scale is None else given.scale


@scaled("the scale that is given is ignored", ("scale", "negative scale", "scale 0"))
def scale_ignored(given):
    return 1 / math.sqrt(given.q.shape[-1])


@scaled(
    "the scale that is given multiplies the default one",
    ("scale", "negative scale"),
    source="RL-Align/RL-Kernel#86",
)
def scale_twice(given):
    return factor(given) if given.scale is None else given.scale / math.sqrt(given.q.shape[-1])


@scaled("a negative scale loses its sign", "negative scale")
def scale_absolute(given):
    return abs(factor(given))


@scaled("a scale of 0 is taken for the default", "scale 0")
def scale_0_is_default(given):
    return given.scale or 1 / math.sqrt(given.q.shape[-1])


@scaled(
    "the scale is split as sqrt(scale) on q and on k: NaN for a negative one",
    "negative scale",
    source="pytorch/pytorch#105202",
)
def scale_split(given):
    return factor(given) if factor(given) >= 0 else math.nan


@scaled("the scale is rounded to bfloat16", ("scale",), dtypes=FLOAT32)
def scale_in_bfloat16(given):
    return float(torch.tensor(factor(given), dtype=torch.bfloat16))


@wrong(
    "output",
    "the maximum is of unscaled scores: a negative scale makes it the minimum, and exp overflows",
    "negative scale, large scores",
    source="pytorch/pytorch#105190",
)
def minimum_for_maximum(o, s, given):
    if factor(given) >= 0 or given.sink is not None:
        return o
    e = torch.exp(s - torch.where(s == -torch.inf, torch.inf, s).amin(-1, keepdim=True))
    return torch.where(
        empty(s),
        o,
        finish(s[..., :1], e.sum(-1, keepdim=True), e @ share(given.v, given.heads).to(s.dtype))[0],
    )


# queries without a key


@wrong(
    "fold",
    "a query that sees nothing gives NaN",
    "nothing seen",
    source="pytorch/pytorch#131060; tracel-ai/burn#4694",
)
def empty_nan(s, v, sink):
    m = torch.maximum(s.amax(-1, keepdim=True), start(s, v, sink)[0])
    e = torch.exp(s - m)
    total = e.sum(-1, keepdim=True) + (0 if sink is None else torch.exp(sink - m))
    return (e @ v) / total, (m + torch.log(total))[..., 0]


def empty(s):
    return (s == -torch.inf).all(-1, keepdim=True)


@wrong("output", "a query that sees nothing gives the mean of the values", ("nothing seen", "length 0"))
def empty_mean(o, s, given):
    mean = share(given.v, given.heads).to(o.dtype).mean(-2, keepdim=True)
    return torch.where(empty(s), mean, o)


@wrong("output", "a query that sees nothing gives the value of the first key", "nothing seen")
def empty_first_value(o, s, given):
    return torch.where(empty(s), share(given.v, given.heads).to(o.dtype)[..., :1, :], o)


@wrong(
    "output",
    "a query that sees nothing gives what the query before it gives",
    "nothing seen",
    source="Dao-AILab/flash-attention#752 (rows not written)",
)
def empty_row_stale(o, s, given):
    return torch.where(empty(s), o.roll(1, -2), o)


@wrong(
    "output",
    "the guard of an empty row stands in the causal branch only: NaN with a mask",
    "nothing seen",
    source="ROCm/composable_kernel#3326",
)
def empty_guard_for_causal(o, s, given):
    return torch.where(empty(s) & (given.causal is None), torch.nan, o)


@wrong(
    "output",
    "NaN is replaced by 0 at the end",
    "NaN in q",
    *SPECIAL,
    source="pytorch/pytorch#131060 (first draft); robertknight/rten#1321",
)
def nan_swallowed(o, s, given):
    return o.nan_to_num(0.0)


@wrong(
    "fold",
    "a NaN is lost in the maximum, so its row is taken for an empty one",
    "NaN in q",
    *SPECIAL,
    source="pytorch/pytorch#141128",
)
def nan_row_is_empty(s, v, sink):
    o, lse = whole(s, v, sink)
    return torch.where(s.isnan().any(-1, keepdim=True), 0.0, o), lse


@wrong(
    "fold", "the sum is kept above 0 by adding 1e-6", "one key", dtypes=FLOAT32, source="tracel-ai/burn#4697"
)
def epsilon_in_the_sum(s, v, sink):
    m = torch.maximum(s.amax(-1, keepdim=True), start(s, v, sink)[0])
    e = difference(s, m)
    return finish(m, e.sum(-1, keepdim=True) + (0 if sink is None else difference(sink, m)) + 1e-6, e @ v)


# values, batches, calls


@wrong("output", "values are read as if they had E entries: the rest of the result is 0", "six heads")
def values_cut_to_head_size(o, s, given):
    o = o.clone()
    o[..., given.q.shape[-1] :] = 0
    return o


@wrong("output", "all results are 0")
def zeros(o, s, given):
    return torch.zeros_like(o)


@wrong("output", "every result is the mean of the values")
def mean_of_values(o, s, given):
    return share(given.v, given.heads).to(o.dtype).mean(-2, keepdim=True).expand_as(o)


@wrong("product", "q is ignored: that of the first query serves all")
def query_ignored(q, k):
    return product(q[:, :, :1].expand_as(q), k)


@wrong("product", "k is ignored")
def key_ignored(q, k):
    return product(q, torch.zeros_like(k))


@wrong("product", "the last entry of q and k is left out")
def last_entry_dropped(q, k):
    return product(q[..., :-1], k[..., :-1])


@wrong("product", "entries past the last multiple of 16 of E are left out", "six heads")
def head_size_cut(q, k):
    whole = max(q.shape[-1] // 16 * 16, min(q.shape[-1], 16))
    return product(q[..., :whole], k[..., :whole])


@wrong("output", "the results of batch 0 are returned for all")
def batch_0_for_all(o, s, given):
    return o[:1].expand_as(o)


@changed("the keys of batch 0 are read by all")
def keys_of_batch_0(given):
    return {"k": given.k[:1].expand_as(given.k)}


@changed("the values of batch 0 are read by all")
def values_of_batch_0(given):
    return {"v": given.v[:1].expand_as(given.v)}


@wrong("output", "the last query is the one before it")
def last_query_repeated(o, s, given):
    o = o.clone()
    o[:, :, -1] = o[:, :, max(given.length - 2, 0)]
    return o


@wrong("output", "the last head is not written")
def last_head_not_written(o, s, given):
    o = o.clone()
    o[:, -1] = 0
    return o


@wrong("output", "every result is 2 % too large")
def two_percent(o, s, given):
    return 1.02 * o


def noisy():
    """A fresh generator for each kernel, and fresh noise for each call."""
    generator = torch.Generator().manual_seed(0)

    def output(o, s, given):
        return o * (1 + 2.0**-8 * (torch.rand(o.shape, generator=generator, dtype=o.dtype) - 0.5))

    return Attention(output=output)


mutant(
    "noise",
    noisy,
    "results differ from call to call by up to 2^-9 of themselves",
    "plain",
    "law_broken",
    "inaccurate",
    dtypes=FLOAT32,
    source="Dao-AILab/flash-attention#414 (backward)",
)


def query_overwritten(given):
    given.q.mul_(1 / math.sqrt(given.q.shape[-1]))
    return replace(given, scale=1.0 if given.scale is None else given.scale * math.sqrt(given.q.shape[-1]))


mutant(
    "query_overwritten",
    lambda: Attention(arguments=query_overwritten),
    "q is scaled in place",
    "plain",
    "law_broken",
)


def replayed():
    """The first tilt of a shape is kept."""
    kept = {}

    def cached(s, given):
        if s.shape not in kept:
            kept[s.shape] = tilt(torch.zeros_like(s), given)
        return s + kept[s.shape]

    return Attention(tilt=cached)


mutant(
    "alibi_of_the_first_call",
    replayed,
    "what ALiBi adds is kept from the first call of a shape",
    "ALiBi",
    source="ml-explore/mlx#3071 (cached bias)",
)


# mutants that the bound allows


BLIND: dict[str, tuple[Attention, str]] = {}
"""Mutants that no input brings out in bfloat16, with the reason: they are recorded (bias, bits of a
second call), not judged.
"""


def truncated(o, dtype):
    """Truncation is off by less than 2 u |o|; the cast of P and the output's rounding may be off by
    2 u |o| together.
    """
    return (
        (o.view(torch.int32) & ~0xFFFF).view(torch.float32).to(dtype)
        if dtype == torch.bfloat16
        else o.to(dtype)
    )


BLIND["output_truncated"] = (Attention(round=truncated), str(truncated.__doc__))
BLIND["noise"] = (
    noisy(),
    "Two calls may differ by what one may be off; 2^-9 is half of what the cast of P may do.",
)


# lse


def wrong_lse(breaks, needs=("plain",), *, source=""):
    """Registers f(lse [B, H, L], s, given) in place of the right lse."""
    return wrong("lse", breaks, needs, "inaccurate", "nonfinite", "law_broken", source=source, of="lse")


@wrong_lse("lse is in base 2", source="lightseekorg/tokenspeed#571; ROCm/torch_migraphx#274")
def lse_in_base_2(lse, s, given):
    return lse * LOG2E


@wrong_lse("lse is multiplied by ln 2 once more", source="pytorch/pytorch#181645")
def lse_times_ln2(lse, s, given):
    return lse * LN2


@wrong_lse("lse has the other sign")
def lse_sign(lse, s, given):
    return -lse


@wrong_lse("lse is without the maximum: the log of the sum")
def lse_without_maximum(lse, s, given):
    return lse - finite_or_0(s.amax(-1))


@wrong_lse("lse is the maximum, without the log of the sum")
def lse_is_the_maximum(lse, s, given):
    return s.amax(-1)


@wrong_lse("lse is without the sink", "sink")
def lse_without_sink(lse, s, given):
    return torch.logsumexp(s, -1)


@wrong_lse("lse is the sum, without its log")
def lse_without_log(lse, s, given):
    return torch.exp(lse)


@wrong_lse("lse is of scores without their scale")
def lse_unscaled(lse, s, given):
    return torch.logsumexp(s / factor(given), -1)


@wrong_lse("lse is +inf where nothing is seen", "nothing seen", source="Dao-AILab/flash-attention#978")
def lse_infinite(lse, s, given):
    return torch.where(lse == -torch.inf, torch.inf, lse)


@wrong_lse("lse is finite where nothing is seen", "nothing seen", source="flashinfer-ai/flashinfer#4452")
def lse_sentinel(lse, s, given):
    return torch.where(lse == -torch.inf, -5e4, lse)


@wrong_lse("lse is 0 where nothing is seen", "nothing seen", source="flashinfer-ai/flashinfer#4484")
def lse_0(lse, s, given):
    return torch.where(lse == -torch.inf, 0.0, lse)


@wrong_lse("lse is NaN where nothing is seen", "nothing seen", source="rmcgibbo/logsumexp#2")
def lse_nan(lse, s, given):
    return torch.where(lse == -torch.inf, torch.nan, lse)


@wrong_lse("lse is stored in bfloat16")
def lse_in_bfloat16(lse, s, given):
    return round_to(lse, torch.bfloat16)


@wrong_lse("lse is stored in float16")
def lse_in_float16(lse, s, given):
    return round_to(lse, torch.float16)


@wrong_lse("lse counts the hidden keys", "causal, top left")
def lse_of_hidden_keys(lse, s, given):
    return torch.logsumexp(torch.where(s == -torch.inf, 0.0, s), -1)


@wrong_lse("lse is that of the next query")
def lse_of_the_next_query(lse, s, given):
    return lse.roll(-1, -1)


@wrong_lse("lse is that of the next head")
def lse_of_the_next_head(lse, s, given):
    return lse.roll(1, 1)


@wrong(
    "fold",
    "the sink is left out of the maximum: exp(sink - m) overflows, and lse is inf",
    "large sink",
    "inaccurate",
    "nonfinite",
    source="sgl-project/sgl-kernel-npu#216",
    of="lse",
)
def sink_not_in_the_maximum(s, v, sink):
    """o is right all the same: what exp(s - m) / inf makes 0 is below 2^-126."""
    m = s.amax(-1, keepdim=True)
    e = difference(s, m)
    return finish(m, e.sum(-1, keepdim=True) + (0 if sink is None else difference(sink, m)), e @ v)
