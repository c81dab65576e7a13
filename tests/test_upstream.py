"""inputs/upstream.py: each kind is what it says, numbers of the format, and the same bits for ever."""

import hashlib

import numpy as np
import pytest

from suite.case import Case
from suite.formats import DTYPES, FORMATS, get_format
from suite.inputs.draws import Draw
from suite.inputs.upstream import UPSTREAMS, build

FLOAT32 = get_format("float32")


def built(kind, shape=(4, 9), along=-1, dtype="float32", seed=0):
    return build(kind, shape, along, get_format(dtype), Draw(f"test|{seed}"))


def digest(values):
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=8).hexdigest()


DIGESTS = {
    "ones": ("7bb7ede385472a1a", "7bb7ede385472a1a"),
    "one_hot": ("a290104733a0affc", "a290104733a0affc"),
    "normal": ("2abd9c7c8013c18d", "9c3de3c6d5d533e5"),
    "huge": ("5b59e4b2b42b5364", "acb84198c4d4c829"),
    "tiny": ("ae44c81d3b6c9605", "aff2c8dca9d274cc"),
    "constant": ("1ea7b5543bc5acff", "21cf8885b2aaf962"),
}


@pytest.mark.parametrize("kind", UPSTREAMS)
def test_the_bits_are_the_same_in_every_version(kind):
    """Records of different machines and versions are compared by them."""
    assert (digest(built(kind)), digest(built(kind, dtype="bfloat16"))) == DIGESTS[kind]


def test_there_is_a_digest_of_every_kind():
    assert set(DIGESTS) == set(UPSTREAMS)
    # Ones and one_hot are exact.
    assert len({one for pair in DIGESTS.values() for one in pair}) == 2 * len(UPSTREAMS) - 2


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", UPSTREAMS)
def test_every_value_is_a_finite_number_of_the_format_and_not_all_are_0(kind, dtype):
    for shape, along in (((3, 5), -1), ((3, 5), 0), ((2, 3, 4), 1), ((7,), 0), ((), -1), ((4, 1), -1)):
        values = built(kind, shape, along, dtype)
        assert values.shape == shape
        assert np.isfinite(values).all()
        assert get_format(dtype).contains(values).all()
        assert values.any()


def test_ones_are_1():
    assert (built("ones") == 1).all()
    assert built("ones", ()) == 1


@pytest.mark.parametrize(("shape", "along"), [((6, 9), -1), ((6, 9), 0), ((2, 3, 4), 1), ((7,), 0)])
def test_one_hot_has_one_1_a_row_at_no_fixed_place(shape, along):
    values = built("one_hot", shape, along)

    assert set(np.unique(values)) <= {0.0, 1.0}
    assert (values.sum(axis=along) == 1).all()
    places = {tuple(np.argwhere(built("one_hot", shape, along, seed=seed) == 1).ravel()) for seed in range(8)}
    assert len(places) > 1


def test_one_hot_of_a_single_entry_is_1():
    assert built("one_hot", ()) == 1


@pytest.mark.parametrize(("shape", "along"), [((6, 9), -1), ((6, 9), 0), ((2, 3, 4), 1), ((7,), 0)])
def test_constant_is_one_number_a_row_and_another_in_the_next(shape, along):
    values = built("constant", shape, along)

    assert (values == np.take(values, [0], axis=along)).all()
    assert len(np.unique(values)) == values.size // shape[along]
    assert 1.0 not in values


def test_normal_is_of_both_signs_and_order_1():
    values = built("normal", (100, 100))

    assert abs(values.mean()) < 4 / 100  # four standard errors
    assert abs(values.std() - 1) < 4 / 100 / 2**0.5
    assert len(np.unique(values)) > 9000


@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_and_tiny_are_the_same_draw_far_up_and_far_down(dtype):
    format = get_format(dtype)
    normal, huge, tiny = (built(kind, (20, 20), dtype=dtype) for kind in ("normal", "huge", "tiny"))

    assert np.array_equal(huge, normal * 2.0 ** (format.emax * 3 // 4))
    # Twice it, which a law asks for, and a sum of it are numbers too.
    assert np.abs(huge).max() < format.largest / 4
    assert np.abs(tiny).max() < 8 * 2.0 ** (format.emin * 3 // 4)
    assert np.count_nonzero(tiny) > 0.99 * tiny.size


def test_another_draw_gives_other_numbers():
    for kind in set(UPSTREAMS) - {"ones"}:
        assert not np.array_equal(built(kind, seed=1), built(kind, seed=2)), kind


def test_an_unknown_kind_is_answered_with_the_valid_ones():
    message = (
        "unknown kind of upstream 'gaussian'; expected one of ones, one_hot, normal, huge, tiny, constant"
    )
    with pytest.raises(ValueError, match=message):
        built("gaussian")


# In a case


@pytest.mark.parametrize(
    ("case", "shape"),
    [
        (Case(op="softmax", family="normal", shape=(4, 9), upstream="normal"), (4, 9)),
        (
            Case(op="softmax", family="normal", shape=(2, 3, 9), options={"dim": 1}, upstream="constant"),
            (2, 3, 9),
        ),
        (Case(op="logsumexp", family="normal", shape=(4, 9), upstream="normal"), (4,)),
        (
            Case(op="logsumexp", family="normal", shape=(2, 3, 9), options={"dim": 1}, upstream="one_hot"),
            (2, 9),
        ),
        (Case(op="cross_entropy", family="normal", shape=(4, 9), upstream="normal"), ()),
        (
            Case(
                op="cross_entropy",
                family="normal",
                shape=(4, 9),
                options={"reduction": "none"},
                upstream="huge",
            ),
            (4,),
        ),
        (
            Case(
                op="cross_entropy",
                family="normal",
                shape=(2, 5, 3),
                options={"reduction": "none"},
                upstream="ones",
            ),
            (2, 3),
        ),
        (Case(op="attention", family="normal", shape=(1, 2, 3, 4), upstream="normal"), (1, 2, 3, 4)),
    ],
)
def test_the_upstream_of_a_case_has_the_outputs_shape_and_leaves_the_other_inputs_as_they_are(case, shape):
    forward = Case.from_id(case.id.replace(f"/upstream={case.upstream}", ""))
    inputs, others = case.inputs(FLOAT32), forward.inputs(FLOAT32)

    assert inputs.pop("upstream").shape == shape
    assert (case.shapes()["upstream"], case.direction, forward.direction) == (shape, "backward", "forward")
    assert inputs.keys() == others.keys()
    assert all(np.array_equal(inputs[name], others[name], equal_nan=True) for name in inputs)


def test_one_number_a_row_goes_along_the_dim_of_the_case():
    upstream = Case(
        op="softmax", family="normal", shape=(4, 9), options={"dim": 0}, upstream="constant"
    ).inputs(FLOAT32)["upstream"]

    assert (upstream == upstream[:1]).all()
    assert len(np.unique(upstream)) == 9


def test_attention_with_its_log_sum_exp_has_two_upstreams_of_different_numbers():
    case = Case(
        op="attention", family="normal", shape=(1, 2, 3, 4), options={"return_lse": True}, upstream="normal"
    )
    inputs = case.inputs(FLOAT32)

    assert (inputs["upstream"].shape, inputs["upstream_lse"].shape) == ((1, 2, 3, 4), (1, 2, 3))
    assert not set(inputs["upstream"].flat) & set(inputs["upstream_lse"].flat)
    assert list(inputs)[-2:] == ["upstream", "upstream_lse"]


def test_another_seed_family_or_shape_has_another_upstream():
    base = Case(op="softmax", family="normal", shape=(4, 9), upstream="normal")
    others = [
        Case(op="softmax", family="normal", shape=(4, 9), upstream="normal", seed=1),
        Case(op="softmax", family="ties", shape=(4, 9), upstream="normal"),
        Case(op="softmax", family="normal", shape=(9, 4), upstream="normal"),
    ]

    digests = [digest(case.inputs(FLOAT32)["upstream"]) for case in (base, *others)]
    assert len(set(digests)) == 4
    assert digest(base.inputs(FLOAT32)["upstream"]) == digests[0]
