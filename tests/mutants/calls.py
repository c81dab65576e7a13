"""Mutants of how a kernel is called: options, dims, layouts in memory, shapes, state between calls."""

from __future__ import annotations

import math

import torch

from tests.mutants.mutant import BOTH, FLOAT32, NARROW, last, mutant, round_to

UNREAD = ("inaccurate", "nonfinite", "law_broken")
"""What a kernel shows that reads or writes the wrong place: numbers, or the NaN that lies there."""


def upcast(x):
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def along(x, dim):
    """An honest softmax."""
    return torch.softmax(upcast(x), dim).to(x.dtype)


# temperature


def shifted(x, dim):
    return upcast(x) - upcast(x).amax(dim, keepdim=True)


def divided(e, dim, x):
    return (e / e.sum(dim, keepdim=True)).to(x.dtype)


@mutant("softmax", "the temperature divides twice", dtypes=BOTH)
def temperature_twice(x, dim=-1, temperature=1.0):
    return divided(torch.exp(shifted(x, dim) / temperature**2), dim, x)


@mutant("softmax", "the temperature is ignored", dtypes=BOTH)
def temperature_ignored(x, dim=-1, temperature=1.0):
    return divided(torch.exp(shifted(x, dim)), dim, x)


@mutant("softmax", "the temperature multiplies", dtypes=BOTH)
def temperature_multiplies(x, dim=-1, temperature=1.0):
    return divided(torch.exp(shifted(x, dim) * temperature), dim, x)


@mutant(
    "softmax",
    "the temperature divides the exponents of the denominator only",
    "inaccurate",
    "nonfinite",
    dtypes=BOTH,
)
def temperature_in_the_denominator_only(x, dim=-1, temperature=1.0):
    z = shifted(x, dim)
    return (torch.exp(z) / torch.exp(z / temperature).sum(dim, keepdim=True)).to(x.dtype)


@mutant("softmax", "x / T is rounded to bfloat16 before the maximum is taken", dtypes=BOTH)
def temperature_in_bfloat16(x, dim=-1, temperature=1.0):
    z = upcast(x) if temperature == 1 else round_to(upcast(x) / temperature, torch.bfloat16)
    return torch.softmax(z, dim).to(x.dtype)


@mutant(
    "softmax",
    "x / T overflows float16 before the maximum is taken",
    "nonfinite",
    "inaccurate",
    dtypes=("float16",),
)
def temperature_in_float16(x, dim=-1, temperature=1.0):
    return torch.softmax((x / temperature).float(), dim).to(x.dtype)


@mutant("softmax", "the maximum is not divided by the temperature", "nonfinite", "inaccurate", dtypes=BOTH)
def maximum_without_temperature(x, dim=-1, temperature=1.0):
    z = upcast(x)
    return divided(torch.exp(z / temperature - z.amax(dim, keepdim=True)), dim, x)


@mutant("softmax", "temperatures below 0.01 are taken for 0.01", dtypes=BOTH)
def temperature_clamped(x, dim=-1, temperature=1.0):
    return divided(torch.exp(shifted(x, dim) / max(temperature, 0.01)), dim, x)


@mutant("softmax", "1 / T is held in bfloat16", dtypes=BOTH)
def reciprocal_temperature_in_bfloat16(x, dim=-1, temperature=1.0):
    factor = float(torch.tensor(1 / temperature, dtype=torch.bfloat16))
    return divided(torch.exp(shifted(x, dim) * factor), dim, x)


# off by one


@mutant("softmax", "the 1 of the denominator is not shifted with the logits", dtypes=BOTH)
def one_unshifted(x, dim=-1, off_by_one=False):
    e = torch.exp(shifted(x, dim))
    return (e / (e.sum(dim, keepdim=True) + float(off_by_one))).to(x.dtype)


@mutant("softmax", "the 1 is added to the sum of the results", dtypes=BOTH)
def one_after_normalisation(x, dim=-1, off_by_one=False):
    y = torch.softmax(upcast(x), dim)
    return (y / (y.sum(dim, keepdim=True) + 1) if off_by_one else y).to(x.dtype)


@mutant("softmax", "off_by_one is ignored", "inaccurate", "nonfinite", dtypes=BOTH)
def off_by_one_ignored(x, dim=-1, off_by_one=False):
    return along(x, dim)


@mutant("softmax", "off by one, a row of -inf gives NaN", "nonfinite", dtypes=BOTH)
def off_by_one_of_an_empty_row(x, dim=-1, off_by_one=False):
    if not off_by_one:
        return along(x, dim)
    m = upcast(x).amax(dim, keepdim=True)
    e = torch.exp(upcast(x) - m)
    return (e / (e.sum(dim, keepdim=True) + torch.exp(-m))).to(x.dtype)


@mutant("softmax", "off by one, nothing is shifted: exp(x) overflows", "nonfinite", "inaccurate", dtypes=BOTH)
def off_by_one_without_a_shift(x, dim=-1, off_by_one=False):
    if not off_by_one:
        return along(x, dim)
    e = torch.exp(upcast(x))
    return (e / (1 + e.sum(dim, keepdim=True))).to(x.dtype)


@mutant(
    "softmax", "off by one, the zero logit belongs to every tile of 128, and counts as often", dtypes=BOTH
)
def one_per_tile(x, dim=-1, off_by_one=False):
    if not off_by_one:
        return along(x, dim)
    m = upcast(x).amax(dim, keepdim=True).clamp(min=0)
    e = torch.exp(upcast(x) - m)
    return (e / (e.sum(dim, keepdim=True) + -(-x.shape[dim] // 128) * torch.exp(-m))).to(x.dtype)


# dims


@mutant("softmax", "a negative dim below -1 is counted from the wrong end", dtypes=BOTH)
def negative_dim(x, dim=-1):
    return along(x, -dim - 1 if dim < -1 else dim)


@mutant("softmax", "of four dims the last is always reduced", dtypes=BOTH)
def dim_ignored_for_four(x, dim=-1):
    return along(x, -1 if x.ndim == 4 else dim)


@mutant("softmax", "dim = 0 counts as no dim, and the last is reduced", dtypes=BOTH)
def dim_zero_is_falsy(x, dim=-1):
    return along(x, dim or -1)


@mutant("softmax", "all dims from dim on are reduced together (ONNX before opset 13)", dtypes=BOTH)
def coerced_to_two_dims(x, dim=-1):
    rows = upcast(x).reshape(*x.shape[: dim % x.ndim], -1)
    return torch.softmax(rows, -1).reshape(x.shape).to(x.dtype)


@mutant("log_softmax", "an inner dim is reshaped, and not transposed, to the end", dtypes=BOTH)
def inner_dim_reshaped(x, dim=-1):
    moved = x.movedim(dim, -1).shape
    return torch.log_softmax(upcast(x).reshape(moved), -1).reshape(x.shape).to(x.dtype)


@mutant("logsumexp", "the reduced dim is kept with size 1", "wrong_shape", dtypes=BOTH)
def reduced_dim_kept(x, dim=-1):
    return torch.logsumexp(upcast(x), dim, keepdim=True).to(x.dtype)


# layouts


def contiguous(shape):
    """The strides of a contiguous tensor of this shape."""
    return tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))


def as_if(x, stride=None, offset=None):
    """x as a kernel reads it that takes these for its strides and its offset."""
    strides = stride(x) if stride else contiguous(x.shape)
    return torch.as_strided(x, x.shape, strides, x.storage_offset() if offset is None else offset)


@mutant("softmax", "the storage is read as if it were contiguous", *UNREAD, dtypes=BOTH)
def assumes_contiguous(x, dim=-1):
    return along(as_if(x), dim)


@mutant("log_softmax", "the storage is read as if it were contiguous", *UNREAD, dtypes=BOTH)
def assumes_contiguous_logits(x, dim=-1):
    return torch.log_softmax(upcast(as_if(x)), dim).to(x.dtype)


@mutant("logsumexp", "the storage is read as if it were contiguous", *UNREAD, dtypes=BOTH)
def assumes_contiguous_rows(x, dim=-1):
    return torch.logsumexp(upcast(as_if(x)), dim).to(x.dtype)


@mutant("softmax", "the storage offset is ignored", *UNREAD, dtypes=BOTH)
def storage_offset_ignored(x, dim=-1):
    return along(as_if(x, lambda x: x.stride(), 0), dim)


@mutant("softmax", "the entries of a row are read as neighbours, whatever their stride", *UNREAD, dtypes=BOTH)
def last_stride_ignored(x, dim=-1):
    return along(as_if(x, lambda x: (*x.stride()[:-1], 1)), dim)


@mutant(
    "softmax",
    "rows are read at multiples of the row length, whatever lies between them",
    *UNREAD,
    dtypes=BOTH,
)
def row_stride_ignored(x, dim=-1):
    return along(as_if(x, lambda x: (*contiguous(x.shape)[:-1], 1) if x.stride(-1) == 1 else x.stride()), dim)


@mutant(
    "softmax", "the result has the input's strides and is written in the order of its entries", dtypes=BOTH
)
def output_in_the_wrong_order(x, dim=-1):
    y = along(x, dim)
    written = torch.empty_like(x)  # keeps the strides of a dense tensor
    torch.as_strided(written, (y.numel(),), (1,)).copy_(y.contiguous().reshape(-1))
    return written


@mutant("softmax", "view() refuses a layout", "raised", dtypes=BOTH)
def view_of_any_layout(x, dim=-1):
    return along(x.view(-1, x.shape[-1]).view(x.shape) if dim in (-1, x.ndim - 1) and x.numel() else x, dim)


@mutant("softmax", "equal rows of stride 0 are divided by their number", dtypes=BOTH)
def expanded_rows_shared(x, dim=-1):
    shared = x.shape[0] if x.ndim > 1 and x.stride(0) == 0 and x.shape[0] > 1 else 1
    return (torch.softmax(upcast(x), dim) / shared).to(x.dtype)


# shapes


@mutant("softmax", "no rows raise", "raised", dtypes=FLOAT32)
def no_rows_raise(x, dim=-1):
    if x.numel() == 0:
        raise RuntimeError("grid of size 0")
    return along(x, dim)


@mutant("logsumexp", "a row without entries gives 0", "law_broken", dtypes=BOTH)
def nothing_sums_to_one(x, dim=-1):
    y = torch.logsumexp(upcast(x), dim)
    return (torch.zeros_like(y) if x.shape[dim] == 0 else y).to(x.dtype)


@mutant("softmax", "a tensor of one dim comes back with two", "wrong_shape", dtypes=BOTH)
def one_dim_becomes_two(x, dim=-1):
    return along(x[None], dim) if x.ndim == 1 else along(x, dim)


@mutant("softmax", "rows of one entry give their logit", "inaccurate", "law_broken", dtypes=BOTH)
def single_entry_untouched(x, dim=-1):
    return x.clone() if x.shape[dim] == 1 else along(x, dim)


@mutant(
    "softmax",
    "rows from 65,535 on are not computed (a grid dimension of 16 bits)",
    "law_broken",
    "inaccurate",
    dtypes=NARROW,
)
def rows_beyond_the_grid(x, dim=-1):
    y = along(x, dim)
    y[65535:] = 0
    return y


@mutant("softmax", "float16 comes back as float32", "wrong_dtype", dtypes=("float16",))
def widened_result(x, dim=-1):
    return torch.softmax(upcast(x), dim)


# memory


@mutant("softmax", "the last row of the result is not written", *UNREAD, dtypes=BOTH)
def last_row_not_written(x, dim=-1):
    y, written = along(x, dim), torch.empty(x.shape, dtype=x.dtype)
    written[:-1] = y[:-1]
    return written


@mutant("softmax", "the last column of the result is not written", *UNREAD, dtypes=BOTH)
def last_column_not_written(x, dim=-1):
    y, written = along(x, dim), torch.empty(x.shape, dtype=x.dtype)
    written[..., :-1] = y[..., :-1]
    return written


@mutant("log_softmax", "masked entries of the result are not written", *UNREAD, dtypes=BOTH)
def masked_entries_not_written(x, dim=-1):
    y, written = torch.log_softmax(upcast(x), dim).to(x.dtype), torch.empty(x.shape, dtype=x.dtype)
    return torch.where(x == -torch.inf, written, y)


@mutant(
    "softmax",
    "a tail of fewer than 4 entries is not written, and holds what was there",
    "law_broken",
    dtypes=BOTH,
)
def tail_left_as_it_was(x, dim=-1):
    """As if that memory held the right results of an earlier call, unless it is full of NaN: only
    `written` can tell.
    """
    y, written = along(x, dim), torch.empty(x.shape, dtype=x.dtype)
    tail = written[..., x.shape[-1] // 4 * 4 :]
    return torch.where(
        written.isnan() & (torch.arange(x.shape[-1]) >= x.shape[-1] - tail.shape[-1]), written, y
    )


def poke(tensor, place):
    """Writes 0 to an entry before or behind a tensor, where its storage goes that far: this process
    must survive it.
    """
    if 0 <= place < tensor.untyped_storage().nbytes() // tensor.element_size():
        torch.as_strided(tensor, (1,), (1,), place).zero_()


@mutant("softmax", "one entry behind the result is written", "law_broken", dtypes=BOTH)
def overrun_of_the_result(x, dim=-1):
    written = torch.empty(x.shape, dtype=x.dtype)
    written.copy_(along(x, dim))
    poke(written, written.storage_offset() + written.numel())
    return written


@mutant("softmax", "one entry before the input is written", "law_broken", dtypes=BOTH)
def write_before_the_input(x, dim=-1):
    poke(x, x.storage_offset() - 1)
    return along(x, dim)


@mutant(
    "softmax", "one entry behind the last row is read as its last entry's neighbour", *UNREAD, dtypes=BOTH
)
def read_behind_the_input(x, dim=-1):
    y = upcast(x)
    place = (
        x.storage_offset()
        + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
        + 1
    )
    if not x.numel() or place >= x.untyped_storage().nbytes() // x.element_size():
        return along(x, dim)
    behind = torch.as_strided(x, (1,), (1,), place).to(y.dtype)
    m = torch.maximum(y.amax(dim, keepdim=True), behind)
    return (torch.exp(y - m) / (torch.exp(y - m).sum(dim, keepdim=True) + torch.exp(behind - m))).to(x.dtype)


# rows among others, calls after others


@mutant(
    "softmax",
    "a maximum shared by pairs of rows: a NaN spreads to the neighbour",
    "nonfinite",
    "law_broken",
    dtypes=BOTH,
)
def nan_spreads(x, dim=-1):
    y = torch.softmax(upcast(x), dim)
    if x.ndim == 2 and dim == -1:
        nan = x.isnan().any(-1)
        y[1:][nan[:-1]] = torch.nan
    return y.to(x.dtype)


@mutant(
    "softmax",
    "rows are shifted by the largest maximum of 8 neighbours",
    "nonfinite",
    "inaccurate",
    dtypes=BOTH,
)
@last
def maximum_of_eight_rows(x):
    if x.ndim != 2 or not x.numel():
        return torch.softmax(x, -1)
    m = torch.cat([rows.amax().expand(len(rows), 1) for rows in torch.split(x, 8)])
    alone = x.isnan().any(-1, keepdim=True) | m.isinf() | m.isnan()
    e = torch.exp(x - torch.where(alone, x.amax(-1, keepdim=True), m))
    return e / e.sum(-1, keepdim=True)


@mutant(
    "softmax", "rows after the eighth have the maximum of the eighth", "nonfinite", "inaccurate", dtypes=BOTH
)
@last
def stale_maximum_of_another_row(x):
    m = x.amax(-1, keepdim=True)
    if x.ndim == 2 and len(x) > 8:
        m = torch.cat([m[:8], m[7:8].expand(len(x) - 8, 1)])
    e = torch.exp(x - m)
    return e / e.sum(-1, keepdim=True)


@mutant(
    "softmax",
    "no shift while no logit is above 88, though the sum overflows",
    "nonfinite",
    "inaccurate",
    dtypes=BOTH,
)
@last
def shift_when_a_logit_needs_it(x):
    m = x.amax(-1, keepdim=True)
    e = torch.exp(x - torch.where((m > 0) & (m < 88), 0.0, m))
    return e / e.sum(-1, keepdim=True)


@mutant(
    "log_softmax",
    "the logits of the first call come back for every tensor of their shape",
    *UNREAD,
    stateful=True,
    dtypes=BOTH,
)
def captured_graph():
    captured = {}

    def kernel(x, dim=-1):
        first = captured.setdefault((x.shape, x.dtype, dim), x.clone())
        return torch.log_softmax(upcast(first), dim).to(x.dtype)

    return kernel


@mutant("logsumexp", "the running maximum is kept from call to call", *UNREAD, stateful=True, dtypes=BOTH)
def maximum_of_all_calls():
    highest = [-torch.inf]

    def kernel(x, dim=-1):
        rows = upcast(x)
        if not x.numel():
            return torch.logsumexp(rows, dim).to(x.dtype)
        finite = rows[rows.isfinite()]
        highest[0] = max(highest[0], float(finite.max()) if finite.numel() else -torch.inf)
        m = max(highest[0], -1e30)
        return (m + torch.log(torch.exp(rows - m).sum(dim))).to(x.dtype)

    return kernel
