"""measure/depth.py: gradients through depth, rank collapse, Lipschitz constant, vanishing; and
faults that must show.
"""

import itertools

import numpy as np
import pytest
import torch

from suite.formats import DTYPES, bfloat16, float16, float32, float64, get_format
from suite.inputs.draws import Draw
from suite.studies import depth
from suite.studies.modules.attention_softmax import AttentionSoftmax
from suite.studies.modules.transformer_stack import TransformerStack
from suite.tensors import to_float64, to_torch

FORMATS = [get_format(name) for name in DTYPES]

PUBLISHED = {
    "attention": (1, 0.68, 0.015, 1.4e-7, 2e-16),
    "LayerNorm after": (1, 0.57, 0.18, 6.4e-3, 7.8e-7, 1.5e-16),
}
"""An earlier measurement with other draws, 64 tokens of 64 features."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rank_collapses_as_measured_before_with_other_draws(name):
    """An earlier draw lies in the range of the draws here, up to an order of magnitude on both
    sides: three are few.
    """
    found = depth.rank_collapse(name, [float64], draws=3)["float64"]

    for before, low, high in zip(PUBLISHED[name], found["smallest"], found["largest"], strict=False):
        assert low / 10 < before < high * 10


def test_skip_connections_stop_the_collapse():
    smallest = depth.rank_collapse("residual", [float64], draws=3)["float64"]["smallest"]

    assert smallest[-1] > 0.01  # 0.18 after 11 layers in an earlier measurement


def test_a_collapse_ends_in_each_format_at_its_own_rounding_or_at_zero():
    """The mean of equal rows is off by a few roundings u of the format; attention of equal tokens
    gives equal tokens.
    """
    found = depth.rank_collapse("attention", FORMATS, draws=2)

    for f in FORMATS:
        assert found[f.name]["largest"][-1] < 64 * f.unit_roundoff  # a sum of 64 terms in the format
    assert found["float64"]["median"][1] == pytest.approx(found["float32"]["median"][1], rel=1e-5)


def test_the_exact_residual_is_cubed_from_layer_to_layer():
    logs = depth.exact_residuals(5)

    assert all(2.9 < after / before < 3.5 for before, after in itertools.pairwise(logs[1:]))  # Dong et al.: 3
    assert logs[-1] < -60  # far below the smallest relative number of float64, 2^-53


def test_relative_residual_of_known_matrices():
    assert depth.relative_residual(np.ones((4, 3))) == 0
    assert depth.relative_residual(np.array([[1.0, 0.0], [-1.0, 0.0]])) == 1
    assert np.isnan(depth.relative_residual(np.array([[1.0, np.inf]])))


# The Lipschitz constant.


def test_the_jacobian_has_a_norm_of_at_most_one_half_and_reaches_it():
    """In a format the entries have relative errors of a few u: of p, of the product and of the
    difference, 4u together.
    """
    found = depth.lipschitz(FORMATS)

    for f in FORMATS:
        norms = found[f.name]["infinity"] + found[f.name]["two"]
        assert max(norms) <= 0.5 * (1 + 4 * f.unit_roundoff) + 1e-15  # and the SVD's own rounding
        assert max(found[f.name]["infinity"]) > 0.499
        assert found[f.name]["two"][0] > 0.499


def test_a_softmax_with_a_wrong_jacobian_shows(monkeypatch):
    right = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda x, dim: right(2 * x, dim))

    assert max(depth.lipschitz([float64])["float64"]["infinity"]) > 0.99


def test_autograds_jacobian_is_that_of_the_formula():
    x = Draw("jacobian").normal(5, 4)
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    expected = p[:, :, None] * (np.eye(4) - p[:, None, :])

    # Entries below 1/4, few u.
    np.testing.assert_allclose(depth.softmax_jacobian(x, float64), expected, rtol=0, atol=1e-15)


# Gradients through depth.


@pytest.mark.parametrize("name", depth.STACKS)
def test_float64_agrees_with_the_exact_gradient_at_small_depth(name):
    """Two layers of 8 features: about 100 roundings on the longest path, u = 1.1e-16, slopes of order 1."""
    assert depth.exact_error(name) < 1e-12


def test_a_stack_without_its_residual_disagrees_with_the_exact_gradient(monkeypatch):
    def without_last_residual(self, x):
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1]) - found[-1])
        return found

    monkeypatch.setattr(TransformerStack, "states", without_last_residual)

    assert depth.exact_error("residual, LayerNorm before") > 0.1


def test_gains_are_ratios_of_norms_by_depth_and_by_layer():
    found = depth.gradients_through("residual, LayerNorm before", [float64, float32], depths=(1, 4))

    for f in (float64, float32):
        data = found[f.name]
        assert data["depths"] == [1, 4]
        # The same gradient, summed in another order.
        assert data["gain"][1] == pytest.approx(data["layers"][0], rel=1e-5)
        assert len(data["layers"]) == len(data["query"]) == 4
        assert data["overflow"] is None
    assert found["float64"]["error"] == [0, 0]
    assert 0 < max(found["float32"]["error"]) < 1e-5  # four layers of sums of 64 terms, u = 6e-8


def test_without_layer_norm_a_residual_stream_grows_beyond_float16():
    """It grows by about the square root of 2 a layer at least: 65504 is left behind before layer 64."""
    found = depth.gradients_through("residual", [float16], depths=(1, 32))["float16"]

    assert found["overflow"] is not None
    assert found["gain"][0] == pytest.approx(1, rel=0.5)
    assert found["gain"][1] is None
    assert found["error"][1] is None


def test_scores_that_tie_after_rounding_are_no_longer_one_hot():
    """Without LayerNorm tokens grow and become alike: float64 still tells them apart, bfloat16 does not."""
    found = depth.gradients_through("residual", [bfloat16, float64], depths=(48,))

    assert found["float64"]["one_hot"] == 1
    assert found["bfloat16"]["one_hot"] < 0.9
    assert (
        found["bfloat16"]["gain"][0] is None
        or found["bfloat16"]["gain"][0] > 1e3 * found["float64"]["gain"][0]
    )


def test_tokens_that_are_the_same_leave_no_gradient_for_the_query():
    query = depth.gradients_through("attention", [float64], depths=(8,))["float64"]["query"]

    assert query[0] > 0.01
    assert query[-1] < 1e-12  # rounding


def test_weights_and_inputs_are_numbers_of_every_format():
    values = depth.common(Draw("common").normal(1000) * np.logspace(-8, 3, 1000))

    assert all(f.holds(values) for f in FORMATS)
    stack = depth.with_common_weights(lambda: TransformerStack(1, 8, 2), "common")
    before = [to_float64(p) for p in stack.parameters()]
    for f in FORMATS:
        depth.in_format(stack, f)
    after = [to_float64(p) for p in depth.in_format(stack, float64).parameters()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


# Softmax behind attention.


def test_zeros_of_plain_softmax_are_those_of_the_formula():
    """At scale 64 an entry of float32 is 0 exactly where p is 0 or the largest p is 1: 1 - sum p <
    2^-24, thresholds.md.
    """
    [_, shape, dim] = depth.CONTENDERS["softmax"]
    data = depth.vanishing("softmax", [float32], scales=(64.0,))["float32"]
    x = 64 * depth.common(Draw("vanishing: input").normal(*shape))
    p = to_float64(torch.softmax(to_torch(x, float32), dim))

    assert data["saturated"] == [float(np.mean((p == 1).any(axis=dim)))]
    # 1% for products that underflow.
    assert data["zeros"][0] == pytest.approx(float(np.mean((p == 0) | (p == 1))), abs=0.01)
    assert 0 < data["false_zeros"][0] < data["zeros"][0]
    assert data["dead"][0] <= data["lost"][0]


def test_attention_in_front_of_softmax_loses_more_gradients_on_the_same_logits():
    plain, behind = (
        depth.vanishing(name, [float16, float32], scales=(16.0,)) for name in ("softmax", "attention_softmax")
    )

    for dtype in ("float16", "float32"):
        assert behind[dtype]["zeros"] > plain[dtype]["zeros"]
        assert behind[dtype]["lost"] > plain[dtype]["lost"]
    assert behind["float32"]["order_below_zero"] == [1.0]
    assert plain["float32"]["order_below_zero"] == [0.0]


def test_a_gradient_that_is_cut_shows_in_every_count(monkeypatch):
    monkeypatch.setattr(AttentionSoftmax, "forward", lambda self, x: torch.softmax(x.detach() + 0 * x, -2))
    counts = depth.vanishing("attention_softmax", [float64], scales=(1.0,))["float64"]

    assert [counts[quantity] for quantity in ("zeros", "false_zeros", "dead", "lost")] == [[1.0]] * 4


def test_false_zeros_count_normal_numbers_only():
    got, expected = np.array([0.0, 0.0, 0.0, 1.0]), np.array([2.0**-14, 2.0**-15, 0.0, 1.0])

    assert depth.false_zeros(got, expected, float16) == 0.25


# The measurement.


def test_smoke_measures_nothing_and_an_unknown_format_is_named():
    assert list(depth.measure("smoke")) == []
    with pytest.raises(ValueError, match="float7"):
        list(depth.measure(dtypes=["float7"]))
    with pytest.raises(ValueError, match="profile='fast' is not one of smoke, quick, standard, full"):
        list(depth.measure("fast"))
