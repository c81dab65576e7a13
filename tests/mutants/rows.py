"""Mutants of softmax, log_softmax and logsumexp along rows."""

import torch

from tests.mutants.mutant import BOTH, FLOAT32, LOG2E, last, mutant, parts, round_to, sequential

# precision of the state


@mutant("softmax", "the denominator is accumulated in bfloat16", dtypes=BOTH)
@last
def denominator_in_bfloat16(x):
    e, _ = parts(x)
    return e / sequential(e, torch.bfloat16)


@mutant("softmax", "the denominator is accumulated in float16", dtypes=BOTH)
@last
def denominator_in_float16(x):
    e, _ = parts(x)
    return e / sequential(e, torch.float16)


@mutant("softmax", "the sum is stored in bfloat16", dtypes=BOTH)
@last
def sum_stored_in_bfloat16(x):
    e, s = parts(x)
    return e / round_to(s, torch.bfloat16)


@mutant("softmax", "x - max x is rounded to bfloat16")
@last
def argument_in_bfloat16(x):
    e = torch.exp(round_to(x - x.amax(-1, keepdim=True), torch.bfloat16))
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "exponentials are stored in bfloat16 and rounded again at the end", dtypes=BOTH)
@last
def exponentials_in_bfloat16(x):
    e, _ = parts(x)
    e = round_to(e, torch.bfloat16)
    return e / e.sum(-1, keepdim=True)


@mutant(
    "softmax", "the result passes through tf32 (10 bits) before it is rounded to float16", dtypes=("float16",)
)
@last
def rounded_twice(x):
    y = torch.softmax(x, -1)
    return ((y.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@mutant("softmax", "the result is truncated to bfloat16 instead of rounded", dtypes=("bfloat16",))
@last
def truncated(x):
    return (torch.softmax(x, -1).view(torch.int32) & ~0xFFFF).view(torch.float32)


@mutant("softmax", "results below the normal numbers of float16 are flushed", dtypes=("float16",))
@last
def float16_flushed(x):
    y = torch.softmax(x, -1)
    return torch.where(y < 2.0**-14, 0.0, y)


# sums


@mutant("softmax", "the first entry is left out of the sum", "inaccurate", "nonfinite", dtypes=BOTH)
@last
def first_entry_dropped(x):
    e, _ = parts(x)
    return e / e[..., 1:].sum(-1, keepdim=True)


@mutant("softmax", "the last entry is left out of the sum", "inaccurate", "nonfinite", dtypes=BOTH)
@last
def last_entry_dropped(x):
    e, _ = parts(x)
    return e / e[..., :-1].sum(-1, keepdim=True)


@mutant("softmax", "the last entry counts twice", dtypes=BOTH)
@last
def last_entry_twice(x):
    e, s = parts(x)
    return e / (s + e[..., -1:])


@mutant("softmax", "entry 127 of a row is left out of the sum", "inaccurate", "nonfinite", dtypes=BOTH)
@last
def entry_before_a_tile_boundary_dropped(x):
    e, s = parts(x)
    return e / (s - e[..., 127:128].sum(-1, keepdim=True))


@mutant(
    "softmax", "the last incomplete tile of 32 is left out of the sum", "inaccurate", "nonfinite", dtypes=BOTH
)
@last
def incomplete_tile_dropped(x):
    e, _ = parts(x)
    return e / e[..., : x.shape[-1] // 32 * 32].sum(-1, keepdim=True)


@mutant("softmax", "the last incomplete tile of 32 of the result is not written", "inaccurate", dtypes=BOTH)
@last
def incomplete_tile_not_written(x):
    y = torch.softmax(x, -1)
    y[..., x.shape[-1] // 32 * 32 :] = 0
    return y


@mutant(
    "softmax", "padding lanes up to the next multiple of 64 are loaded as 0 and count in the sum", dtypes=BOTH
)
@last
def padding_in_the_sum(x):
    m = x.amax(-1, keepdim=True)
    lanes = -x.shape[-1] % 64
    return torch.exp(x - m) / (parts(x)[1] + lanes * torch.exp(-m))


@mutant(
    "softmax", "padding lanes are loaded as 0 and enter the maximum", "inaccurate", "nonfinite", dtypes=BOTH
)
@last
def padding_in_the_maximum(x):
    e = torch.exp(x - x.amax(-1, keepdim=True).clamp(min=0))
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "an epsilon of 1e-6 is added to the sum")
@last
def epsilon_in_the_sum(x):
    e, s = parts(x)
    return e / (s + 1e-6)


@mutant(
    "softmax",
    "in rows after the first, an odd width loses its last entry (a misaligned vector load)",
    dtypes=BOTH,
)
@last
def misaligned_rows(x):
    e, s = parts(x)
    if x.shape[-1] % 2 and x.shape[-1] > 1:
        s = s.clone()
        flat, last_column = s.reshape(-1), e[..., -1].reshape(-1)
        flat[1:] -= last_column[1:]
        s = flat.reshape(s.shape)
    return e / s


# rescaling


def blocked(x, size, rescale):
    m = torch.full_like(x[..., :1], -torch.inf)
    d = torch.zeros_like(m)
    for block in torch.split(x, size, -1):
        m_new = torch.maximum(m, block.amax(-1, keepdim=True))
        safe = m_new.masked_fill(m_new == -torch.inf, 0.0)
        d = rescale(d, m, safe) + torch.exp(block - safe).sum(-1, keepdim=True)
        m = m_new
    return torch.exp(x - m) / d


@mutant("softmax", "the running sum is not rescaled when the maximum grows", dtypes=BOTH)
@last
def missing_rescale(x):
    return blocked(x, 16, lambda d, m, m_new: d)


@mutant("softmax", "the running sum is rescaled the wrong way round", "inaccurate", "nonfinite", dtypes=BOTH)
@last
def inverted_rescale(x):
    return blocked(x, 16, lambda d, m, m_new: d * torch.exp((m_new - m).clamp(max=80).nan_to_num(0, 0, 0)))


def unguarded(size):
    """An online softmax by tiles of `size` that meets -inf - -inf in a leading tile of -inf."""

    def kernel(x):
        m = torch.full_like(x[..., :1], -torch.inf)
        d = torch.zeros_like(m)
        for block in torch.split(x, size, -1):
            m_new = torch.maximum(m, block.amax(-1, keepdim=True))
            d = d * torch.exp(m - m_new) + torch.exp(block - m_new).sum(-1, keepdim=True)
            m = m_new
        return torch.exp(x - m) / d

    kernel.__name__ = f"unguarded_rescale_in_tiles_of_{size}"
    return kernel


for _size in (16, 32, 64, 128):
    mutant(
        "softmax", f"a tile of {_size} of -inf before the first number gives NaN", "nonfinite", dtypes=BOTH
    )(last(unguarded(_size)))


@mutant("softmax", "each block of 32 is shifted by its own maximum only", dtypes=BOTH)
@last
def block_maximum_only(x):
    e = torch.cat([torch.exp(b - b.amax(-1, keepdim=True)) for b in torch.split(x, 32, -1)], -1)
    return e / e.sum(-1, keepdim=True)


@mutant(
    "softmax",
    "the running maximum starts at -20000 instead of -inf",
    "inaccurate",
    "nonfinite",
    "law_broken",
    dtypes=BOTH,
)
@last
def finite_first_maximum(x):
    e = torch.exp(x - x.amax(-1, keepdim=True).clamp(min=-2e4))
    return e / e.sum(-1, keepdim=True)


# exp


@mutant(
    "softmax", "exp2 by a polynomial of degree 3 (relative error 8.8e-5, FlashAttention-4's)", dtypes=BOTH
)
@last
def coarse_exp2(x):
    z = (x - x.amax(-1, keepdim=True)) * LOG2E
    k = torch.floor(z)
    f = (z - k).nan_to_num(0)
    p = 1 + f * (0.69514614 + f * (0.22764469 + f * 0.07711909))
    e = torch.where(x == -torch.inf, 0.0, p * torch.exp2(k))
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "log2(e) is taken as 1.4427")
@last
def short_log2e(x):
    e = torch.exp2((x - x.amax(-1, keepdim=True)) * 1.4427)
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "2^x instead of e^x", dtypes=BOTH)
@last
def wrong_base(x):
    e = torch.exp2(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "exponents are clamped at -30", dtypes=BOTH)
@last
def clamped_exponent(x):
    e = torch.where(x == -torch.inf, 0.0, torch.exp((x - x.amax(-1, keepdim=True)).clamp(min=-30)))
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "exp(x) as (1 + x/1024)^1024", dtypes=BOTH)
@last
def compound_interest_exp(x):
    e = (1 + (x - x.amax(-1, keepdim=True)).clamp(min=-1024) / 1024) ** 1024
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "no shift: exp(x) overflows", "nonfinite", "inaccurate", "law_broken", dtypes=BOTH)
@last
def no_shift(x):
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "exp(x - lse) with a rounded lse, not declared")
@last
def lse_subtracted(x):
    return torch.exp(x - torch.logsumexp(x, -1, keepdim=True))


@mutant(
    "softmax", "the maximum of the whole batch instead of each row's", "nonfinite", "inaccurate", dtypes=BOTH
)
def maximum_of_the_batch(x, dim=-1):
    finite = x.float().nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    e = torch.exp(x.float() - finite.amax())
    return (e / e.sum(dim, keepdim=True)).to(x.dtype)


# scale


@mutant("softmax", "every result is 2 % too large", dtypes=BOTH)
@last
def two_percent(x):
    return torch.softmax(x, -1) * 1.02


@mutant("softmax", "logits are scaled by 1.02", dtypes=BOTH)
@last
def warm_logits(x):
    return torch.softmax(x * 1.02, -1)


@mutant("softmax", "the reciprocal of the sum is good to 12 bits only", dtypes=FLOAT32)
@last
def coarse_reciprocal(x):
    e, s = parts(x)
    return e * (torch.round((1 / s) * 2**14) / 2**14).clamp(min=2**-14)


@mutant("softmax", "all results are 0", dtypes=BOTH)
def zeros(x, dim=-1):
    return torch.zeros_like(x)


@mutant("softmax", "every result is 1/n", dtypes=BOTH)
def uniform(x, dim=-1):
    return torch.full_like(x, 1 / x.shape[dim])


@mutant("softmax", "the softmax of another dim", dtypes=BOTH)
def another_dim(x, dim=-1):
    return torch.softmax(x.float(), (dim + 1) % x.ndim).to(x.dtype)


# special values


@mutant("softmax", "NaN is replaced by 0 at the end", "law_broken", dtypes=BOTH)
@last
def nan_swallowed(x):
    return torch.softmax(x, -1).nan_to_num(0.0)


@mutant("softmax", "NaN logits are treated as masked", "law_broken", dtypes=BOTH)
@last
def nan_as_mask(x):
    return torch.softmax(torch.where(x.isnan(), -torch.inf, x), -1)


@mutant("softmax", "a row of -inf gives 0, not declared", "law_broken", dtypes=BOTH)
@last
def empty_row_is_zero(x):
    return torch.where((x == -torch.inf).all(-1, keepdim=True), 0.0, torch.softmax(x, -1))


@mutant("softmax", "a masked entry keeps 1e-10", dtypes=BOTH)
@last
def leaking_mask(x):
    return torch.where(x == -torch.inf, torch.softmax(x, -1) + 1e-10, torch.softmax(x, -1))


@mutant("softmax", "-inf is replaced by -50 before the exponential", "inaccurate", "law_broken", dtypes=BOTH)
@last
def weak_sentinel(x):
    return torch.softmax(torch.where(x == -torch.inf, -50.0, x), -1)


@mutant("softmax", "+inf gives a one-hot row instead of NaN", "law_broken", dtypes=BOTH)
@last
def infinity_is_one_hot(x):
    infinite = (x == torch.inf).any(-1, keepdim=True) & ~x.isnan().any(-1, keepdim=True)
    return torch.where(infinite, (x == torch.inf).to(x.dtype), torch.softmax(x, -1))


# rows and calls


@mutant("softmax", "the last row is the one before it", dtypes=BOTH)
@last
def last_row_repeated(x):
    y = torch.softmax(x, -1)
    y[..., -1, :] = y[..., -2, :]
    return y


@mutant(
    "softmax",
    "the first result of each shape is returned again",
    "law_broken",
    "inaccurate",
    stateful=True,
    dtypes=BOTH,
)
def replayed():
    results = {}

    def kernel(x, dim=-1):
        key = (x.shape, x.dtype, dim)
        if key not in results:
            results[key] = torch.softmax(x.float(), dim).to(x.dtype)
        return results[key].clone()

    return kernel


@mutant(
    "softmax",
    "a single row takes a path without a shift",
    "law_broken",
    "inaccurate",
    "nonfinite",
    dtypes=BOTH,
)
def single_row_path(x, dim=-1):
    if x.shape[0] == 1:
        return (torch.softmax(x.float(), dim) * 1.01).to(x.dtype)
    return torch.softmax(x.float(), dim).to(x.dtype)


@mutant(
    "softmax",
    "every second call reads a stale maximum",
    "law_broken",
    "inaccurate",
    "nonfinite",
    stateful=True,
    dtypes=BOTH,
)
def stale_second_call():
    calls = [0]

    def kernel(x, dim=-1):
        calls[0] += 1
        y = torch.softmax(x.float(), dim)
        return (y * (1 if calls[0] % 2 else 1.05)).to(x.dtype)

    return kernel


@mutant("softmax", "the kernel shifts its input in place", "law_broken", "inaccurate", dtypes=BOTH)
def input_overwritten(x, dim=-1):
    y = torch.softmax(x.float(), dim).to(x.dtype)
    x.sub_(x.amax(dim, keepdim=True) + 1)
    return y


# log_softmax


@mutant(
    "log_softmax", "log of softmax: -inf where softmax underflows", "nonfinite", "inaccurate", dtypes=BOTH
)
@last
def log_of_softmax(x):
    return torch.log(torch.softmax(x, -1))


@mutant("log_softmax", "x - lse with a rounded lse, not declared")
@last
def lse_subtracted_undeclared(x):
    return x - torch.logsumexp(x, -1, keepdim=True)


@mutant("log_softmax", "the log of the sum is rounded to bfloat16", dtypes=BOTH)
@last
def log_sum_in_bfloat16(x):
    z = x - x.amax(-1, keepdim=True)
    return z - round_to(torch.log(torch.exp(z).sum(-1, keepdim=True)), torch.bfloat16)


@mutant("log_softmax", "an epsilon inside the log", dtypes=FLOAT32)
@last
def epsilon_in_the_log(x):
    z = x - x.amax(-1, keepdim=True)
    return z - torch.log(torch.exp(z).sum(-1, keepdim=True) + 1e-6)


@mutant("log_softmax", "the result is in base 2", dtypes=BOTH)
@last
def base_2_result(x):
    return torch.log_softmax(x, -1) * LOG2E


@mutant("log_softmax", "softmax instead of log_softmax", "inaccurate", "law_broken", dtypes=BOTH)
@last
def not_a_logarithm(x):
    return torch.softmax(x, -1)


@mutant("log_softmax", "results are clamped at -100", "inaccurate", "law_broken", dtypes=BOTH)
@last
def clamped_logarithm(x):
    return torch.log_softmax(x, -1).clamp(min=-100)


@mutant("log_softmax", "the last entry is left out of the sum", "inaccurate", "nonfinite", dtypes=BOTH)
@last
def log_of_a_short_sum(x):
    z = x - x.amax(-1, keepdim=True)
    return z - torch.log(torch.exp(z[..., :-1]).sum(-1, keepdim=True))


@mutant("log_softmax", "entries behind the lowest finite number are 5", "inaccurate", dtypes=BOTH)
@last
def five_behind_a_sentinel(x):
    return torch.where(x < -1e30, 5.0, torch.log_softmax(x, -1))


@mutant("log_softmax", "entries behind the lowest finite number are +inf", "nonfinite", dtypes=BOTH)
@last
def infinity_behind_a_sentinel(x):
    return torch.where(x < -1e30, torch.inf, torch.log_softmax(x, -1))


# logsumexp


@mutant("logsumexp", "no shift: exp(x) overflows", "nonfinite", "inaccurate", dtypes=BOTH)
@last
def unshifted_lse(x):
    return torch.log(torch.exp(x).sum(-1))


@mutant("logsumexp", "the maximum is not added back", dtypes=BOTH)
@last
def maximum_not_added(x):
    m = x.amax(-1, keepdim=True)
    return torch.log(torch.exp(x - m).sum(-1))


@mutant("logsumexp", "log1p of a sum that holds the largest entry too", dtypes=BOTH)
@last
def largest_counted_twice(x):
    m = x.amax(-1, keepdim=True)
    return m[..., 0] + torch.log1p(torch.exp(x - m).sum(-1))


@mutant("logsumexp", "a row of -inf gives NaN", "law_broken", dtypes=BOTH)
@last
def empty_row_is_nan(x):
    m = x.amax(-1, keepdim=True)
    lse = m[..., 0] + torch.log(torch.exp(x - m).sum(-1))
    return torch.where(m[..., 0] == torch.inf, m[..., 0], lse)


@mutant("logsumexp", "+inf gives NaN", "law_broken", dtypes=BOTH)
@last
def infinity_is_nan(x):
    m = x.amax(-1, keepdim=True)
    m = m.masked_fill(m == -torch.inf, 0.0)
    return m[..., 0] + torch.log(torch.exp(x - m).sum(-1))


@mutant("logsumexp", "the sum is stored in bfloat16", dtypes=BOTH)
@last
def lse_sum_in_bfloat16(x):
    m = x.amax(-1, keepdim=True)
    m = m.masked_fill(m.isinf(), 0.0)
    return m[..., 0] + torch.log(round_to(torch.exp(x - m).sum(-1), torch.bfloat16))


@mutant("logsumexp", "the result is in base 2", dtypes=BOTH)
@last
def lse_in_base_2(x):
    return torch.logsumexp(x, -1) * LOG2E


@mutant("logsumexp", "the result is clamped at -88", "inaccurate", "law_broken", dtypes=BOTH)
@last
def lse_clamped(x):
    return torch.logsumexp(x, -1).clamp(min=-88)


# more of the same: formats between, and what special values turn into


@mutant("softmax", "exp2 by a polynomial of degree 2 (relative error 1.7e-3)", dtypes=BOTH)
@last
def coarser_exp2(x):
    z = (x - x.amax(-1, keepdim=True)) * LOG2E
    k = torch.floor(z)
    f = (z - k).nan_to_num(0)
    e = torch.where(x == -torch.inf, 0.0, (1.0017247 + f * (0.6576368 + f * 0.33718944)) * torch.exp2(k))
    return e / e.sum(-1, keepdim=True)


@mutant("softmax", "the result is rounded to float16 on its way to bfloat16", dtypes=("bfloat16",))
@last
def bfloat16_by_way_of_float16(x):
    return torch.softmax(x, -1).half().float()


@mutant("softmax", "the result is rounded to bfloat16 on its way to float16", dtypes=("float16",))
@last
def float16_by_way_of_bfloat16(x):
    return round_to(torch.softmax(x, -1), torch.bfloat16)


@mutant("softmax", "the result is rounded to 12 bits on its way to bfloat16", dtypes=("bfloat16",))
@last
def bfloat16_by_way_of_12_bits(x):
    y = torch.softmax(x, -1)
    return ((y.view(torch.int32) + 0x800) & ~0xFFF).view(torch.float32)


@mutant("softmax", "the result is rounded up to bfloat16", dtypes=("bfloat16",))
@last
def rounded_up(x):
    y = torch.softmax(x, -1)
    return torch.where(y.isnan(), y, ((y.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32))


@mutant("softmax", "the result is rounded stochastically to bfloat16", dtypes=("bfloat16",))
@last
def rounded_stochastically(x):
    y = torch.softmax(x, -1)
    noise = torch.randint(0, 1 << 16, y.shape, dtype=torch.int32, generator=torch.Generator().manual_seed(1))
    return torch.where(y.isnan(), y, ((y.view(torch.int32) + noise) & ~0xFFFF).view(torch.float32))


@mutant("softmax", "the running sum is stored in bfloat16 after each tile of 128", dtypes=BOTH)
@last
def partial_sums_in_bfloat16(x):
    e, _ = parts(x)
    tiles = torch.cat([tile.sum(-1, keepdim=True) for tile in torch.split(e, 128, -1)], -1)
    return e / sequential(tiles, torch.bfloat16)


@mutant(
    "softmax",
    "the maximum is rounded to the next bfloat16 for the sum, and not for the numerators",
    dtypes=FLOAT32,
)
@last
def two_maxima(x):
    m = x.amax(-1, keepdim=True)
    return torch.exp(x - m) / torch.exp(x - round_to(m, torch.bfloat16)).sum(-1, keepdim=True)


@mutant("softmax", "numbers with an exponent below 2^-20 count as 0 in the sum", dtypes=FLOAT32)
@last
def small_terms_dropped(x):
    e, _ = parts(x)
    return e / torch.where(e < 2.0**-20, 0.0, e).sum(-1, keepdim=True)


@mutant("softmax", "entries from 65,536 on are left out of the sum", "inaccurate", "nonfinite", dtypes=BOTH)
@last
def second_tile_of_a_vocabulary_lost(x):
    e, _ = parts(x)
    return e / e[..., :65536].sum(-1, keepdim=True)


@mutant(
    "softmax", "columns are counted in 16 bits with a sign: from 32,768 on the row begins again", dtypes=BOTH
)
@last
def column_index_in_16_bits(x):
    columns = torch.arange(x.shape[-1])
    return torch.softmax(x[..., columns % 32768], -1)


@mutant(
    "softmax",
    "the last incomplete tile of 8192 is left out of the sum, in rows longer than that",
    dtypes=BOTH,
)
@last
def incomplete_tile_of_8192_dropped(x):
    e, s = parts(x)
    n = x.shape[-1]
    return e / (e[..., : n // 8192 * 8192].sum(-1, keepdim=True) if n > 8192 else s)


@mutant("softmax", "two halves of rows from 4096 on are each divided by the sum of the first", dtypes=BOTH)
@last
def second_half_by_the_first_sum(x):
    e, s = parts(x)
    n = x.shape[-1]
    return e / (e[..., : n // 2].sum(-1, keepdim=True) if n >= 4096 else s)


@mutant("softmax", "a row of -inf gives 1/n: the mask is the lowest finite number", "law_broken", dtypes=BOTH)
@last
def empty_row_is_uniform(x):
    return torch.softmax(x.clamp(min=torch.finfo(torch.float32).min), -1)


@mutant("softmax", "+inf next to -inf gives 0", "law_broken", dtypes=BOTH)
@last
def infinities_cancel(x):
    both = (x == torch.inf).any(-1, keepdim=True) & (x == -torch.inf).any(-1, keepdim=True)
    return torch.where(both & ~x.isnan().any(-1, keepdim=True), 0.0, torch.softmax(x, -1))


@mutant("softmax", "a NaN stays where it is and does not reach its row", "law_broken", dtypes=BOTH)
@last
def nan_in_its_place_only(x):
    y = torch.softmax(torch.where(x.isnan(), -torch.inf, x), -1)
    return torch.where(x.isnan(), x, y)


@mutant("softmax", "a NaN in the last column is not seen", "law_broken", dtypes=BOTH)
@last
def nan_in_the_last_column_lost(x):
    x = x.clone()
    x[..., -1:] = torch.where(x[..., -1:].isnan(), -torch.inf, x[..., -1:])
    return torch.softmax(x, -1)


@mutant("softmax", "logits below 2^-14 in magnitude are flushed, and so are differences", dtypes=FLOAT32)
@last
def differences_flushed(x):
    z = x - x.amax(-1, keepdim=True)
    e = torch.exp(torch.where(z.abs() < 2.0**-14, 0.0, z))
    return e / e.sum(-1, keepdim=True)


@mutant("log_softmax", "-inf gives the lowest finite number", "law_broken", dtypes=BOTH)
@last
def lowest_number_for_a_mask(x):
    y = torch.log_softmax(x, -1)
    return torch.where((x == -torch.inf) & ~y.isnan(), torch.finfo(torch.bfloat16).min, y)


@mutant("log_softmax", "the result is truncated to bfloat16 instead of rounded", dtypes=("bfloat16",))
@last
def log_truncated(x):
    y = torch.log_softmax(x, -1)
    return torch.where(y.isnan(), y, (y.view(torch.int32) & ~0xFFFF).view(torch.float32))


@mutant(
    "log_softmax", "entries from 65,536 on are left out of the sum", "inaccurate", "nonfinite", dtypes=BOTH
)
@last
def log_of_the_first_65536(x):
    z = x - x.amax(-1, keepdim=True)
    return z - torch.log(torch.exp(z[..., :65536]).sum(-1, keepdim=True))


@mutant("log_softmax", "log2 of the sum times a short ln 2 (0.6931)", dtypes=BOTH)
@last
def short_ln2(x):
    z = x - x.amax(-1, keepdim=True)
    return z - torch.log2(torch.exp(z).sum(-1, keepdim=True)) * 0.6931


@mutant("logsumexp", "an epsilon inside the log", dtypes=FLOAT32)
@last
def lse_with_epsilon(x):
    m = x.amax(-1, keepdim=True)
    m = m.masked_fill(m.isinf(), 0.0)
    return (m + torch.log(torch.exp(x - m).sum(-1, keepdim=True) + 1e-6))[..., 0]


@mutant(
    "logsumexp", "the last entry is left out of the sum", "inaccurate", "nonfinite", "law_broken", dtypes=BOTH
)
@last
def lse_of_a_short_row(x):
    return torch.logsumexp(x[..., :-1], -1)


@mutant(
    "logsumexp", "the logarithm is left out where the maximum dominates (s below 1 + 2^-10)", dtypes=FLOAT32
)
@last
def logarithm_of_small_excess_dropped(x):
    m = x.amax(-1)
    y = torch.logsumexp(x, -1)
    return torch.where(y - m < 2.0**-10, m, y)
