"""inputs/: the same bits on every machine, numbers of the format, and the hard places that each
family promises.
"""

import hashlib
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite import inputs, judge
from suite.formats import FORMATS, get_format
from suite.inputs import __main__ as command
from suite.inputs import attention
from suite.inputs.digests import digest, of_logits
from suite.inputs.draws import Draw, _quantiles
from suite.inputs.families import TILES, boundaries
from suite.oracle import Oracle
from suite.tensors import to_torch

FAMILIES = inputs.all_families()
FREE = sorted(name for name, family in FAMILIES.items() if family.fixed_shape is None)
CAPTURED = sorted(set(FAMILIES) - set(FREE))
FLOAT32 = get_format("float32")

GOLDEN = {
    "alternating": "4802406f002ec1b8",
    "every_16_bit_value": "7bf67f2fe71e2b70",
    "exact_offset": "59bb0cbe872624e9",
    "geometric_gaps": "d7b5a4de4cf78cf3",
    "known_bugs": "1ab723ba832811f1",
    "log_near_zero": "d8cf601b46986cf5",
    "masked_tiles": "feaad9aa95651655",
    "masked_tiles_far_below": "9ee2220b2150172f",
    "maximum_at_boundaries": "654e73842decd182",
    "midpoint_results": "8dfc66b58e588df6",
    "minilm_padded": "3631d386137018f8",
    "minilm_scores": "d94316a08fbe565f",
    "mixed_rows": "96368bbdc8693874",
    "nan_and_infinity": "c3ebe66c25b62aa0",
    "near_ties": "79b68c6fe87eb744",
    "normal": "3d1f356854c228c5",
    "normal_large": "30b49c3a544e51fd",
    "normal_small": "432a6f818e7857eb",
    "offset": "92a582df9b133bf5",
    "overflow_edge": "9a92d769adcc1650",
    "ramps": "16eb5ea65dcb9c2f",
    "saturation_edge": "c675ae136aa1de0a",
    "several_masked_tiles": "83735d788fc13e9e",
    "sentinels": "3bafaead3825b4e5",
    "sparse": "73789195cb23f17d",
    "subnormal_results": "30d4664d4bf069dc",
    "ties": "3e4d6cdc2b51129d",
    "tiny_logits": "108b2d24aa103ffe",
    "two_heavy_ends": "20bfb1985cf43eb9",
    "underflow_edge": "05e41878de86458e",
    "very_negative": "9f12edf2d3b1ebb5",
}
"""blake2b of the little-endian float64 rows at (8, 33), float32, seed 0; of all rows for families
of a fixed shape.
"""

keys = st.text(max_size=8)


def rows_of(name, rows=8, n=33, format=FLOAT32, seed=0):
    return inputs.build(name, *(FAMILIES[name].fixed_shape or (rows, n)), format, seed)


def test_every_family_has_a_golden_digest():
    assert sorted(GOLDEN) == sorted(FAMILIES)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_gives_the_committed_bits(name):
    """The same bits on every machine: a changed bit anywhere changes recorded results, so it is a
    change of the cases.
    """
    assert of_logits(name) == GOLDEN[name]


def test_a_digest_is_blake2b_of_little_endian_bytes_in_which_all_nans_are_one():
    strange = np.array([0x7FF0000000000001], dtype=np.uint64).view(np.float64)
    values = np.array([1.0, -0.0, np.nan])

    expected = hashlib.blake2b(values.astype("<f8").tobytes(), digest_size=8).hexdigest()
    assert digest(values) == digest(values.astype(">f8")) == expected
    assert digest(np.append(values[:2], strange)) == expected
    assert digest(values, values) == digest(np.tile(values, 2)) != expected


def test_the_command_prints_the_line_that_belongs_in_golden(capsys):
    assert command.main(["normal", "sparse"]) == 0

    printed = capsys.readouterr().out
    assert f'"sparse": "{GOLDEN["sparse"]}",  # GOLDEN of tests/test_inputs.py' in printed
    assert printed.count('"normal": ') == 1 + ("normal" in attention.FAMILIES)


@pytest.mark.parametrize(
    ("names", "words"), [(["spars"], "unknown input family 'spars'"), ([], "no input family is named")]
)
def test_the_command_answers_a_wrong_name_with_the_valid_ones(names, words, capsys):
    assert command.main(names) == 2

    said = capsys.readouterr().err
    assert said.startswith(words)
    assert all(name in said for name in (*FAMILIES, *attention.FAMILIES))


@pytest.mark.parametrize("format", FORMATS.values(), ids=lambda f: f.name)
@pytest.mark.parametrize("name", FREE)
def test_every_family_gives_numbers_of_the_format_in_the_shape_that_was_asked_for(name, format):
    for rows, n in ((1, 1), (9, 1), (9, 2), (9, 3), (9, 17), (9, 130)):
        values = rows_of(name, rows, n, format)
        assert values.shape == (rows, n)
        assert values.dtype == np.float64
        assert format.contains(values[np.isfinite(values)]).all()


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("format", FORMATS.values(), ids=lambda f: f.name)
def test_captured_data_has_its_own_shape_and_numbers_of_the_format(name, format):
    values = rows_of(name, format=format)

    assert values.shape == FAMILIES[name].fixed_shape
    assert format.contains(values[np.isfinite(values)]).all()


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_data_in_another_shape_is_refused(name):
    """build() promises [rows, n]."""
    with pytest.raises(ValueError, match=r"\d+"):
        inputs.build(name, 4, 5, FLOAT32, 0)


@pytest.mark.parametrize("name", FREE)
def test_every_family_is_a_function_of_its_seed(name):
    first, again, other = rows_of(name), rows_of(name), rows_of(name, seed=1)

    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_changing_the_rows_that_were_built_changes_no_later_ones(name):
    """Captured data is kept in memory: nobody may write into it."""
    first = rows_of(name)
    before = first.tobytes()
    first[:] = 7.0

    assert rows_of(name).tobytes() == before


@pytest.mark.parametrize("name", FREE)
def test_a_narrower_format_gets_the_rounded_values_of_the_same_draw(name):
    """So a difference between formats is one of the kernels. Families may place values by the
    format itself.
    """
    wide, narrow = (rows_of(name, format=get_format(f)) for f in ("float64", "bfloat16"))
    ordinary = np.isfinite(wide) & (np.abs(wide) < 1e30) & np.isfinite(narrow) & (np.abs(narrow) < 1e30)

    assert np.array_equal(narrow[ordinary], get_format("bfloat16").round(wide[ordinary]))
    assert np.array_equal(np.isnan(wide), np.isnan(narrow))


def test_every_family_has_a_summary_of_one_line():
    assert [
        name for name, family in FAMILIES.items() if len(family.summary) < 20 or "\n" in family.summary
    ] == []


def test_an_unknown_family_is_answered_with_the_valid_names():
    with pytest.raises(ValueError, match=r"unknown input family 'gauss'; expected one of .*normal, .*ties"):
        inputs.get_family("gauss")


def test_a_name_that_is_taken_and_a_family_without_docstring_are_refused():
    def normal(rows, n, format, draw):
        """Another."""

    def silent(rows, n, format, draw):
        return np.zeros((rows, n))

    with pytest.raises(ValueError, match="input family 'normal' exists already"):
        inputs.family(normal)
    with pytest.raises(ValueError, match="input family 'silent' needs a docstring"):
        inputs.family(silent)
    assert "silent" not in inputs.all_families()


@settings(deadline=None, max_examples=50)
@given(keys, st.integers(0, 40), st.integers(0, 40))
def test_a_draw_is_a_function_of_its_key_and_place(key, first, second):
    """Two draws in a row are one draw of the joined length."""
    draw = Draw(key)
    parts = [draw.words(first), draw.words(second)]

    assert np.array_equal(np.concatenate(parts), Draw(key).words(first + second))


def test_words_are_those_of_splitmix64():
    """By the recurrence of Steele, Lea and Flood in Python's integers."""
    mask = 2**64 - 1
    state = int.from_bytes(hashlib.blake2b(b"key", digest_size=8).digest(), "little")
    expected = []
    for _ in range(50):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        expected.append(z ^ (z >> 31))

    assert Draw("key").words(5, 10).reshape(-1).tolist() == expected


@given(keys, keys)
def test_different_keys_give_different_words(a, b):
    assert (a == b) == np.array_equal(Draw(a).words(4), Draw(b).words(4))


@settings(deadline=None, max_examples=50)
@given(keys)
def test_uniform_numbers_are_multiples_of_two_to_minus_53_in_0_1(key):
    values = Draw(key).uniform(64)

    assert ((values >= 0) & (values < 1)).all()
    assert (values * 2.0**53 == np.rint(values * 2.0**53)).all()


@settings(deadline=None, max_examples=50)
@given(keys, st.integers(1, 2**32 - 1))
def test_integers_lie_below_their_limit(key, limit):
    values = Draw(key).integers(limit, 64)

    assert ((values >= 0) & (values < limit)).all()
    assert values.dtype == np.int64


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_integers_take_every_value_equally_often(limit):
    """Each count within 5 standard deviations of its mean."""
    count = 20_000
    found = np.bincount(Draw("integers").integers(limit, count), minlength=limit)

    assert len(found) == limit
    assert (np.abs(found - count / limit) <= 5 * math.sqrt(count / limit) * (limit > 1)).all()


def test_uniform_numbers_have_the_right_mean_and_deviation():
    values = Draw("uniform").uniform(100_000)

    assert abs(values.mean() - 0.5) < 5 * math.sqrt(1 / 12 / values.size)
    assert abs(values.std() - math.sqrt(1 / 12)) < 5 * math.sqrt((1 / 80 - 1 / 144) / (4 / 12) / values.size)


def test_normal_numbers_have_the_right_mean_and_deviation():
    """Within 5 standard errors, and so have their tails: 4.55 % beyond 2 sigma."""
    values = Draw("normal").normal(100_000)

    assert abs(values.mean()) < 5 / math.sqrt(values.size)
    assert abs(values.std() - 1) < 5 / math.sqrt(2 * values.size)
    beyond = 0.04550026
    assert abs((np.abs(values) > 2).mean() - beyond) < 5 * math.sqrt(beyond / values.size)


@settings(deadline=None, max_examples=30)
@given(keys)
def test_normal_numbers_stay_within_the_table(key):
    values = Draw(key).normal(8, 64)

    assert values.shape == (8, 64)
    assert (np.abs(values) <= _quantiles()[-1]).all()
    assert _quantiles()[-1] < 4.77


@pytest.mark.parametrize("line", [0, 1, 2, 100, 511, 512, 777, 1022, 1023, 1024])
def test_the_normal_quantiles_are_correctly_rounded(line):
    with mpmath.workdps(40):
        probability = (
            1 - mpmath.mpf(2) ** -20 if line == 1024 else mpmath.mpf(1) / 2 + mpmath.mpf(line) / 2048
        )
        exact = mpmath.sqrt(2) * mpmath.erfinv(2 * probability - 1)
        assert float(_quantiles()[line]) == float(exact)


def test_the_table_of_quantiles_is_complete_and_increasing():
    assert len(_quantiles()) == 1025
    assert (np.diff(_quantiles()) > 0).all()


@pytest.mark.parametrize("n", [1, 2, 3, 17, 130, 4096])
def test_boundaries_are_places_in_the_row_and_its_ends_are_among_them(n):
    places = boundaries(n)

    assert places == sorted(set(places))
    assert set(places) >= {0, n - 1, n // 2}
    assert all(0 <= place < n for place in places)
    assert set(places) >= {p for b in TILES for p in (b - 1, b, n - b) if 0 <= p < n}


@pytest.mark.parametrize("n", [1, 2, 17, 130])
def test_sparse_rows_have_a_finite_logit_and_finite_ones_at_boundaries_only(n):
    values = rows_of("sparse", 12, n)

    assert np.isfinite(values).any(axis=1).all()
    assert set(np.flatnonzero(np.isfinite(np.delete(values, np.s_[3::4], axis=0)).any(axis=0))) <= set(
        boundaries(n)
    )


def test_long_sparse_rows_have_an_entry_in_every_tile_of_1024():
    values = np.isfinite(rows_of("sparse", 4, 10_000))

    for row in (1, 3):
        assert {int(column) // 1024 for column in np.flatnonzero(values[row])} == set(range(10))


@pytest.mark.parametrize(("rows", "n"), [(8, 257), (8, 1025), (16, 130)])
def test_masked_tiles_lead_with_the_widest_tile_that_fits(rows, n):
    """A row of every kind meets the widest tile: 8 rows must be enough to find a kernel that guards
    narrow ones only.
    """
    leading = np.isneginf(rows_of("masked_tiles", rows, n))[0]
    widest = max(size for size in (16, 32, 64, 128, 1024) if size < n)

    assert leading[:widest].all()
    assert not leading[widest:].any()


@pytest.mark.parametrize("n", [2, 3, 17, 130, 1100])
def test_only_one_of_the_first_rows_of_masked_tiles_is_empty(n):
    empty = np.isneginf(rows_of("masked_tiles", 20, n)).all(axis=1)

    assert np.flatnonzero(empty).tolist() == [3]


@pytest.mark.parametrize("n", [2, 17, 130])
def test_rows_with_a_nan_a_plus_infinity_both_and_neither_stand_beside_each_other(n):
    values = rows_of("nan_and_infinity", 16, n)
    nan, infinite = np.isnan(values).any(axis=1), (values == np.inf).any(axis=1)

    assert nan.any()
    assert infinite.any()
    assert np.isfinite(values[3::8]).all()
    assert (values[7::8] == np.inf).all()


@pytest.mark.parametrize("format", [f for f in FORMATS.values() if f.bits > 8], ids=lambda f: f.name)
def test_sentinels_are_finite_and_no_row_is_all_lowest_finite(format):
    values = rows_of("sentinels", 16, 33, format)

    assert np.isfinite(values).all()
    assert not (values == -format.largest).all(axis=1).any()


def test_underflow_and_saturation_rows_have_one_entry_ahead():
    for name in ("underflow_edge", "saturation_edge"):
        values = rows_of(name, 16, 33)
        assert ((values == values.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_overflow_rows_lie_on_both_sides_of_where_exp_overflows(name):
    """In each format: the largest logit on either side of ln Omega, in rows of the family."""
    edge = get_format(name).ln_omega
    largest = rows_of("overflow_edge", 16, 33, get_format("float64")).max(axis=1)
    nearby = largest[np.abs(largest / edge - 1) < 0.01]

    assert (nearby < edge).any()
    assert (nearby > edge).any()


def test_very_negative_rows_are_rows_of_zeros_without_a_shift():
    values = rows_of("very_negative", 16, 130)

    assert (values < -80).all()
    assert (values.min(axis=1) < -40_000).any()


@pytest.mark.parametrize("n", [33, 257, 1100])
def test_the_maximum_stands_at_every_boundary_and_first_and_last_in_every_batch(n):
    values = rows_of("maximum_at_boundaries", 40, n)

    assert set(values.argmax(axis=1)) == set(boundaries(n))
    assert values[:2].argmax(axis=1).tolist() == [n - 1, 0]
    assert (np.partition(values, n - 2, axis=1)[:, n - 2] < 5).all()


@pytest.mark.parametrize("family", ["masked_tiles", "masked_tiles_far_below"])
def test_leading_and_trailing_tiles_of_every_width_occur(family):
    empty = np.isneginf(rows_of(family, 40, 1100))
    leading = {int(row.argmin()) for row in empty if row[0] and not row.all()}
    trailing = {int(row[::-1].argmin()) for row in empty if row[-1] and not row.all()}

    assert leading == trailing == set(TILES)


def test_masked_tiles_far_below_hold_no_logit_that_a_maximum_started_at_minus_10000_would_survive():
    values = rows_of("masked_tiles_far_below", 16, 33)
    finite = values[np.isfinite(values)]

    assert (finite < -100).all()
    assert (values[::3].max(axis=1) < -10_000).all()
    assert np.isfinite(values).any(axis=1).all()


def test_mixed_rows_hold_every_kind_beside_ordinary_rows():
    values = rows_of("mixed_rows", 17, 33)

    assert (np.abs(values[::2]) < 10).all()
    assert np.isneginf(values[3]).all()
    assert np.isnan(values[7]).sum() == 1
    assert np.isposinf(values[11]).sum() == 1
    assert values[5].max() < -20_000
    assert values[9].min() > 20_000
    assert np.abs(values[1]).max() > 5000
    assert np.abs(values[13]).max() < 2.0**-16


def test_alternating_rows_have_the_larger_magnitude_below_zero():
    values = rows_of("alternating", 16, 33)

    assert (values[:, :-1] * values[:, 1:] < 0).all()
    assert (-values.min(axis=1) > values.max(axis=1)).all()


@pytest.mark.parametrize("name", ["float64", "float32", "bfloat16", "float16"])
def test_exact_offsets_keep_their_gaps_and_stay_where_the_base_2_form_does_not_overflow(name):
    format = get_format(name)
    values = rows_of("exact_offset", 8, 130, format)
    top = 2.0 ** (format.emax - 1)
    steps = (values[4] - top) / format.ulp(top)

    assert np.array_equal(np.unique(steps), np.arange(24))
    assert np.array_equal(np.unique(values[0]), np.arange(128.0, 152.0))
    if format.emax > 15:
        assert (np.abs(values) * 1.4427 <= format.largest).all()


@pytest.mark.parametrize(("name", "row"), [("float64", 3), ("float32", 2), ("bfloat16", 1), ("float16", 0)])
def test_tiny_logits_are_subnormal_numbers_and_zeros_of_both_signs(name, row):
    format = get_format(name)
    values = rows_of("tiny_logits", 8, 130, format)

    for chosen in values[[row, row + 4]] if row else values[[row]]:
        assert (np.abs(chosen) < format.smallest_normal).all()
        assert len(np.unique(np.abs(chosen))) > 20
    assert (values[4] == 0).all()
    if name != "float64":
        assert {bool(sign) for sign in np.signbit(values[4])} == {True, False}


@pytest.mark.parametrize(("name", "row"), [("float64", 3), ("float32", 2), ("bfloat16", 1), ("float16", 0)])
def test_subnormal_results_are_subnormal_in_every_binade(name, row):
    """By log2 of the exact results: at least 90 % of the binades between the smallest subnormal and
    the smallest normal.
    """
    format = get_format(name)
    for values in rows_of("subnormal_results", 8, 1000, get_format("float64"))[[row, row + 4]]:
        with mpmath.workdps(30):
            total = mpmath.fsum(mpmath.exp(mpmath.mpf(v)) for v in values)
            exponents = [int(mpmath.floor(mpmath.log(mpmath.exp(mpmath.mpf(v)) / total, 2))) for v in values]
        wanted = set(range(format.emin - format.precision + 1, format.emin))
        assert len(wanted & set(exponents)) >= 0.9 * len(wanted)


def test_geometric_gaps_are_powers_of_two():
    values = rows_of("geometric_gaps", 4, 130, get_format("float64"))

    assert np.abs(np.exp2(np.rint(values[0] / math.log(2))) / np.exp(values[0]) - 1).max() < 1e-13
    assert (values <= 0).all()
    assert len(np.unique(values[0])) == 120


def test_near_ties_fall_together_when_scores_are_rounded():
    """At 2^10 bfloat16 keeps fewer than the distinct logits of a row, and their gaps are far above
    the bound.
    """
    values = rows_of("near_ties", 6, 130, get_format("float64"))
    for row, name in ((0, "bfloat16"), (2, "float16"), (4, "float32")):
        rounded = get_format(name).round(values[row])
        assert len(np.unique(rounded)) < len(np.unique(values[row]))
        assert np.abs(rounded - values[row]).max() > 2.0**-6


@pytest.mark.parametrize(("name", "first"), [("bfloat16", 0), ("float16", 1)])
def test_midpoint_results_lie_just_beside_a_midpoint(name, first):
    """Largest probability by 30 digits: nearer to the midpoint than 2^-15 of itself, and further
    than the bound of 2^-20.
    """
    format = get_format(name)
    for row in rows_of("midpoint_results", 16, 33)[first::2]:
        finite = row[np.isfinite(row)]
        with mpmath.workdps(30):
            largest = 1 / mpmath.fsum(mpmath.exp(mpmath.mpf(v)) for v in finite)
            position = largest / mpmath.mpf(float(format.ulp(float(largest))))
            beside = abs(position - mpmath.floor(position) - mpmath.mpf(1) / 2) * largest / position / largest
        assert finite.max() == 0
        assert 2.0**-20 < beside < 2.0**-15


def test_log_near_zero_has_a_logsumexp_or_a_largest_log_probability_next_to_zero():
    values = rows_of("log_near_zero", 24, 130)
    with mpmath.workdps(40):
        lse = [mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(v)) for v in row)) for row in values]
    kinds = [[abs(lse[row]) for row in range(kind, 24, 3)] for kind in range(3)]

    assert max(kinds[0]) < 0.01
    assert min(kinds[1]) < 1e-15
    assert max(abs(values[row].max() - lse[row]) for row in range(13, 24, 3)) < 1e-4
    assert max(kinds[2]) < 1e-6


@pytest.mark.parametrize(
    ("name", "torch_name"), [("float16", "float16"), ("bfloat16", "bfloat16"), ("float32", "float16")]
)
def test_every_16_bit_value_is_every_number_of_the_format_in_order(name, torch_name):
    values = rows_of("every_16_bit_value", format=get_format(name))
    patterns = (
        torch.arange(2**16, dtype=torch.int32)
        .to(torch.int16)
        .view(getattr(torch, torch_name))
        .double()
        .numpy()
    )

    assert np.array_equal(values[:, 0], patterns, equal_nan=True)
    assert (values[:, 1] == 0).all()


def shifted(x, m):
    e = torch.exp(x - m)
    return e / e.sum(-1, keepdim=True)


def maximum_of_bits_read_as_integers(x):
    """As an integer atomicMax takes it: the wrong way round where every logit is negative."""
    bits = torch.where(x == -torch.inf, torch.iinfo(torch.int32).min, x.view(torch.int32))
    return shifted(x, bits.amax(-1, keepdim=True).view(torch.float32))


def maximum_skips_lane_15(x):
    m = torch.cat([x[:, :15], x[:, 16:]], -1).amax(-1, keepdim=True)
    return shifted(x, torch.where(x[:, 15:16] == torch.inf, torch.inf, m))


def maximum_of_an_empty_tile_is_zero(x):
    m, total = torch.full((len(x), 1), -torch.inf), torch.zeros(len(x), 1)
    for tile in torch.split(x, 16, -1):
        own = tile.amax(-1, keepdim=True)
        own = torch.where(own == -torch.inf, 0.0, own)
        new = torch.maximum(m, own)
        total = total * torch.exp(m - new) + torch.exp(tile - new).sum(-1, keepdim=True)
        m = new
    return torch.where((x == -torch.inf).all(-1, keepdim=True), torch.nan, torch.exp(x - m) / total)


def zeros_with_a_sign_are_masked(x):
    return torch.softmax(torch.where((x == 0) & torch.signbit(x), -torch.inf, x), -1)


def integer_and_fraction_of_the_exponent_rounded_apart(x):
    y = (x - x.amax(-1, keepdim=True)).double() / math.log(2)
    e = torch.exp2(torch.floor(y + 1e-7)) * torch.exp2((y - torch.floor(y)).nan_to_num(0))
    return (e / e.sum(-1, keepdim=True)).float()


def two_to_minus_17_too_small(x):
    return (torch.softmax(x.float(), -1) * (1 - 2.0**-17)).bfloat16()


def shift_folded_into_a_fused_multiply_add(x):
    c = float(torch.tensor(1 / math.log(2)))
    e = torch.exp2((x.double() * c - (x.amax(-1, keepdim=True) * c).double()).float())
    p = e / e.sum(-1, keepdim=True)
    # Its overflow alone: it also loses accuracy at any offset.
    return torch.where(p.isnan(), p, torch.softmax(x, -1))


def wrong_for_one_number(x):
    return torch.where(x[:, :1] == 0.0999755859375, 0.5, torch.softmax(x, -1))


@pytest.mark.parametrize(
    ("family", "dtype", "fault"),
    [
        ("known_bugs", "float32", maximum_of_bits_read_as_integers),
        ("maximum_at_boundaries", "float32", maximum_skips_lane_15),
        ("masked_tiles_far_below", "float32", maximum_of_an_empty_tile_is_zero),
        ("tiny_logits", "float32", zeros_with_a_sign_are_masked),
        ("geometric_gaps", "float32", integer_and_fraction_of_the_exponent_rounded_apart),
        ("midpoint_results", "bfloat16", two_to_minus_17_too_small),
        ("exact_offset", "float32", shift_folded_into_a_fused_multiply_add),
        ("every_16_bit_value", "float16", wrong_for_one_number),
    ],
)
def test_a_family_finds_a_fault_that_the_older_families_miss(family, dtype, fault):
    """No family differs from another in its name only."""
    format, oracle = get_format(dtype), Oracle()
    old = ("normal", "normal_small", "normal_large", "overflow_edge", "underflow_edge", "saturation_edge")
    old += (
        "very_negative",
        "offset",
        "ties",
        "sparse",
        "two_heavy_ends",
        "ramps",
        "masked_tiles",
        "sentinels",
        "nan_and_infinity",
    )
    finds = {}
    for name in (*old, family):
        x = to_torch(rows_of(name, 64 if name == "known_bugs" else 16, 33, format), format)
        finds[name] = not judge("softmax", x, fault(x), oracle=oracle).passed

    assert [name for name, found in finds.items() if found] == [family]
