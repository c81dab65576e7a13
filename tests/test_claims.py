"""Published results: the registry, and each measurement judged by wrong variants that it must tell
from the right ones.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from suite.commands.main import cli
from suite.formats import bfloat16, float16
from suite.studies import claims
from suite.studies.claims import (
    Claim,
    Finding,
    NotRunHereError,
    flash_attention_4,
    issues,
    math_libraries,
    milakov_gimelshein,
    monotone_exp,
    nair,
    qiu_yao,
    summation,
    thresholds,
)
from suite.studies.claims import blanchard_higham_higham as bhh

# Emulated arithmetic on seeded inputs: the same everywhere. What the installed libraries do is not
# tested here.
EVERYWHERE = {
    "bhh-overflow": "reproduced",
    "bhh-softmax-error-float16": "reproduced",
    "bhh-softmax-error-bfloat16": "reproduced",
    "bhh-row-sums": "reproduced",
    "bhh-theorems": "reproduced",
    "bhh-theorems-4.2-4.4-two-entries": "differs",
    "fa4-mufu-ex2": "not run here",
    "cuda-expf-intrinsic": "not run here",
    "sum-stagnation": "reproduced",
    "sqrt-rule-equal-float16": "differs",
    "sqrt-rule-normal-float32": "reproduced",
    "softmax-lipschitz-half": "reproduced",
    "rank-collapse-cubic": "reproduced",
    "rank-collapse-skip": "reproduced",
    "rank-collapse-query-gradients": "reproduced",
    "bfloat16-addition-example": "reproduced",
    "executorch-20090": "reproduced",
}


def outcome_of(name):
    return claims.check(claims.all_claims()[name]).outcome


def claim_of(measure, **changes):
    fields = {
        "name": "n",
        "source": "s",
        "stated": "t",
        "published": None,
        "criterion": "c",
        "seconds": 0.0,
        **changes,
    }
    return Claim(measure=measure, **fields)


# The registry


def test_every_claim_says_where_it_is_from_and_how_it_is_decided():
    known = claims.all_claims()

    assert len(known) >= 30
    assert [c.name for c in known.values() if not (c.source and c.stated and c.criterion)] == []


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_claim_about_arithmetic_has_the_same_outcome_on_every_machine(name):
    assert outcome_of(name) == EVERYWHERE[name]


def test_an_unknown_claim_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match=r"'mnist'.*bhh-overflow"):
        claims.select(["mnist"])


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="exists already"):
        claims.claim(name="bhh-overflow", source="", published=None, criterion="", seconds=0)(
            thresholds.stagnation
        )


def test_a_claim_without_a_statement_is_refused():
    with pytest.raises(ValueError, match="docstring"):
        claims.claim(name="new", source="", published=None, criterion="", seconds=0)(
            lambda: Finding(measured="", agrees=True)
        )


@pytest.mark.parametrize(
    ("agrees", "outcome"), [(True, "reproduced"), (False, "differs"), (None, "undecided")]
)
def test_the_outcome_follows_the_finding(agrees, outcome):
    assert claims.check(claim_of(lambda: Finding(measured="1", agrees=agrees))).outcome == outcome


def test_what_cannot_run_here_says_why():
    def measure():
        raise NotRunHereError("needs a slide rule")

    result = claims.check(claim_of(measure))

    assert (result.outcome, result.note) == ("not run here", "needs a slide rule")


@pytest.mark.parametrize(
    ("seconds", "exhaustive", "points"), [(60, True, None), (60, False, 7), (None, True, 7)]
)
def test_exhaustive_means_all_points_where_there_is_a_sample(seconds, exhaustive, points):
    measured = claim_of(
        lambda points=7: Finding(measured=str(points), agrees=True), exhaustive_seconds=seconds
    )

    assert claims.check(measured, exhaustive=exhaustive).measured == str(points)


@pytest.mark.parametrize(
    ("measured", "published", "same"),
    [
        (8.769e-5, "8.77e-5", True),
        (8.7649e-5, "8.77e-5", False),
        (0.50164, "0.502", True),
        (0.5014, "0.502", False),
    ],
)
def test_numbers_are_compared_in_the_printed_digits(measured, published, same):
    assert claims.same_digits(measured, published) is same


def test_the_table_is_aligned_and_a_bar_ends_no_cell():
    results = [
        claims.check(claim_of(lambda: Finding(measured="1" * 9, agrees=True), published=p))
        for p in ("|x|", "2")
    ]

    lines = claims.table(results).splitlines()[:4]

    assert len({len(line) for line in lines}) == 1
    assert {line.replace(r"\|", "").count("|") for line in lines} == {6}


# Blanchard, Higham and Higham


def test_a_shifted_algorithm_without_its_shift_is_seen_to_overflow(monkeypatch):
    monkeypatch.setattr(bhh, "shifted", bhh.unshifted)

    assert outcome_of("bhh-overflow") == "differs"


@pytest.mark.parametrize("exchanged", [(0, 1), (2, 3), (0, 2)])
def test_another_order_of_the_algorithms_differs(exchanged):
    errors = [np.array([e]) for e in (5.0, 10.0, 1.0, 8.0)]
    first, second = exchanged
    errors[first], errors[second] = errors[second], errors[first]

    assert not bhh.ordering(float16, errors).agrees


def test_a_sum_without_its_last_term_breaks_the_theorems(monkeypatch):
    right = bhh._sum
    monkeypatch.setattr(bhh, "_sum", lambda terms, f: right(terms[:, :-1], f))

    assert outcome_of("bhh-theorems") == "differs"


def test_with_the_missing_rounding_term_the_two_bounds_hold():
    coded, repaired = bhh.offset_ratios()

    assert np.all(coded > 100)
    assert np.all((repaired > 0.1) & (repaired < 1))


def test_emulated_softmax_in_a_wide_format_is_softmax():
    x = bhh.vectors(float16)[:50]
    wide = dataclasses.replace(bfloat16, precision=50)

    assert max(error.max() for error in bhh.softmax_errors(x, wide)) < 64


# FlashAttention-4


@pytest.mark.parametrize("degree", [3, 4, 5])
def test_the_published_errors_come_from_the_published_coefficients(degree):
    published = {3: ("8.77e-5", "3.90e-3"), 4: ("3.05e-6", "3.89e-3"), 5: ("1.44e-7", "3.89e-3")}[degree]
    coefficients = flash_attention_4.COEFFICIENTS[degree]
    perturbed = (1.0, coefficients[1] * (1 + 1e-4), *coefficients[2:])

    assert flash_attention_4.measure_polynomial(coefficients, published, points=2**19).agrees
    assert not flash_attention_4.measure_polynomial(perturbed, published, points=2**19).agrees


# exp and log


def correctly_rounded(name):
    return lambda x: getattr(np, name)(x.astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize("name", math_libraries.DOMAINS)
def test_correct_rounding_is_half_an_ulp(name):
    worst = math_libraries.largest_ulp(correctly_rounded(name), name, points=2**16)

    # The double rounding through float64 adds at most a few 2^-29 of an ulp.
    assert 0.49 < worst.ulp < 0.5 + 1e-7
    assert worst.count >= 2**16


def test_one_wrong_result_among_many_is_seen_and_located():
    def wrong(x):
        y = correctly_rounded("exp")(x)
        return np.where((x == x[10]) & (x > 0), y + 2 * np.spacing(y), y)

    worst = math_libraries.largest_ulp(wrong, "exp", points=2**12)

    assert 1.5 <= worst.ulp <= 2.5
    assert np.float32(worst.at) == worst.at


def test_a_nan_is_an_infinite_error():
    worst = math_libraries.largest_ulp(lambda x: np.where(x < 0, np.nan, x), "exp", points=2**10)

    assert worst.ulp == np.inf


def test_a_domain_is_covered_without_gaps_when_all_points_are_asked():
    start = 0x3F800000
    domain = math_libraries.Domain(ranges=((start, start + 2**20 + 4),), dense=((start, start + 9),))

    numbers = np.concatenate(list(domain.numbers(None)))

    assert np.array_equal(numbers.view(np.uint32), np.arange(start, start + 2**20 + 5))
    assert sum(map(len, domain.numbers(2**10))) == pytest.approx(2**10 + 10, abs=2)


@pytest.mark.parametrize(
    ("ulp", "complete", "decision"), [(2.4, False, None), (2.6, False, False), (2.4, True, False)]
)
def test_a_sample_decides_only_what_a_lower_bound_can(ulp, complete, decision):
    worst = math_libraries.Worst(ulp, 1.0, 10, complete)

    assert worst.decide(False, "2.52") is decision
    assert worst.decide(True, "2.52") is True


@pytest.mark.parametrize(("ulp", "agrees"), [(1.0, False), (1.01, True), (1.5, True), (1.51, False)])
def test_a_table_in_half_ulps_rounds_up(ulp, agrees):
    assert math_libraries.rounds_up_to(ulp, "1.5") is agrees


def test_a_missing_c_library_is_not_run(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(math_libraries.ctypes, "CDLL", absent)

    assert outcome_of("glibc-expf") == "not run here"


# Order


def test_an_exp_that_falls_once_is_counted_once():
    x = monotone_exp.consecutive()[:1000]
    fallen = np.arange(1000.0)
    fallen[500] = 498.5

    assert monotone_exp.inversions(lambda x: fallen, x) == 1
    assert monotone_exp.inversions(correctly_rounded("exp"), x) == 0


def test_consecutive_numbers_are_all_numbers_of_the_interval():
    x = monotone_exp.consecutive()

    assert (x[0], x[-1], len(x)) == (-0.5, -0.25, 2**23 + 1)
    assert np.all(np.diff(x) > 0)


def test_rows_out_of_order_are_counted():
    def one_row_out_of_order(rows):
        y = np.sort(rows, axis=1)
        y[7, [3, 4]] = y[7, [4, 3]]
        return y

    assert monotone_exp.rows_with_an_inversion(one_row_out_of_order) == 1


# Milakov and Gimelshein


def test_a_normaliser_of_unshifted_exponentials_leaves_its_range(monkeypatch):
    with np.errstate(over="ignore"):
        monkeypatch.setattr(milakov_gimelshein, "running_normalisers", lambda x: np.exp(x).cumsum(axis=1))

        assert outcome_of("online-normaliser-range") == "differs"


def test_the_online_normaliser_ends_in_the_sum_of_exponentials():
    x = np.array([[1.0, 3.0, 2.0, 3.0]])

    assert milakov_gimelshein.running_normalisers(x)[0, -1] == pytest.approx(np.exp(x - 3).sum(), rel=1e-6)


# Thresholds


def test_a_softmax_of_doubled_gaps_saturates_and_underflows_elsewhere(monkeypatch):
    right = thresholds.torch_softmax
    monkeypatch.setattr(thresholds, "torch_softmax", lambda f, gaps, terms: right(f, gaps * 2, terms))

    assert outcome_of("softmax-saturation") == "differs"
    assert outcome_of("softmax-underflow") == "differs"


def test_the_first_gap_is_a_number_of_the_format():
    gap = thresholds.first_gap(lambda g: g > 6.24, bfloat16, low=0, high=8, step=2.0**-6)

    assert gap == 6.25


def test_a_sum_in_the_format_counts_until_it_stagnates():
    assert [thresholds.sum_of_ones(n, bfloat16) for n in (255, 256, 300)] == [255, 256, 256]


# The others


def test_a_sum_without_rounding_errors_has_none():
    assert summation.sequential_error(np.ones(2048), float16) == 0
    assert summation.sequential_error(np.ones(4096), float16) == 1024


def test_a_jacobian_of_the_wrong_sign_breaks_the_lipschitz_constant(monkeypatch):
    def wrong(p):
        jacobian = p[:, :, None] * (np.eye(p.shape[1]) + p[:, None, :])
        return np.abs(jacobian).sum(axis=2).max(axis=1), np.linalg.norm(jacobian, 2, axis=(1, 2))

    monkeypatch.setattr(nair, "jacobian_norms", wrong)

    assert outcome_of("softmax-lipschitz-half") == "differs"


def test_truncation_instead_of_rounding_differs_from_the_example(monkeypatch):
    class Truncating:
        def round(self, value):
            return -4.6875  # the bfloat16 next to it, towards zero

    monkeypatch.setattr(qiu_yao, "bfloat16", Truncating())

    assert outcome_of("bfloat16-addition-example") == "differs"


def test_the_old_log_softmax_is_recognised(monkeypatch):
    right = torch.log_softmax
    monkeypatch.setattr(torch, "log_softmax", lambda x, dim: x - torch.logsumexp(x, dim, keepdim=True))
    assert outcome_of("pytorch-38839") == "reproduced"

    monkeypatch.setattr(torch, "log_softmax", lambda x, dim: right(x.double(), dim).float())
    assert outcome_of("pytorch-38839") == "differs"


def test_leaving_the_largest_term_out_keeps_the_logarithm_near_0():
    assert issues.without_the_largest_term(np.array([0.0, -200.0])) == pytest.approx(
        [-np.exp(-200), -200], rel=1e-15
    )


# The command


def invoke(*arguments):
    result = CliRunner().invoke(cli, ["claims", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_prints_every_claim(monkeypatch):
    quick = {
        name: dataclasses.replace(one, measure=lambda points=0: Finding(measured="1", agrees=True))
        for name, one in claims.all_claims().items()
    }
    monkeypatch.setattr(claims, "all_claims", lambda: quick)

    result = invoke()

    assert result.exit_code == 0
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("| ")][2:] == list(
        quick
    )
    assert [name for name in quick if f"* **{name}**: " not in result.stdout] == []


def test_a_claim_that_differs_is_no_failure_of_the_command(tmp_path):
    file = tmp_path / "claims.json"

    result = invoke(
        "--claim", "sqrt-rule-equal-float16", "--claim", "bfloat16-addition-example", "--json", file
    )

    assert result.exit_code == 0
    written = json.loads(file.read_text())
    assert [one["outcome"] for one in written["claims"]] == ["differs", "reproduced"]
    assert written["environment"]["cpu"] in result.stdout


def test_the_command_refuses_an_unknown_claim():
    result = invoke("--claim", "mnist")

    assert result.exit_code == 2
    assert "'mnist'" in result.stderr
    assert "bhh-overflow" in result.stderr
