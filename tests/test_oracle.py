"""The oracle: its radius is true in every tier, its cache is safe, its one assumption is measured."""

import concurrent.futures
import multiprocessing

import mpmath
import numpy as np
import pytest
import torch

from suite import inputs
from suite.case import Case
from suite.floating_point import keep_subnormals, subnormals_are_flushed, subnormals_kept
from suite.formats import FORMATS, float16, float32, float64
from suite.numerics import BEST_PRACTICE, CONTRACT
from suite.ops import get_op
from suite.ops.arithmetic import Mpmath
from suite.ops.rows import Rows
from suite.ops.special import Special
from suite.oracle import Oracle, cache, libm, tiers
from suite.oracle.certified import ASSUMED_ULP

ROW_OPS = ("softmax", "log_softmax", "logsumexp")
FAMILIES = [name for name, family in inputs.all_families().items() if family.fixed_shape is None]


def exact(op, x, bits=600):
    with Mpmath.precision(bits):
        return op.define(Mpmath(), Rows(x))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("name", ROW_OPS)
def test_the_radius_is_true(name, dtype, family):
    """|hi + lo - exact| <= radius, with exact from mpmath at 600 bits, for whatever tier was chosen."""
    op, format = get_op(name), FORMATS[dtype]
    x = inputs.build(family, 8, 9, format, 0)
    reference = Oracle().reference(op, {"x": x}, {"dim": -1}, format)
    ordinary = np.isfinite(x.max(axis=1))
    value = exact(op, x[ordinary])
    with mpmath.workprec(600):
        for hi, lo, radius, code, truth in zip(
            reference.hi[ordinary].flat,
            reference.lo[ordinary].flat,
            reference.radius[ordinary].flat,
            reference.special[ordinary].flat,
            value.flat,
            strict=True,
        ):
            if code == Special.FINITE:
                assert abs(mpmath.mpf(float(hi)) + mpmath.mpf(float(lo)) - truth) <= mpmath.mpf(float(radius))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ROW_OPS)
def test_the_radius_is_small_enough_to_decide(name, dtype):
    """2^-10 ulp of the output, or 2^-6 of the bound where a logarithm is near 0 or a result subnormal."""
    op, format = get_op(name), FORMATS[dtype]
    for family in FAMILIES:
        x = inputs.build(family, 8, 33, format, 0)
        reference = Oracle().reference(op, {"x": x}, {"dim": -1}, format)
        allowed = op.bound(reference.facts, BEST_PRACTICE, format).absolute
        assert tiers.sufficient(
            reference.hi, reference.radius, allowed, format, reference.special == Special.FINITE
        ).all()


def test_the_cheapest_sufficient_tier_is_used():
    op = get_op("log_softmax")
    ordinary = np.array([[0.0, 1.0, 2.0]])

    assert Oracle().reference(op, {"x": ordinary}, {"dim": -1}, float32).tier == "float64"
    assert Oracle().reference(op, {"x": ordinary}, {"dim": -1}, float64).tier == "arb"


def test_log_softmax_beside_zero_has_all_its_digits():
    """log_softmax([0, -200])[0] = -e^-200 = -1.38e-87, which cancels to 0 in double precision."""
    reference = Oracle().reference(
        get_op("log_softmax"), {"x": np.array([[0.0, -200.0]])}, {"dim": -1}, float64
    )

    assert reference.hi[0, 0] == pytest.approx(-1.3838965267367376e-87, rel=1e-14)


@pytest.mark.parametrize("name", ROW_OPS)
def test_arb_and_mpmath_tiers_agree(name):
    op = get_op(name)
    x = np.vstack(
        [
            inputs.build(family, 4, 17, float64, 1)
            for family in ("normal_large", "ramps", "sparse", "very_negative")
        ]
    )
    a, m = tiers.arb(op, Rows(x), 192), tiers.mpmath(op, Rows(x), 192)

    finite = op.special(Rows(x), CONTRACT) == Special.FINITE
    difference = np.abs((a[0] - m[0]) + (a[1] - m[1]))
    assert np.all((difference <= a[2] + m[2] + np.spacing(np.abs(a[1]))) | ~finite)


def test_mpmath_alone_is_enough(monkeypatch):
    """Without python-flint the verdict is the same, only slower."""
    op, x = get_op("softmax"), inputs.build("normal_large", 4, 17, float64, 0)
    with_flint = Oracle().reference(op, {"x": x}, {"dim": -1}, float64)
    monkeypatch.setattr(tiers, "certified_tier", lambda: "mpmath")
    without = Oracle().reference(op, {"x": x}, {"dim": -1}, float64)

    assert (with_flint.tier, without.tier) == ("arb", "mpmath")
    assert np.array_equal(with_flint.hi, without.hi)


@pytest.mark.parametrize("name", ROW_OPS)
def test_mpmath_alone_certifies_every_family(name, monkeypatch):
    monkeypatch.setattr(tiers, "certified_tier", lambda: "mpmath")
    op = get_op(name)
    for family in FAMILIES:
        x = inputs.build(family, 8, 5, float64, 0)
        reference = Oracle().reference(op, {"x": x}, {"dim": -1}, float64)
        allowed = op.bound(reference.facts, BEST_PRACTICE, float64).absolute
        assert tiers.sufficient(
            reference.hi, reference.radius, allowed, float64, reference.special == Special.FINITE
        ).all(), family


def test_exp_and_log_of_this_machine_are_as_accurate_as_the_float64_tier_assumes():
    measured = libm.measure(20_000)

    assert 0.5 <= measured.exp_ulp <= ASSUMED_ULP
    assert 0.5 <= measured.log_ulp <= ASSUMED_ULP


def test_an_inaccurate_libm_sends_every_row_to_the_certified_tier(monkeypatch):
    monkeypatch.setattr(libm, "accuracy", lambda: libm.Accuracy(5.0, 0.6, 10, "arb"))
    reference = Oracle().reference(get_op("softmax"), {"x": np.array([[0.0, 1.0]])}, {"dim": -1}, float16)

    assert reference.tier == "arb"


def test_a_flushing_thread_does_not_reach_the_reference():
    """With flush-to-zero on, the float64 tier would give 0 for results below 2^-1022; the oracle
    switches it off and back.
    """
    x = np.array([[0.0, -715.0]])
    torch.set_flush_denormal(True)
    try:
        assert subnormals_are_flushed()
        reference = Oracle().reference(get_op("softmax"), {"x": x}, {"dim": -1}, float32)
        assert subnormals_are_flushed()
    finally:
        torch.set_flush_denormal(False)
    assert 0 < reference.hi[0, 1] < 2.0**-1022
    with subnormals_kept():
        assert not subnormals_are_flushed()
    assert keep_subnormals() is False


def _reference_in_a_process(folder, seed):
    x = inputs.build("normal_large", 4, 33, float64, seed)
    return Oracle(folder).reference(get_op("softmax"), {"x": x}, {"dim": -1}, float64).hi.tobytes()


@pytest.mark.filterwarnings(
    "ignore:os.fork:RuntimeWarning"
)  # JAX warns where an earlier test imported it; no child uses it
def test_the_disk_cache_is_safe_under_parallel_use(tmp_path):
    """Four processes ask for the same two references at once; all get the same bits and no file is
    left half written.
    """
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        futures = [pool.submit(_reference_in_a_process, tmp_path, seed) for seed in (0, 1) * 6]
        results = [future.result() for future in futures]

    assert len(set(results)) == 2
    assert len(list(tmp_path.glob("*/*.npz"))) == 2
    assert not list(tmp_path.rglob(".part-*"))


def test_a_torn_cache_file_is_computed_again(tmp_path):
    oracle, x = Oracle(tmp_path), np.array([[0.0, 1.0, 2.0]])
    first = oracle.reference(get_op("softmax"), {"x": x}, {"dim": -1}, float64)
    (path,) = tmp_path.glob("*/*.npz")
    content = path.read_bytes()
    for torn in (b"", content[: len(content) // 2], b"not a zip"):
        path.write_bytes(torn)
        again = Oracle(tmp_path).reference(get_op("softmax"), {"x": x}, {"dim": -1}, float64)
        assert np.array_equal(first.hi, again.hi)
        assert path.read_bytes() == content


def test_the_disk_cache_is_read(tmp_path, monkeypatch):
    x = np.array([[0.0, 1.0, 2.0]])
    Oracle(tmp_path).reference(get_op("softmax"), {"x": x}, {"dim": -1}, float64)
    monkeypatch.setattr(tiers, "certified", lambda *arguments: pytest.fail("computed instead of read"))

    assert Oracle(tmp_path).reference(get_op("softmax"), {"x": x}, {"dim": -1}, float64).tier == "arb"


def test_an_unwritable_cache_costs_time_and_not_truth(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    reference = Oracle(blocked).reference(
        get_op("softmax"), {"x": np.array([[0.0, 1.0]])}, {"dim": -1}, float64
    )

    assert reference.tier == "arb"


def test_the_cache_is_kept_below_its_limit(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.npz").write_bytes(bytes(1000))
    cache.trim(tmp_path, limit_bytes=2500)

    assert len(list(tmp_path.glob("*/*.npz"))) == 2


def test_references_in_memory_are_shared_and_bounded():
    oracle, op = Oracle(remembered=2), get_op("softmax")
    x = [np.array([[0.0, float(i)]]) for i in range(3)]
    first = oracle.reference(op, {"x": x[0]}, {"dim": -1}, float32)

    assert oracle.reference(op, {"x": x[0].copy()}, {"dim": -1}, float32) is first
    for other in x[1:]:
        oracle.reference(op, {"x": other}, {"dim": -1}, float32)
    assert oracle.reference(op, {"x": x[0]}, {"dim": -1}, float32) is not first


def test_an_audit_finds_a_float64_reference_that_is_wrong_beyond_its_radius(monkeypatch):
    """Two rows of attention are compared with balls: one in the middle, and that of the largest radius."""
    case = Case.from_id("attention/normal/1x1x9x8/keys=33/s0")
    inputs, options = case.inputs(float32), case.resolved_options()
    honest = tiers.float64
    Oracle().reference(get_op("attention"), inputs, options, float32)

    def wrong(*arguments):
        hi, radius = honest(*arguments)
        return hi + 4 * radius, radius

    monkeypatch.setattr(tiers, "float64", wrong)
    with pytest.raises(
        ArithmeticError, match=r"attention: the float64 reference of row \d+, column \d+ is .* but balls have"
    ):
        Oracle().reference(get_op("attention"), inputs, options, float32)
