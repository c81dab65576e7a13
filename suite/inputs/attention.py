"""Input families of attention: q, k and v that are hard for a kernel, the same bits on every machine.

A family is one function (sizes, format, draw) -> q [B, H, L, E], k [B, G, S, E], v [B, G, S, Ev],
float64; build() rounds them to the format. It means the scores of the default scale, 1 / sqrt(E).
Register it with @family; its docstring's first sentence says what it is hard for.

Two ideas serve most families. A steered score: the last entry of q is a strength, the last of k the
score wanted of that key, and the other entries are noise, so a head size of 1 has no noise. A probe
(values that are one-hot at keys beside tile boundaries, and a column of ones): the output is the
probability itself, and a lost key shows at any length.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from suite.formats import Array, Format, compute_format
from suite.inputs import first_sentence, free_name, rounded
from suite.inputs.draws import Draw

TILES = (16, 32, 64, 128, 256)
"""Keys that kernels take at a time."""

STRENGTH = 8.0
"""The last entry of a steering q, a power of two: the wanted score and the entry of k that makes it
are of like size.
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """B, H, L, E of q; G, S of k and v; Ev of v. Raises ValueError for a size below 1, or heads
    that cannot be shared.
    """

    batch: int
    heads: int
    length: int
    head_size: int
    key_heads: int
    keys: int
    value_size: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name}={value!r} must be an integer of at least 1")
        if self.heads % self.key_heads:
            raise ValueError(f"heads={self.heads} cannot share key_heads={self.key_heads} evenly")

    @property
    def q(self) -> tuple[int, int, int, int]:
        return self.batch, self.heads, self.length, self.head_size

    @property
    def k(self) -> tuple[int, int, int, int]:
        return self.batch, self.key_heads, self.keys, self.head_size

    @property
    def v(self) -> tuple[int, int, int, int]:
        return self.batch, self.key_heads, self.keys, self.value_size

    def __str__(self) -> str:
        return "/".join("x".join(map(str, shape)) for shape in (self.q, self.k, self.v))


Tensors = tuple[Array, Array, Array]
Generator = Callable[[Sizes, Format, Draw], Tensors]


@dataclass(frozen=True, slots=True)
class Family:
    """A named generator of q, k and v."""

    name: str
    generate: Generator
    fixed: Sizes | None = None
    """The sizes of a family of captured data."""

    @property
    def summary(self) -> str:
        return first_sentence(self.generate)


FAMILIES: dict[str, Family] = {}


def family(generate: Generator, *, fixed: Sizes | None = None) -> Generator:
    """Registers a generator under its function's name. Raises ValueError for a name that is taken
    or without a docstring.
    """
    name = free_name(generate, FAMILIES, of=" of attention")
    FAMILIES[name] = Family(name, generate, fixed)
    return generate


def get_family(name: str) -> Family:
    """The family of attention of that name. Raises ValueError with the valid names."""
    if name not in FAMILIES:
        raise ValueError(
            f"unknown input family {name!r} of attention; expected one of {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[name]


def check_sizes(name: str, sizes: Sizes) -> None:
    """Raises ValueError for an unknown family, and for sizes that captured data does not have."""
    fixed = get_family(name).fixed
    if fixed not in (None, sizes):
        raise ValueError(f"input family {name!r} of attention has the sizes {fixed}, not {sizes}")


def build(name: str, sizes: Sizes, format: Format, seed: int) -> dict[str, Array]:
    """q, k and v of the family for this seed, float64, every value a number of `format`.

    Raises ValueError for an unknown name, and for sizes that captured data does not have.
    """
    check_sizes(name, sizes)
    tensors = get_family(name).generate(sizes, format, Draw(f"attention|{name}|{sizes}|{seed}"))
    return {argument: rounded(values, format) for argument, values in zip("qkv", tensors, strict=True)}


def boundaries(keys: int) -> list[int]:
    """Keys at the ends of the row and of its tiles, the last and the first first: places where
    kernels lose one.
    """
    wanted = [keys - 1, 0, keys // 2, keys - 2, 1]
    for size in (64, 128, 16, 32, 256):
        wanted += [size - 1, size, keys - size, keys - size - 1]
    return list(dict.fromkeys(place for place in wanted if 0 <= place < keys))


def normal_q_k(sizes: Sizes, draw: Draw) -> tuple[Array, Array]:
    return draw.normal(*sizes.q), draw.normal(*sizes.k)


def probe_values(sizes: Sizes, columns: int, draw: Draw) -> Array:
    """[B, G, S, columns]: one-hot at the last key, the first and further boundaries; the last column is 1.

    Each key head takes the further ones from another place on, so few columns still cover them, and
    has its columns in another order, or V of another head would do. Where there are more columns
    than boundaries, they go to keys drawn at random, and to none where no key is left.
    """
    places = boundaries(sizes.keys)
    ends, inner = places[:2], places[2:]
    v = np.zeros((sizes.batch, sizes.key_heads, sizes.keys, columns))
    v[..., -1] = 1.0
    others = np.setdiff1d(np.arange(sizes.keys), places)
    others = others[np.argsort(draw.words(len(others)), kind="stable")]
    for turn, values in enumerate(v.reshape(-1, sizes.keys, columns)):
        start = turn * max(columns - 3, 0) % max(len(inner), 1)
        chosen = [*ends, *inner[start:], *inner[:start], *others.tolist()][: columns - 1]
        values[chosen, (np.arange(len(chosen)) + turn) % max(len(chosen), 1)] = 1.0
    return v


def values_with_probe(sizes: Sizes, draw: Draw) -> Array:
    """Half of the columns a probe, half normal: where the weights went, and what is made of
    ordinary values.
    """
    normal_columns = sizes.value_size - (sizes.value_size + 1) // 2
    ordinary = draw.normal(*sizes.k[:3], normal_columns)
    return np.concatenate([probe_values(sizes, sizes.value_size - normal_columns, draw), ordinary], axis=-1)


def steered(sizes: Sizes, wanted: Array, draw: Draw, *, noise: float) -> tuple[Array, Array]:
    """q and k whose scores are about wanted [S] or [B, G, S], times 1, 1.25, 1.5 or 1.75 by the
    row, plus noise.

    noise: about the noise's standard deviation in a score, for large E. Numbers of the noise are at
    most 2 deviations large.
    """
    q, k = (np.clip(values, -2.0, 2.0) for values in normal_q_k(sizes, draw))
    k *= noise
    q[..., -1] = STRENGTH * (1 + (np.arange(sizes.length) % 4) / 4)
    # IEEE 754 rounds a square root and a quotient correctly.
    k[..., -1] = wanted * (math.sqrt(sizes.head_size) / STRENGTH)
    return q, k


@family
def normal(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """Normal q, k and v: what most tests use, and all that they use."""
    return (*normal_q_k(sizes, draw), draw.normal(*sizes.v))


@family
def probe(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """A probe for V in normal q and k: the output is the probability itself, so a lost or doubled
    key shows at any length.
    """
    return (*normal_q_k(sizes, draw), probe_values(sizes, sizes.value_size, draw))


@family
def probe_sharp(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """A probe for V and scores 4 times as far apart: a scale or an exponent that is slightly wrong
    moves most of the weight.
    """
    q, k = normal_q_k(sizes, draw)
    return 4 * q, k, probe_values(sizes, sizes.value_size, draw)


@family
def nearly_uniform(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """Scores within about 1/16 of 0: every key counts alike, and narrow sums over many keys stagnate."""
    q, k = (np.clip(values, -2.0, 2.0) for values in normal_q_k(sizes, draw))
    return q / 64, k, values_with_probe(sizes, draw)


@family
def outlier_channels(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """A few channels of q and k far larger than the others, with one sign in k, as in trained
    models: coarse products show.

    Xiao et al. 2023 ("SmoothQuant", arXiv:2211.10438); Zhang et al. 2024 ("SageAttention",
    arXiv:2410.02367), section 3.
    """
    q, k = normal_q_k(sizes, draw)
    groups = (sizes.batch, sizes.key_heads)
    for batch, head in np.ndindex(groups):
        channels = draw.integers(sizes.head_size, 1 + sizes.head_size // 32)
        queries = slice(
            head * (sizes.heads // sizes.key_heads), (head + 1) * (sizes.heads // sizes.key_heads)
        )
        q[batch, queries, :, channels] *= 4
        k[batch, head, :, channels] = 2 * k[batch, head, :, channels] + (
            16.0 if (batch + head) % 2 else -16.0
        )
    return q, k, values_with_probe(sizes, draw)


@family
def outlier_entries(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """One entry in 1000 of q, k and v ten times as large: the inputs of FlashAttention-3's own
    accuracy table.

    N(0, 1) + N(0, 100) Bernoulli(0.001): Shah et al. 2024 (arXiv:2407.08608), section 4.3.
    """
    q, k, v = (
        draw.normal(*shape) + 10 * draw.normal(*shape) * (draw.uniform(*shape) < 0.001)
        for shape in (sizes.q, sizes.k, sizes.v)
    )
    return q, k, v


@family
def sinks(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """The first key takes over 0.9 of every row, as in trained models: the first tile sets the
    maximum, the others add little.

    Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks" (arXiv:2309.17453).
    """
    wanted = np.zeros(sizes.keys)
    wanted[0] = 4 + 0.75 * sizes.keys.bit_length()
    q, k = steered(sizes, wanted, draw, noise=0.75)
    k[..., 0, :-1] = 0.0
    return q, k, values_with_probe(sizes, draw)


@family
def repeated_maxima(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """The same largest key once in each 16, V of one sign: several weights are exactly 1, and
    rounding is biased.

    Qiu and Yao 2025, "Why Low-Precision Transformer Training Fails" (arXiv:2510.04212), section 3.
    """
    place = np.arange(sizes.keys)
    # At another place in each tile of 16.
    largest = (place % 16 == place // 16 % 16) | (place == sizes.keys - 1)
    q, k = steered(sizes, np.where(largest, 8.0, 0.0), draw, noise=1.0)
    k[:, :, largest, :-1] = 0.0
    v = values_with_probe(sizes, draw)
    ordinary = (sizes.value_size + 1) // 2
    v[..., ordinary:] = -1 - draw.uniform(*v[..., ordinary:].shape)
    return q, k, v


@family
def near_overflow(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """Products q.k of 60000 and -60000, inside float16: nothing may overflow, and a score in 16
    bits has nothing left to say.

    Of all formats: with products far beyond, the roundings of a folded exponent in float32, fma(s,
    c, -m c), would exceed 1, and in the end overflow.
    """
    q, k = normal_q_k(sizes, draw)
    signs = 1.0 - 2 * draw.integers(2, *sizes.k[:3])
    signs[:, :, -1] = -1.0
    signs[:, :, 0] = 1.0
    q[..., -1] = np.where(np.arange(sizes.length) % 2 == 0, 240.0, -240.0)
    k[..., -1] = 250 * signs
    return q, k, values_with_probe(sizes, draw)


@family
def very_negative(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """Every score near -130, -1040 or -16640, lse too: exp without a shift, or with a maximum from
    0 or -1e4 on, is 0.
    """
    q, k = steered(sizes, np.full(sizes.keys, -130.0), draw, noise=1.0)
    q[..., -1] = STRENGTH * np.array([1.0, 128.0, 8.0])[np.arange(sizes.length) % 3]
    return q, k, values_with_probe(sizes, draw)


@family
def growing_maxima(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """The maximum grows in every tile of 64 keys, by about 2: every block rescales what came before it."""
    return _staircase(sizes, draw, falls=False)


@family
def falling_maxima(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """The maximum falls in every tile of 64 keys, by about 2: no block rescales, nor may one
    restart from its own maximum.
    """
    return _staircase(sizes, draw, falls=True)


def _staircase(sizes: Sizes, draw: Draw, *, falls: bool) -> Tensors:
    # At most 256 steps, from -256 to 256, so that bfloat16 tells one from the next; more keys have
    # wider tiles.
    width = 64 * -(-sizes.keys // (64 * 256))
    tiles = np.arange(sizes.keys) // width
    wanted = 2.0 * tiles - tiles[-1]
    q, k = steered(sizes, wanted[::-1] if falls else wanted, draw, noise=0.125)
    return q, k, values_with_probe(sizes, draw)


@family
def ends(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """The first and the last key share the weight, the rest is 30 lower: a dropped or doubled end
    is half the result.
    """
    wanted = np.full(sizes.keys, -30.0)
    wanted[[0, -1]] = 0.0
    return (*steered(sizes, wanted, draw, noise=1.0), values_with_probe(sizes, draw))


@family
def sparse(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """A few keys beside tile boundaries share the weight, other ones in every second row: one lost
    tile or rescale shows.
    """
    places = boundaries(sizes.keys)
    q, k = steered(sizes, np.full(sizes.keys, -30.0), draw, noise=1.0)
    if sizes.head_size > 1:
        q[..., -2] = 0.0
        q[:, :, 1::2, -2], q[:, :, 1::2, -1] = q[:, :, 1::2, -1].copy(), 0.0
        k[..., -2] = k[..., -1]
        k[:, :, places[1::2], -2] = 0.0
    k[:, :, places[::2], -1] = 0.0
    return q, k, values_with_probe(sizes, draw)


@family
def value_one_sign(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """V between 1 and 2: errors of one sign in the weights add up, and a narrow accumulator stagnates."""
    return (*normal_q_k(sizes, draw), 1 + draw.uniform(*sizes.v))


@family
def value_huge(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """V as large as an honest kernel can add up before it divides: a narrow accumulator or one
    without a shift overflows.

    At most 15/16 of the format's largest number, and 1/(1024 S) of that of its arithmetic: S
    weights of up to 2^8, as where the maximum moves only when it grows by more (FlashAttention-4),
    and 4 to spare. Columns are positive, negative, mixed.
    """
    limit = min(format.largest * 0.9375, compute_format(format).largest / (1024 * sizes.keys))
    signs = np.where(draw.integers(2, *sizes.v) == 0, 1.0, -1.0)
    signs[..., 0::3], signs[..., 1::3] = 1.0, -1.0
    return (*normal_q_k(sizes, draw), limit * (0.5 + draw.uniform(*sizes.v) / 2) * signs)


@family
def cancelling_values(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """Neighbouring keys are equal and their values opposite but for 1/64: the output is small
    beside what is added up.
    """
    (q, k), v = normal_q_k(sizes, draw), draw.normal(*sizes.v)
    pairs = sizes.keys // 2 * 2
    k[:, :, 1:pairs:2] = k[:, :, 0:pairs:2]
    v[:, :, 1:pairs:2] = v[:, :, 1:pairs:2] / 64 - v[:, :, 0:pairs:2]
    return q, k, v


MIXTURE = (
    normal,
    near_overflow,
    value_one_sign,
    very_negative,
    value_huge,
    sinks,
    growing_maxima,
    nearly_uniform,
)


@family
def mixed_difficulty(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """Each key head of each batch entry from another family, every second row nearly or exactly
    flat: nothing may leak.
    """
    q, k, v = (np.empty(shape) for shape in (sizes.q, sizes.k, sizes.v))
    shared = sizes.heads // sizes.key_heads
    one = replace(sizes, batch=1, heads=shared, key_heads=1)
    start = int(draw.integers(len(MIXTURE), 1)[0])
    for turn, (batch, head) in enumerate(np.ndindex(sizes.batch, sizes.key_heads)):
        some = slice(head * shared, (head + 1) * shared)
        queries, key, value = MIXTURE[(start + turn) % len(MIXTURE)](one, format, draw)
        q[batch, some], k[batch, head], v[batch, head] = queries[0], key[0, 0], value[0, 0]
    q[:, :, 1::4] /= 64
    q[:, :, 3::4] = 0.0
    return q, k, v


@family
def nan_queries(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """NaN in one entry of every third query: its whole result is NaN, and no other query's is."""
    (q, k), v = normal_q_k(sizes, draw), values_with_probe(sizes, draw)
    q[:, :, ::3, sizes.head_size // 2] = np.nan
    return q, k, v


@family
def nan_key(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """NaN in one entry of one key of the last batch entry's first head: all that see it are NaN,
    and nobody else is.
    """
    (q, k), v = normal_q_k(sizes, draw), values_with_probe(sizes, draw)
    k[-1, 0, sizes.keys // 2, 0] = np.nan
    return q, k, v


@family
def infinite_values(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """Infinities of one sign, of both, and NaN in columns of V: these columns are infinite or NaN,
    and no other is.
    """
    (q, k), v = normal_q_k(sizes, draw), values_with_probe(sizes, draw)
    for column, (first, last) in enumerate(
        ((np.inf, np.inf), (-np.inf, -np.inf), (np.inf, -np.inf), (np.nan, 0.0))
    ):
        if column < sizes.value_size - 1:
            v[:, :, 0, column], v[:, :, -1, column] = first, last
    return q, k, v


@functools.cache
def _captured(name: str) -> Array:
    path = Path(__file__).parent / "capture" / "minilm_qkv.npz"
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file[name], dtype=np.float64)


def minilm(sizes: Sizes, format: Format, draw: Draw) -> Tensors:
    """Real q, k and v of all-MiniLM-L6-v2 on the Gettysburg Address: of three layers the sharpest
    and the flattest head.
    """
    return _captured("q"), _captured("k"), _captured("v")


family(minilm, fixed=Sizes(batch=3, heads=2, length=331, head_size=32, key_heads=2, keys=331, value_size=32))
