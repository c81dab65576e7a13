"""Attention's further tensors: masks, ALiBi slopes, sinks and kv_lengths, named and seeded like the
input families.

Each kind is one function (sizes, format, draw) -> array. A mask is boolean (True = visible) or
additive, and broadcasts to [B, H, L, S]: kinds differ in which dims they leave at 1. Additive
masks, slopes and sinks are numbers of q's format; slopes and sinks of float64 are numbers of
float32, as kernels may take them in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format, float32
from suite.inputs import rounded
from suite.inputs.attention import TILES, Sizes, boundaries
from suite.inputs.draws import Draw

Kind = Callable[[Sizes, Format, Draw], NDArray[Any]]
Visible = NDArray[np.bool_]


def half(draw: Draw, *shape: int) -> Visible:
    """True or False with equal chances, 64 entries to a word of the draw: masks are as large as the
    scores.
    """
    *others, last = shape
    words = draw.words(*others, -(-last // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")
    return bits[..., :last].astype(np.bool_)


def bias(draw: Draw, *shape: int) -> Array:
    """Uniform multiples of 2^-13 in [-4, 4), 4 entries to a word."""
    *others, last = shape
    words = draw.words(*others, -(-last // 4)).astype("<u8")
    return words.view("<u2")[..., :last] * 2.0**-13 - 4.0


def half_and_one(draw: Draw, *shape: int) -> Visible:
    """half(), with at least one True in each row."""
    visible = half(draw, *shape)
    np.put_along_axis(visible, draw.integers(shape[-1], *shape[:-1], 1), True, axis=-1)
    return visible


def random(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """Half of the keys, others for each head, at least one: no tile may be skipped."""
    return half_and_one(draw, sizes.batch, sizes.heads, sizes.length, sizes.keys)


def random_with_empty_rows(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """Half of the keys, and every third row sees none, the second first: its total is 0, and -inf -
    -inf is NaN.

    Batch entries begin at other rows, so the one row of batch entry 1 is empty.
    """
    visible = half_and_one(draw, sizes.batch, 1, sizes.length, sizes.keys)
    visible[:, 0][(np.arange(sizes.batch)[:, None] + np.arange(sizes.length)) % 3 == 1] = False
    return visible


def _tile_width(row: int, keys: int) -> int:
    """One of TILES that leaves a key, the widest first, another for each row; all but one key where
    none does.
    """
    fitting = [size for size in TILES if size < keys] or [keys - 1]
    return fitting[-1 - row % len(fitting)]


def leading_tiles(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """The first tile is hidden, of 16 to 256 keys by the row: a running maximum is still -inf after it."""
    visible = np.ones((1, 1, sizes.length, sizes.keys), dtype=np.bool_)
    for row in range(sizes.length):
        visible[0, 0, row, : _tile_width(row, sizes.keys)] = False
    return visible


def trailing_tiles(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """The last tile is hidden, of 16 to 256 keys by the row: the last maximum of a tile is -inf."""
    visible = np.ones((1, 1, sizes.length, sizes.keys), dtype=np.bool_)
    for row in range(sizes.length):
        visible[0, 0, row, sizes.keys - _tile_width(row, sizes.keys) :] = False
    return visible


def interior_tiles(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """Every second tile is hidden, of 16 to 256 keys by the row: -inf between two maxima.

    Of fewer than 18 keys, all but the first and the last are hidden.
    """
    visible = np.ones((1, 1, sizes.length, sizes.keys), dtype=np.bool_)
    fitting = [size for size in TILES if size < sizes.keys - 1]
    for row in range(sizes.length):
        if fitting:
            visible[0, 0, row] = np.arange(sizes.keys) // fitting[-1 - row % len(fitting)] % 2 == 0
        else:
            visible[0, 0, row, 1:-1] = False
    return visible


def checkerboard(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """Every second key, the odd ones in odd rows: a mask that is off by one row or key shows. A
    single key is always seen.
    """
    visible = (np.arange(sizes.length)[:, None] + np.arange(sizes.keys)) % 2 == 0
    return np.asarray(visible | (sizes.keys == 1))[None, None]


def _at_boundaries(sizes: Sizes, count: int) -> Visible:
    """[B, 1, L, S]: each row sees this many of the boundaries, from another one on."""
    visible = np.zeros((sizes.batch, 1, sizes.length, sizes.keys), dtype=np.bool_)
    places = np.array(boundaries(sizes.keys))
    turn = np.arange(sizes.batch)[:, None] + np.arange(sizes.length)
    for further in range(count):
        np.put_along_axis(visible, places[(turn + further) % len(places)][:, None, :, None], True, axis=-1)
    return visible


def one_visible(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """Each row sees one key, the last, the first and others at tile boundaries in turn: the output
    is its value.
    """
    return _at_boundaries(sizes, 1)


def two_visible(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """Each row sees two keys at tile boundaries, row 0 the last and the first: one lost key or
    rescale is half the result.
    """
    return _at_boundaries(sizes, 2)


def documents(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """Packed documents of 1 to 100 keys: a row sees its own only, so whole tiles of keys are hidden
    from whole tiles of rows.

    The first document begins at key 0; rows past the last key see the last document.
    """
    visible = np.empty((sizes.batch, 1, sizes.length, sizes.keys), dtype=np.bool_)
    for batch in range(sizes.batch):
        lengths = 1 + draw.integers(100, sizes.keys)
        document = np.searchsorted(np.cumsum(lengths), np.arange(sizes.keys), side="right")
        of_row = document[np.minimum(np.arange(sizes.length), sizes.keys - 1)]
        visible[batch, 0] = of_row[:, None] == document
    return visible


def all_masked(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """No row sees a key: the output is exactly 0 and lse -inf."""
    return np.zeros((1, 1, sizes.length, sizes.keys), dtype=np.bool_)


def padding(sizes: Sizes, format: Format, draw: Draw) -> Visible:
    """[B, 1, 1, S], each batch entry up to its own length, 0 among them: one row of the mask serves
    all heads and queries.
    """
    lengths = ragged_lengths(sizes, format, draw)
    return np.asarray(np.arange(sizes.keys) < lengths[:, None, None, None])


def additive(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """A bias between -4 and 4, other ones for each head, the same in the batch: scores plus bias,
    in this order.
    """
    return bias(draw, 1, sizes.heads, sizes.length, sizes.keys)


def additive_infinite(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """A bias between -4 and 4 that is -inf at half of the keys, and everywhere in each third row:
    additive is not boolean.
    """
    visible = random_with_empty_rows(sizes, format, draw)
    return np.where(visible, bias(draw, *visible.shape), -np.inf)


def sentinels(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """-1e4 instead of -inf at half of the keys: those weights are 0, but rows of nothing else are
    softmax of the scores.
    """
    visible = random_with_empty_rows(sizes, format, draw)
    return np.where(visible, 0.0, -1e4)


def lowest(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """The lowest finite number at half of the keys: its product with log2(e) is -inf, where it
    opens a tile the maximum too.
    """
    visible = half_and_one(draw, sizes.batch, 1, sizes.length, sizes.keys)
    return np.where(visible, 0.0, -format.largest)


def lowest_rows(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """The lowest finite number at half of the keys, and everywhere in each third row: that row is
    not judged in wide formats.

    Exact arithmetic gives it the softmax of its scores, a kernel the mean of V, or in the base-2
    form NaN. Of float16, whose lowest number is small for float32 arithmetic, it is judged.
    """
    visible = random_with_empty_rows(sizes, format, draw)
    return np.where(visible, 0.0, -format.largest)


def _power_of_two_slopes(heads: int) -> list[float]:
    """2^(-8 i / n) for i = 1 to n, n a power of two, by exact integer square roots: within 2^-52,
    the same anywhere.
    """
    slopes = []
    for i in range(1, heads + 1):
        # Its n-th root is 2^64 slope; isqrt of isqrt is the floor of the fourth root.
        root = 1 << (64 * heads - 8 * i)
        for _ in range(heads.bit_length() - 1):
            root = math.isqrt(root)
        slopes.append(float(root) * 2.0**-64)
    return slopes


def geometric_slopes(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """The published slopes, 2^(-8 i / n): head counts that are no power of two are filled up from
    those of the next one.

    Press, Smith and Lewis 2021, "Train Short, Test Long" (arXiv:2108.12409), section 3, and its
    code (get_slopes).
    """
    below = 2 ** (sizes.heads.bit_length() - 1)
    slopes = _power_of_two_slopes(below)
    if below < sizes.heads:
        slopes += _power_of_two_slopes(2 * below)[0::2][: sizes.heads - below]
    return np.array(slopes)


def zero_slopes(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """Slope 0 for every head: the same as no ALiBi."""
    return np.zeros(sizes.heads)


def zero_and_steep_slopes(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """4, 0 and 2^-8 in turn: weights that underflow within 26 keys, beside heads without ALiBi and
    hardly any.
    """
    return np.array([4.0, 0.0, 2.0**-8])[np.arange(sizes.heads) % 3]


def normal_sink(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """Normal logits of deviation 2, like those of a trained model: the sink is one key among many,
    without a value.
    """
    return np.asarray(2 * draw.normal(sizes.heads))


def dominant_sink(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """12, 24, 100 and 40 in turn: the sink has nearly all the weight and sets the maximum; outputs
    are small, or 0.
    """
    return np.array([12.0, 24.0, 100.0, 40.0])[np.arange(sizes.heads) % 4]


def none_sink(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """-inf for every head: the same as no sink."""
    return np.full(sizes.heads, -np.inf)


def mixed_sink(sizes: Sizes, format: Format, draw: Draw) -> Array:
    """Normal, dominant, none and negligible by the head: a sink that is read from another head shows."""
    drawn = draw.normal(sizes.heads)
    return np.where(
        np.arange(sizes.heads) % 4 == 0,
        drawn,
        np.array([0.0, 12.0, -np.inf, -60.0])[np.arange(sizes.heads) % 4],
    )


def full_lengths(sizes: Sizes, format: Format, draw: Draw) -> NDArray[np.int64]:
    """All keys for every batch entry: the same as no kv_lengths."""
    return np.full(sizes.batch, sizes.keys, dtype=np.int64)


def ragged_lengths(sizes: Sizes, format: Format, draw: Draw) -> NDArray[np.int64]:
    """Lengths around tiles, 0, 1 and all keys in turn, from another one on by the seed: the last
    tile is never full.
    """
    wanted = [
        sizes.keys - 1,
        0,
        sizes.keys,
        1,
        *(length for size in TILES for length in (size - 1, size, size + 1)),
    ]
    possible = np.array(
        list(dict.fromkeys(length for length in wanted if 0 <= length <= sizes.keys)), dtype=np.int64
    )
    start = int(draw.integers(len(possible), 1)[0])
    return possible[(start + np.arange(sizes.batch)) % len(possible)]


def single_lengths(sizes: Sizes, format: Format, draw: Draw) -> NDArray[np.int64]:
    """One key for every batch entry: the first step of decoding from a long cache."""
    return np.ones(sizes.batch, dtype=np.int64)


def empty_lengths(sizes: Sizes, format: Format, draw: Draw) -> NDArray[np.int64]:
    """No key for any batch entry: the output is exactly 0."""
    return np.zeros(sizes.batch, dtype=np.int64)


BOOLEAN_MASKS: dict[str, Kind] = {
    mask.__name__: mask
    for mask in (
        random, random_with_empty_rows, leading_tiles, trailing_tiles, interior_tiles, checkerboard,
        one_visible, two_visible,
        documents, all_masked, padding,
    )
}  # fmt: skip
ADDITIVE_MASKS: dict[str, Kind] = {
    mask.__name__: mask for mask in (additive, additive_infinite, sentinels, lowest, lowest_rows)
}
MASKS = BOOLEAN_MASKS | ADDITIVE_MASKS
SLOPES: dict[str, Kind] = {
    "geometric": geometric_slopes,
    "zero": zero_slopes,
    "zero_and_steep": zero_and_steep_slopes,
}
SINKS: dict[str, Kind] = {
    "normal": normal_sink,
    "dominant": dominant_sink,
    "none": none_sink,
    "mixed": mixed_sink,
}
KV_LENGTHS: dict[str, Kind] = {
    "full": full_lengths, "ragged": ragged_lengths, "single": single_lengths, "empty": empty_lengths,
}  # fmt: skip

TENSORS = {"mask": MASKS, "alibi_slopes": SLOPES, "sink": SINKS, "kv_lengths": KV_LENGTHS}
"""Argument of attention -> its kinds by name."""


def get_kind(argument: str, name: str) -> Kind:
    """The kind of that name for this argument of attention. Raises ValueError with the valid names."""
    if argument not in TENSORS:
        raise ValueError(f"argument={argument!r} is not one of {', '.join(TENSORS)}")
    if name not in TENSORS[argument]:
        raise ValueError(
            f"unknown kind {name!r} of {argument}; expected one of {', '.join(TENSORS[argument])}"
        )
    return TENSORS[argument][name]


def tensor(argument: str, name: str, sizes: Sizes, format: Format, seed: int) -> NDArray[Any]:
    """The tensor for this argument of attention: bool, int64 or, with numbers of the format, float64.

    Raises ValueError for an unknown argument or name, with the valid ones.
    """
    values = get_kind(argument, name)(sizes, format, Draw(f"attention|{argument}|{name}|{sizes}|{seed}"))
    if values.dtype != np.float64:
        return values
    narrow = argument in ("alibi_slopes", "sink") and format.precision > float32.precision
    return rounded(values, float32 if narrow else format)
