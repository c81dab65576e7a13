"""inputs/attention.py, attention_tensors.py: the same bits everywhere, numbers of the format, and
what each name promises.
"""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch

from suite import judge
from suite.formats import DTYPES, compute_format, float32, float64, get_format
from suite.inputs import attention, attention_tensors, first_sentence
from suite.inputs.attention import FAMILIES, MIXTURE, Sizes, boundaries, build, family, get_family
from suite.inputs.attention_tensors import KV_LENGTHS, MASKS, SINKS, SLOPES, TENSORS, get_kind, tensor
from suite.inputs.digests import SIZES as USUAL
from suite.inputs.digests import digest, of_attention
from suite.oracle import Oracle
from suite.tensors import to_torch

FREE = sorted(name for name, family in FAMILIES.items() if family.fixed is None)
KINDS = [(argument, name) for argument, kinds in TENSORS.items() for name in kinds]
BOOLEAN = sorted(name for name in MASKS if not name.startswith(("additive", "sentinels", "lowest")))
ADDITIVE = sorted(set(MASKS) - set(BOOLEAN))

SMALLEST = Sizes(1, 1, 1, 1, 1, 1, 1)
SIZES = (
    SMALLEST,
    USUAL,
    Sizes(2, 4, 5, 2, 1, 17, 3),
    Sizes(1, 3, 1, 33, 3, 129, 1),
    Sizes(1, 2, 40, 8, 1, 2, 5),
    Sizes(3, 1, 4, 1, 1, 70, 2),
)
FLOAT16, BFLOAT16 = get_format("float16"), get_format("bfloat16")

SPECIAL = ("infinite_values", "nan_key", "nan_queries")
"""The families that are there for NaN and infinities."""

GOLDEN = {
    "cancelling_values": "3b8d1d3b5672eb15",
    "ends": "45358ffa9330b2ea",
    "falling_maxima": "128869f981bae4ac",
    "growing_maxima": "97acadc88c1e6a23",
    "infinite_values": "7951068e759cb287",
    "minilm": "0229026472b345fd",
    "mixed_difficulty": "f51e9c21914fd2b4",
    "nan_key": "22539bfe4ca01f2f",
    "nan_queries": "9820378d4f3b8804",
    "near_overflow": "5f0150ee3a5b0332",
    "nearly_uniform": "ab70c57b0ed7ca58",
    "normal": "64fe4652c1075837",
    "outlier_channels": "eec1748253582535",
    "outlier_entries": "fb502e0c1415ce0f",
    "probe": "4e5f082cb1bef7cd",
    "probe_sharp": "92c274481d16e57d",
    "repeated_maxima": "710dcf61bca606c5",
    "sinks": "0ed58f4d63979203",
    "sparse": "d84a25aef89c834c",
    "value_huge": "e25dd9e8f44da2ab",
    "value_one_sign": "cb913be7d120b002",
    "very_negative": "ee6c486ec65cd550",
}
"""blake2b of the little-endian float64 q, k and v of USUAL (of captured data: of its own sizes),
float32, seed 0.
"""

GOLDEN_KINDS = {
    ("alibi_slopes", "geometric"): "78a06087546b6b8d",
    ("alibi_slopes", "zero"): "c50d124a8aaf41a1",
    ("alibi_slopes", "zero_and_steep"): "bc24bad62b2e4b9f",
    ("kv_lengths", "empty"): "5250a507f994740e",
    ("kv_lengths", "full"): "068eda6e2d873f24",
    ("kv_lengths", "ragged"): "1c0a5f381161ae9c",
    ("kv_lengths", "single"): "e3b1d30928a33e35",
    ("mask", "additive"): "892cf0eb97d683fe",
    ("mask", "additive_infinite"): "72929411997b328a",
    ("mask", "all_masked"): "d230194aa0da9b2f",
    ("mask", "checkerboard"): "b1f9143432ca1ef4",
    ("mask", "documents"): "d64fff2e5b5daacb",
    ("mask", "interior_tiles"): "1ad81124452d7428",
    ("mask", "leading_tiles"): "b2979bc6355d0c75",
    ("mask", "lowest"): "a283f66e4d72dda8",
    ("mask", "lowest_rows"): "dc9c93df10d6181d",
    ("mask", "one_visible"): "7700fb140d5b53a1",
    ("mask", "padding"): "d3dee5e44f217575",
    ("mask", "random"): "343bf9b36b842f48",
    ("mask", "random_with_empty_rows"): "010a0cc502924a08",
    ("mask", "sentinels"): "d69dec6ae9f0e197",
    ("mask", "trailing_tiles"): "e300f2120280cfb7",
    ("mask", "two_visible"): "699003b646cea756",
    ("sink", "dominant"): "2a8c0ee358546e95",
    ("sink", "mixed"): "2f2af103efa6ac0b",
    ("sink", "none"): "6cc6436424b6db39",
    ("sink", "normal"): "60f2d065cce8be09",
}
"""The same for the further tensors."""


def sizes_of(name, sizes=USUAL):
    return FAMILIES[name].fixed or sizes


def scores_of(tensors, sizes=USUAL):
    """[B, H, L, S] at the default scale, float64."""
    keys = np.repeat(tensors["k"], sizes.heads // sizes.key_heads, axis=1)
    return tensors["q"] @ keys.swapaxes(-1, -2) / math.sqrt(sizes.head_size)


def weights_of(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def lse_of(scores):
    largest = scores.max(axis=-1)
    return largest + np.log(np.exp(scores - largest[..., None]).sum(axis=-1))


# the same bits


def test_every_family_and_kind_has_a_golden_digest():
    assert sorted(GOLDEN) == sorted(FAMILIES)
    assert sorted(GOLDEN_KINDS) == sorted(KINDS)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_gives_the_committed_bits(name):
    """A changed bit anywhere changes recorded results, so it is a change of the cases."""
    assert of_attention(name) == GOLDEN[name]


@pytest.mark.parametrize(("argument", "name"), KINDS)
def test_every_kind_gives_the_committed_bits(argument, name):
    assert digest(tensor(argument, name, USUAL, float32, 0)) == GOLDEN_KINDS[argument, name]


@pytest.mark.parametrize("name", FREE)
def test_a_family_is_a_function_of_its_seed(name):
    first, again, other = (build(name, USUAL, float32, seed) for seed in (0, 0, 1))

    for argument in "qkv":
        assert first[argument].tobytes() == again[argument].tobytes()
    assert digest(*first.values()) != digest(*other.values())


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        *(("mask", name) for name in ("random", "random_with_empty_rows", "documents", "padding", *ADDITIVE)),
        ("sink", "normal"), ("sink", "mixed"), ("kv_lengths", "ragged"),
    ],
)  # fmt: skip
def test_a_drawn_tensor_is_a_function_of_its_seed(argument, name):
    first, again, other = (tensor(argument, name, USUAL, float32, seed) for seed in (0, 0, 1))

    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_changing_what_was_built_changes_nothing_that_is_built_later(name):
    first = build(name, sizes_of(name), float32, 0)
    before = digest(*first.values())
    for values in first.values():
        values[:] = 7.0

    assert digest(*build(name, sizes_of(name), float32, 0).values()) == before


# shapes and formats


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FREE)
def test_every_family_gives_finite_numbers_of_the_format_at_any_sizes(name, dtype):
    format = get_format(dtype)
    for sizes in SIZES:
        tensors = build(name, sizes, format, 0)
        assert {argument: values.shape for argument, values in tensors.items()} == {
            "q": sizes.q,
            "k": sizes.k,
            "v": sizes.v,
        }
        for values in tensors.values():
            assert values.dtype == np.float64
            assert np.isfinite(values).all() or name in SPECIAL
            assert format.contains(values[np.isfinite(values)]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("argument", "name"), KINDS)
def test_every_kind_gives_numbers_of_the_format_at_any_sizes(argument, name, dtype):
    format = get_format(dtype)
    for sizes in SIZES:
        values = tensor(argument, name, sizes, format, 0)
        if argument == "mask":
            full = (sizes.batch, sizes.heads, sizes.length, sizes.keys)
            assert values.dtype == (np.bool_ if name in BOOLEAN else np.float64)
            assert all(one in (1, whole) for one, whole in zip(values.shape, full, strict=True))
            assert values.shape[3] == sizes.keys
        else:
            assert values.dtype == (np.int64 if argument == "kv_lengths" else np.float64)
            assert values.shape == ((sizes.batch if argument == "kv_lengths" else sizes.heads),)
        assert format.holds(values.astype(np.float64)) or argument == "kv_lengths"
        assert not np.isnan(values.astype(np.float64)).any()
        assert not (values == np.inf).any()


@pytest.mark.parametrize(
    "name", [*(("alibi_slopes", name) for name in SLOPES), *(("sink", name) for name in SINKS)]
)
def test_slopes_and_sinks_of_float64_are_numbers_of_float32(name):
    assert float32.holds(tensor(*name, USUAL, float64, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_captured_data_is_of_the_format_and_refuses_other_sizes(dtype):
    format, fixed = get_format(dtype), FAMILIES["minilm"].fixed

    tensors = build("minilm", fixed, format, 0)

    assert [values.shape for values in tensors.values()] == [fixed.q, fixed.k, fixed.v]
    assert all(format.contains(values).all() for values in tensors.values())
    with pytest.raises(ValueError, match="331"):
        build("minilm", USUAL, format, 0)


def test_captured_scores_are_those_of_the_model():
    """q and k were rounded to float16: to within 2 * 32 * 2^-11 * max |q| max |k| / sqrt(32) the
    scores captured before.
    """
    fixed = FAMILIES["minilm"].fixed
    tensors = build("minilm", fixed, float32, 0)
    scores = scores_of(tensors, fixed)
    folder = attention.Path(attention.__file__).parent / "capture"
    with np.load(folder / "minilm_qkv.npz") as file, np.load(folder / "minilm_scores.npz") as older:
        places = [
            (layer, head) for layer, heads in zip(file["layer"], file["head"], strict=True) for head in heads
        ]
        rows = [
            (layer, head, query, row)
            for layer, head, query, row in zip(
                older["scores_layer"],
                older["scores_head"],
                older["scores_query"],
                older["scores"],
                strict=True,
            )
            if (layer, head) in places
        ]
    allowed = 2 * 32 * 2.0**-11 * np.abs(tensors["q"]).max() * np.abs(tensors["k"]).max() / math.sqrt(32)

    assert len(rows) >= len(places)
    for layer, head, query, row in rows:
        place = places.index((layer, head))
        assert np.abs(scores[place // 2, place % 2, query] - row).max() <= allowed


# what the names of families promise, in the coarsest format


def test_boundaries_begin_with_the_last_and_the_first_key():
    assert boundaries(1) == [0]
    assert boundaries(4096)[:2] == [4095, 0]
    assert {15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 2048, 4032, 4094} <= set(boundaries(4096))
    for keys in range(1, 300):
        assert sorted(set(boundaries(keys))) == sorted(boundaries(keys))
        assert {0, keys - 1} <= set(boundaries(keys)) <= set(range(keys))


@pytest.mark.parametrize("name", ["probe", "probe_sharp"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_probe_has_one_hot_columns_at_the_ends_and_a_column_of_ones(name, sizes):
    v = build(name, sizes, BFLOAT16, 0)["v"]
    one_hot, ones = v[..., :-1], v[..., -1]
    columns = min(sizes.value_size - 1, sizes.keys)

    assert (ones == 1).all()
    assert set(np.unique(one_hot)) <= {0.0, 1.0}
    assert (one_hot.sum(axis=2) == (np.arange(sizes.value_size - 1) < columns)).all()
    assert (one_hot.sum(axis=3) <= 1).all()
    if columns >= 2:
        assert (one_hot[:, :, [0, -1]].sum(axis=3) == 1).all()


def test_the_heads_of_a_probe_cover_more_boundaries_together_and_differ():
    v = build("probe", Sizes(2, 2, 1, 8, 2, 4096, 8), BFLOAT16, 0)["v"]
    found = [tuple(np.argmax(v[batch, head, :, :-1], axis=0)) for batch in range(2) for head in range(2)]

    assert len(set(found)) == 4
    assert len(set().union(*found)) == 2 + 4 * 5


def test_scores_of_the_sharp_probe_are_four_times_as_far_apart():
    assert 3.5 < scores_of(build("probe_sharp", USUAL, BFLOAT16, 0)).std() < 4.5


def test_nearly_uniform_weights_are_within_an_eighth_of_each_other():
    for sizes in SIZES:
        weights = weights_of(scores_of(build("nearly_uniform", sizes, BFLOAT16, 0), sizes))
        assert (weights.max(axis=-1) <= 1.17 * weights.min(axis=-1)).all()


def test_outlier_channels_are_few_and_large():
    k = build("outlier_channels", USUAL, BFLOAT16, 0)["k"]
    large = np.abs(k).mean(axis=2) > 8

    assert (large.sum(axis=-1) >= 1).all()
    assert (large.sum(axis=-1) <= 3).all()
    assert (np.abs(k.mean(axis=2)[large]) > 8).all()


def test_outlier_entries_are_one_in_a_thousand():
    q = build("outlier_entries", Sizes(2, 8, 128, 64, 8, 1, 1), BFLOAT16, 0)["q"]

    assert 0.0003 < (np.abs(q) > 6).mean() < 0.001  # N(0, 101) is beyond 6 with probability 0.55
    assert np.abs(q).max() > 15


def test_the_first_key_of_sinks_has_nine_tenths_of_every_row():
    for sizes in (*SIZES, Sizes(1, 1, 4, 64, 1, 20000, 1)):
        assert (weights_of(scores_of(build("sinks", sizes, BFLOAT16, 0), sizes))[..., 0] > 0.9).all()


def test_the_maximum_repeats_in_every_16_keys():
    sizes = Sizes(1, 2, 5, 64, 1, 1030, 4)
    scores = scores_of(build("repeated_maxima", sizes, BFLOAT16, 0), sizes)
    largest = scores == scores.max(axis=-1, keepdims=True)
    tiles = np.add.reduceat(largest, np.arange(0, 1030, 16), axis=-1)

    assert (tiles[..., :-1] == 1).all()
    assert largest[..., [0, -1]].all()
    assert len({int(place) % 16 for place in np.flatnonzero(largest[0, 0, 0])}) == 16


def test_products_near_overflow_are_inside_float16_and_scores_finite_in_the_compute_format():
    for sizes in SIZES:
        for dtype in DTYPES:
            format = get_format(dtype)
            scores = scores_of(build("near_overflow", sizes, format, 0), sizes)
            products = np.abs(scores * math.sqrt(sizes.head_size))
            assert products.min() > 59000
            assert products.max() < 61500 < FLOAT16.largest
            assert np.isfinite(compute_format(format).round(scores * math.log2(math.e))).all()
            assert (scores.max(axis=-1) > 0).all() or sizes.keys == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_very_negative_rows_have_an_lse_below_the_subnormals_of_float32(dtype):
    for sizes in SIZES:
        lse = lse_of(scores_of(build("very_negative", sizes, get_format(dtype), 0), sizes))
        assert (lse < -88).all()
    assert lse.min() < -10000


@pytest.mark.parametrize("keys", [1, 70, 300, 4096, 20000])
def test_maxima_grow_or_fall_in_every_tile(keys):
    sizes = Sizes(1, 1, 4, 64, 1, keys, 2)
    width = 64 if keys <= 16384 else 128
    for name, direction in (("growing_maxima", 1), ("falling_maxima", -1)):
        scores = scores_of(build(name, sizes, BFLOAT16, 0), sizes)[..., ::direction]
        tiles = np.maximum.reduceat(scores, np.arange(0, keys, width), axis=-1)
        if direction == 1:
            assert (np.diff(tiles, axis=-1) > 0.5).all()
        else:  # tiles are counted from the last key
            assert (
                np.diff(np.maximum.reduceat(scores[..., ::-1], np.arange(0, keys, width), axis=-1), axis=-1)
                < -0.5
            ).all()


def test_ends_have_all_the_weight():
    for sizes in (*SIZES, Sizes(1, 1, 4, 64, 1, 20000, 1)):
        weights = weights_of(scores_of(build("ends", sizes, BFLOAT16, 0), sizes))
        assert (
            np.where(np.isin(np.arange(sizes.keys), (0, sizes.keys - 1)), 0.0, weights).sum(axis=-1) < 1e-5
        ).all()
        assert (weights[..., [0, -1]] > 1e-4).all()


def test_sparse_rows_share_their_weight_among_other_boundaries_in_turn():
    sizes = Sizes(1, 1, 4, 64, 1, 4096, 2)
    weights = weights_of(scores_of(build("sparse", sizes, BFLOAT16, 0), sizes))[0, 0]
    places = boundaries(4096)

    for row in range(4):
        assert weights[row, places[row % 2 :: 2]].sum() > 1 - 1e-5
        assert weights[row, places[row % 2 :: 2]].min() > 1e-4


def test_values_of_one_sign_are_positive():
    v = build("value_one_sign", USUAL, BFLOAT16, 0)["v"]

    assert v.min() >= 1
    assert v.max() <= 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_values_can_be_added_up_in_the_compute_format_and_no_narrower(dtype):
    format = get_format(dtype)
    v = np.abs(build("value_huge", USUAL, format, 0)["v"])
    wide = float64.largest if dtype == "float64" else float32.largest

    assert 1024 * v.max() <= wide / USUAL.keys
    if dtype == "float16":
        assert v.min() > FLOAT16.largest / 3
    else:
        assert v.min() > wide / (4096 * USUAL.keys)


def test_values_cancel_between_neighbouring_keys():
    tensors = build("cancelling_values", USUAL, BFLOAT16, 0)
    weights = weights_of(scores_of(tensors))
    v = np.repeat(tensors["v"], 2, axis=1)

    assert np.abs(weights @ v).max() < (weights @ np.abs(v)).min() / 20


def test_mixed_difficulty_has_heads_of_all_families_and_flat_rows():
    sizes = Sizes(4, 4, 8, 16, 2, 70, 8)
    scores = scores_of(build("mixed_difficulty", sizes, float32, 0), sizes)
    spans = np.ptp(scores, axis=-1)

    assert sizes.batch * sizes.key_heads >= len(MIXTURE)
    assert (spans[:, :, 3::4] == 0).all()
    assert spans[:, :, 1::4].max() < spans[:, :, 0::4].max() / 32
    assert (lse_of(scores)[:, :, 0] < -88).any()
    assert scores.max() > 10000


# what the names of further tensors promise


def visible_by(name, sizes=USUAL, format=float32, seed=0):
    """[B, H, L, S]: what the mask hides, -inf or a finite number, is False."""
    mask = tensor("mask", name, sizes, format, seed)
    mask = mask if mask.dtype == np.bool_ else mask > -9000
    return np.broadcast_to(mask, (sizes.batch, sizes.heads, sizes.length, sizes.keys))


EMPTY = (np.arange(2)[:, None] + np.arange(9)) % 3 == 1


@pytest.mark.parametrize("name", ["random", "lowest"])
def test_random_masks_hide_half_and_leave_a_key_in_every_row(name):
    for sizes in SIZES:
        assert visible_by(name, sizes).any(axis=-1).all()
    assert 0.45 < visible_by(name).mean() < 0.55


@pytest.mark.parametrize("name", ["random_with_empty_rows", "additive_infinite", "sentinels", "lowest_rows"])
def test_every_third_row_is_empty(name):
    visible = visible_by(name)

    assert (visible.any(axis=-1) == ~EMPTY[:, None, :]).all()
    assert 0.45 < visible[:, 0][~EMPTY].mean() < 0.55


@pytest.mark.parametrize(("name", "end"), [("leading_tiles", 1), ("trailing_tiles", -1)])
def test_leading_and_trailing_tiles_are_hidden(name, end):
    visible = visible_by(name)[0, 0][:, ::end]
    hidden = np.argmax(visible, axis=-1)

    assert set(hidden) == {16, 32, 64, 128, 256}
    assert (visible == (np.arange(300) >= hidden[:, None])).all()
    for sizes in SIZES:
        assert visible_by(name, sizes).any(axis=-1).all()


def test_interior_tiles_are_hidden_whole():
    visible = visible_by("interior_tiles")[0, 0]

    for row, width in enumerate((256, 128, 64, 32, 16)):
        assert (visible[row] == (np.arange(300) // width % 2 == 0)).all()
    assert visible_by("interior_tiles", Sizes(1, 1, 1, 1, 1, 5, 1)).tolist() == [
        [[[True, False, False, False, True]]]
    ]


def test_a_checkerboard_alternates_along_rows_and_columns():
    visible = visible_by("checkerboard")

    assert visible[0, 0, 0, :3].tolist() == [True, False, True]
    assert (visible[..., 1:] != visible[..., :-1]).all()
    assert (visible[:, :, 1:] != visible[:, :, :-1]).all()
    for sizes in SIZES:
        assert visible_by("checkerboard", sizes).any(axis=-1).all() or sizes.keys > 1


@pytest.mark.parametrize(("name", "count"), [("one_visible", 1), ("two_visible", 2)])
def test_rows_see_one_or_two_keys_at_boundaries(name, count):
    for sizes in SIZES:
        assert (visible_by(name, sizes).sum(axis=-1) == min(count, sizes.keys)).all()
    visible = visible_by(name)
    assert set(np.flatnonzero(visible.any(axis=(0, 1, 2)))) <= set(boundaries(300))
    assert visible[0, 0, 0, -1]
    assert visible[0, 0, 1, 0]
    assert (visible[1, 0, 0] == visible[0, 0, 1]).all()


def test_documents_see_themselves_only():
    visible = visible_by("documents", Sizes(2, 1, 300, 4, 1, 300, 4))[:, 0]

    assert visible[:, np.arange(300), np.arange(300)].all()
    assert (visible == visible.swapaxes(-1, -2)).all()
    assert (visible.sum(axis=-1) <= 100).all()
    assert (np.diff(visible.astype(int), axis=-1) != 0).sum(axis=-1).max() <= 2
    assert (visible[0] != visible[1]).any()


def test_all_masked_hides_all_and_padding_hides_the_end():
    assert not visible_by("all_masked").any()
    padding = tensor("mask", "padding", Sizes(8, 1, 1, 1, 1, 300, 1), float32, 0)
    assert padding.shape == (8, 1, 1, 300)
    assert (np.diff(padding.astype(int), axis=-1) <= 0).all()
    assert len(set(padding.sum(axis=-1).ravel())) == 8


def test_additive_masks_hold_what_they_say():
    assert np.isfinite(tensor("mask", "additive", USUAL, float32, 0)).all()
    infinite = tensor("mask", "additive_infinite", USUAL, float32, 0)
    assert 0.4 < (infinite == -np.inf).mean() < 0.75
    for dtype in DTYPES:
        format = get_format(dtype)
        assert set(np.unique(tensor("mask", "sentinels", USUAL, format, 0))) == {
            float(format.round(-1e4)),
            0.0,
        }
        for name in ("lowest", "lowest_rows"):
            assert set(np.unique(tensor("mask", name, USUAL, format, 0))) == {-format.largest, 0.0}


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16, 20, 40, 64, 71, 112])
def test_geometric_slopes_are_the_published_ones_rounded_to_float32(heads):
    """get_slopes of the authors' code: powers of 2^(-8/n), then every second one of the next power of two."""

    def published(n):
        if n & (n - 1) == 0:
            return [mpmath.power(2, mpmath.mpf(-8 * i) / n) for i in range(1, n + 1)]
        below = 2 ** (n.bit_length() - 1)
        return published(below) + published(2 * below)[0::2][: n - below]

    with mpmath.workprec(120):
        expected = [float(float32.round(float(slope))) for slope in published(heads)]

    assert (
        tensor("alibi_slopes", "geometric", Sizes(1, heads, 1, 1, 1, 1, 1), float32, 0).tolist() == expected
    )


def test_other_slopes_hold_what_they_say():
    assert tensor("alibi_slopes", "zero", USUAL, float32, 0).tolist() == [0.0] * 4
    assert tensor("alibi_slopes", "zero_and_steep", USUAL, float32, 0).tolist() == [4.0, 0.0, 2.0**-8, 4.0]


def test_sinks_hold_what_they_say():
    assert (np.abs(tensor("sink", "normal", USUAL, float32, 0)) < 10).all()
    assert (tensor("sink", "none", USUAL, float32, 0) == -np.inf).all()
    assert (
        tensor("sink", "dominant", USUAL, float32, 0).min()
        > lse_of(scores_of(build("normal", USUAL, float32, 0))).max()
    )
    mixed = tensor("sink", "mixed", USUAL, float32, 0)
    assert np.isfinite(mixed[0])
    assert mixed[1:].tolist() == [12.0, -np.inf, -60.0]


def test_kv_lengths_hold_what_they_say():
    many = Sizes(19, 1, 1, 1, 1, 300, 1)

    assert tensor("kv_lengths", "full", USUAL, float32, 0).tolist() == [300, 300]
    assert tensor("kv_lengths", "single", USUAL, float32, 0).tolist() == [1, 1]
    assert tensor("kv_lengths", "empty", USUAL, float32, 0).tolist() == [0, 0]
    around = {length for tile in (16, 32, 64, 128, 256) for length in (tile - 1, tile, tile + 1)}
    assert set(tensor("kv_lengths", "ragged", many, float32, 0)) == around | {0, 1, 299, 300}
    for sizes in SIZES:
        for name in KV_LENGTHS:
            lengths = tensor("kv_lengths", name, sizes, float32, 0)
            assert lengths.min() >= 0
            assert lengths.max() <= sizes.keys


# what the families are for: mutants


def attend(q, k, v, *, of_weights=lambda w: w, of_scores=lambda s: s, accumulate=torch.float32):
    s = of_scores(q.float() @ k.float().mT / math.sqrt(q.shape[-1]))
    w = of_weights(torch.exp(s - s.amax(-1, keepdim=True)))
    return ((w.to(accumulate) @ v.to(accumulate)).float() / w.sum(-1, keepdim=True)).to(q.dtype)


def without_the_last(s):
    return torch.cat([s[..., :-1], torch.full_like(s[..., -1:], -torch.inf)], dim=-1)


def with_the_last_twice(w):
    return torch.cat([w[..., :-1], 2 * w[..., -1:]], dim=-1)


FAULTS = {
    "last key dropped": {"of_scores": without_the_last},
    "last key doubled": {"of_weights": with_the_last_twice},
    "scale 1 % wrong": {"of_scores": lambda s: 1.01 * s},
    "P in e4m3": {"of_weights": lambda w: w.to(torch.float8_e4m3fn).float()},
}
LONG = Sizes(1, 1, 4, 64, 1, 4096, 16)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("probe", 4096),
        ("ends", 4096),
        ("sinks", 1030),
        ("repeated_maxima", 1030),
        ("sparse", 1030),
        ("growing_maxima", 1030),
    ],
)
def test_faults_that_normal_values_hide_show_in_bfloat16(name, keys):
    tensors = {
        argument: to_torch(x, BFLOAT16)
        for argument, x in build(name, replace(LONG, keys=keys), BFLOAT16, 0).items()
    }
    oracle = Oracle(remembered=1)

    def verdict(**fault):
        return judge("attention", tensors, attend(**tensors, **fault), oracle=oracle).status

    assert verdict() == "passed"
    assert {fault: verdict(**change) for fault, change in FAULTS.items()} == dict.fromkeys(
        FAULTS, "inaccurate"
    )


def test_normal_values_hide_a_lost_last_key():
    """Why the families above have a probe among their values."""
    tensors = {
        argument: to_torch(values, BFLOAT16)
        for argument, values in build("normal", LONG, BFLOAT16, 0).items()
    }

    assert judge("attention", tensors, attend(**tensors, **FAULTS["last key dropped"])).passed


@pytest.mark.parametrize(
    ("name", "fault", "status"),
    [
        ("value_huge", {"accumulate": torch.float16}, "nonfinite"),
        ("value_one_sign", {"accumulate": torch.bfloat16}, "inaccurate"),
        ("near_overflow", {"of_scores": lambda s: (8 * s).half().float() / 8}, "inaccurate"),
        ("very_negative", {"of_scores": lambda s: s.clamp(min=-1e4)}, "inaccurate"),
        ("outlier_channels", {"of_scores": lambda s: s.bfloat16().float()}, "inaccurate"),
    ],
)
def test_a_family_finds_what_it_is_hard_for(name, fault, status):
    tensors = {
        argument: to_torch(values, FLOAT16) for argument, values in build(name, LONG, FLOAT16, 0).items()
    }
    oracle = Oracle(remembered=1)

    assert judge("attention", tensors, attend(**tensors), oracle=oracle).passed
    assert judge("attention", tensors, attend(**tensors, **fault), oracle=oracle).status == status


# misuse


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch", 0), ("keys", -1), ("head_size", 1.0), ("length", True), ("value_size", "8")],
)
def test_sizes_are_integers_of_at_least_1(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r} must be an integer of at least 1"):
        Sizes(
            **{
                "batch": 1,
                "heads": 1,
                "length": 1,
                "head_size": 1,
                "key_heads": 1,
                "keys": 1,
                "value_size": 1,
                field: value,
            }
        )


def test_heads_are_shared_evenly():
    with pytest.raises(ValueError, match="heads=6 cannot share key_heads=4"):
        Sizes(1, 6, 1, 1, 4, 1, 1)


def test_unknown_names_are_answered_with_the_valid_ones():
    with pytest.raises(
        ValueError, match=r"unknown input family 'nomral' of attention; expected one of .*normal"
    ):
        build("nomral", USUAL, float32, 0)
    with pytest.raises(ValueError, match=r"unknown kind 'x' of mask; expected one of random, "):
        tensor("mask", "x", USUAL, float32, 0)
    with pytest.raises(
        ValueError, match="argument='masks' is not one of mask, alibi_slopes, sink, kv_lengths"
    ):
        get_kind("masks", "random")


def test_every_family_and_kind_says_what_it_is():
    for name in FAMILIES:
        assert ":" in get_family(name).summary
    for argument, name in KINDS:
        assert ":" in first_sentence(get_kind(argument, name))


def test_a_family_needs_a_name_of_its_own_and_a_docstring():
    def normal(sizes, format, draw):
        """Taken."""

    def silent(sizes, format, draw):
        return None

    with pytest.raises(ValueError, match="'normal' of attention exists already"):
        family(normal)
    with pytest.raises(ValueError, match="'silent' of attention needs a docstring"):
        family(silent)
    assert "silent" not in FAMILIES
    assert attention_tensors.TENSORS["mask"] is MASKS
