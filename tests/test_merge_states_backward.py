"""Backward of merge_states: the definition against finite differences, kernels' gradients within
the bound, mutants.
"""

import math

import mpmath
import numpy as np
import pytest
import torch

from suite.formats import get_format
from suite.inputs.states import FAMILIES
from suite.kernels.merge_states.merge import merge as own_merge
from suite.kernels.merge_states.merge_base_two import merge_base_two
from suite.numerics import BEST_PRACTICE
from suite.ops.arithmetic import Arb, Mpmath
from suite.ops.merge_states import LOG_SUM_EXP, OP
from suite.ops.merge_states.backward import backward
from suite.ops.special import Special
from suite.oracle import Oracle
from suite.tensors import to_float64, to_numpy
from suite.verdict.judge import judge_values
from tests.test_merge_states import DTYPES, base_two, merge, tensors_of

ORACLE = Oracle(remembered=400)
NAMES = ("o_a", "lse_a", "o_b", "lse_b")
BACKWARD = backward(NAMES)
INF = math.inf

SEEN = tuple(name for name in FAMILIES if name not in ("both_empty", "huge"))
"""Families of which autograd has gradients: log(0) gives NaN to two states of -inf, and dO.o
overflows beside values of 1e38 and more.
"""


def with_upstream(tensors, *, seed=3, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    made = {
        name: (
            (scale * torch.randn(tensors[like].shape, generator=generator, dtype=torch.float64)).to(
                tensors[like].dtype
            )
        )
        for name, like in (("upstream", "o_a"), ("upstream_lse", "lse_a"))
    }
    return {**tensors, **made}


def by_autograd(kernel, tensors):
    leaves = [tensors[name].detach().requires_grad_() for name in NAMES]
    return torch.autograd.grad(kernel(*leaves), leaves, [tensors["upstream"], tensors["upstream_lse"]])


def judged(tensors, gradients):
    """Name -> judgement of its gradient."""
    format = get_format(str(tensors["o_a"].dtype).removeprefix("torch."))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    references = ORACLE.references(
        BACKWARD, {name: to_numpy(tensor) for name, tensor in tensors.items()}, {}, format
    )
    return {
        part.wrt: judge_values(
            part,
            reference,
            to_float64(one),
            shapes,
            {},
            part.output_format(format),
            BEST_PRACTICE,
            statistics=False,
        )
        for part, reference, one in zip(BACKWARD.outputs({}), references, gradients, strict=True)
    }


# the definition

STEP = 2.0**-30


def scalar(inputs):
    """sum dO o + sum dlse lse by the forward's definition, in mpmath; of the pairs that are something."""
    problem = OP.problem(inputs, {})
    rows = np.flatnonzero(problem.ordinary)
    chosen = problem.take(rows)
    upstream, upstream_lse = (
        inputs["upstream"].reshape(len(problem.x), -1)[rows],
        inputs["upstream_lse"].reshape(-1, 1)[rows],
    )
    terms = Mpmath().lift(upstream) * OP.define(Mpmath(), chosen)
    return mpmath.fsum(
        [
            *terms.reshape(-1),
            *(Mpmath().lift(upstream_lse) * LOG_SUM_EXP.define(Mpmath(), chosen)).reshape(-1),
        ]
    )


def on_a_grid():
    tensors = with_upstream(tensors_of("alike", "float64", shape=(4, 2)))
    arrays = {name: np.round(tensor.numpy() * 1024) / 1024 for name, tensor in tensors.items()}
    arrays["lse_a"][1] = arrays["lse_b"][2] = -INF
    arrays["lse_a"][3] = arrays["lse_b"][3] = -INF
    return arrays


def test_the_definition_is_the_derivative_of_the_forward():
    arrays = on_a_grid()
    with mpmath.workprec(240):
        for part in BACKWARD.outputs({}):
            problem = part.problem(arrays, {})
            found = np.full(arrays[part.wrt].shape, mpmath.mpf(0), dtype=object).reshape(4, -1)
            rows = np.flatnonzero(problem.ordinary)
            found[rows] = part.define(Mpmath(), problem.take(rows))
            found = found.reshape(arrays[part.wrt].shape)
            for index in np.ndindex(*found.shape):
                if arrays[part.wrt][index] == -INF:
                    assert found[index] == 0
                    continue
                ends = []
                for step in (STEP, -STEP):
                    moved = arrays[part.wrt].copy()
                    moved[index] += step
                    ends.append(scalar({**arrays, part.wrt: moved}))
                assert abs((ends[0] - ends[1]) / (2 * mpmath.mpf(STEP)) - found[index]) < 1e-13, (
                    part.wrt,
                    index,
                )


@pytest.mark.parametrize("family", ["alike", "far_apart", "one_empty"])
def test_the_radius_of_the_reference_holds(family):
    arrays = {name: to_numpy(tensor) for name, tensor in with_upstream(tensors_of(family, "float32")).items()}
    for part, reference in zip(
        BACKWARD.outputs({}), Oracle().references(BACKWARD, arrays, {}, get_format("float32")), strict=True
    ):
        with Arb.precision(300):
            exact = part.define(Arb(), reference.problem)
            for index in np.ndindex(*exact.shape):
                off = abs(float(exact[index].mid()) - reference.hi[index] - reference.lo[index])
                assert off <= reference.radius[index]


def test_a_state_that_saw_nothing_has_a_gradient_of_exactly_0():
    for family in ("one_empty", "both_empty"):
        tensors = with_upstream(tensors_of(family, "float32"))
        arrays = {name: to_numpy(tensor) for name, tensor in tensors.items()}
        for part, reference in zip(
            BACKWARD.outputs({}), ORACLE.references(BACKWARD, arrays, {}, get_format("float32")), strict=True
        ):
            empty = (arrays[f"lse_{part.wrt[-1]}"] == -INF).reshape(-1)
            allowed = part.bound(reference.facts, BEST_PRACTICE, get_format("float32")).absolute
            assert empty.any()
            assert not reference.hi[empty].any()
            assert not reference.radius[empty].any()
            assert not allowed[empty].any()
            assert not reference.special.any()


def test_a_pair_that_is_not_finite_is_not_judged():
    tensors = with_upstream(tensors_of("alike", "float32", shape=(5, 2)))
    tensors["o_a"][0, 1], tensors["lse_b"][1], tensors["upstream"][2, 0], tensors["upstream_lse"][3] = (
        torch.nan,
        INF,
        INF,
        torch.nan,
    )
    arrays = {name: to_numpy(tensor) for name, tensor in tensors.items()}
    for reference in ORACLE.references(BACKWARD, arrays, {}, get_format("float32")):
        assert [bool((row == Special.ANYTHING).all()) for row in reference.special] == [
            True,
            True,
            True,
            True,
            False,
        ]


# kernels


@pytest.mark.parametrize("family", SEEN)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_honest_kernels_pass(family, dtype):
    for seed, scale in ((0, 1.0), (1, 2.0**8), (2, 2.0**-12)):
        tensors = with_upstream(tensors_of(family, dtype, seed=seed), seed=seed, scale=scale)
        for kernel in (own_merge, merge_base_two, merge, base_two):
            for name, found in judged(tensors, by_autograd(kernel, tensors)).items():
                assert found.passed, (kernel.__name__, name, found.message)
                assert found.judged == 1.0


def formula(tensors, *, spoil=""):
    """The gradients by the formula, in the arithmetic, with one fault."""
    o_a, lse_a, o_b, lse_b = (tensors[name].to(tensors["lse_a"].dtype) for name in NAMES)
    d_o, d_lse = tensors["upstream"].to(o_a.dtype), tensors["upstream_lse"][..., None]
    lse_a, lse_b = lse_a[..., None], lse_b[..., None]
    m = torch.maximum(lse_a, lse_b)
    m = torch.where(m == -INF, 0.0, m)
    lse = m + torch.log(torch.exp(lse_a - m) + torch.exp(lse_b - m))
    seen = lse > -INF
    lse = torch.where(seen, lse, 0.0)
    if spoil == "lse in bfloat16":
        lse = lse.bfloat16().to(lse.dtype)
    p_a, p_b = torch.exp(lse_a - lse), torch.exp(lse_b - lse)
    if spoil == "weights not normalised":
        p_a, p_b = torch.exp(lse_a - m), torch.exp(lse_b - m)
    if spoil == "weights swapped":
        p_a, p_b = p_b, p_a
    if spoil == "upstream ignored":
        d_o = torch.ones_like(d_o)
    if spoil == "dlse ignored":
        d_lse = torch.zeros_like(d_lse)
    o = p_a * o_a + p_b * o_b
    if spoil == "o in bfloat16":
        o = o.bfloat16().to(o.dtype)
    d_a, d_b = (
        (d_o * (x - (0 if spoil == "o not subtracted" else o))).sum(-1, keepdim=True) + d_lse
        for x in (o_a, o_b)
    )
    if spoil == "NaN for two empty states":
        d_a = torch.where(seen, d_a, torch.nan)
    if spoil == "one gradient for both":
        d_b = d_a
    if spoil == "1 % more":
        d_a = 1.01 * d_a
    found = (p_a * d_o, (p_a * d_a)[..., 0], p_b * d_o, (p_b * d_b)[..., 0])
    return [gradient.to(tensors[name].dtype) for name, gradient in zip(NAMES, found, strict=True)]


@pytest.mark.parametrize("family", [*SEEN, "both_empty"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_formula_passes(family, dtype):
    tensors = with_upstream(tensors_of(family, dtype))
    assert all(found.passed for found in judged(tensors, formula(tensors)).values())


@pytest.mark.parametrize("spoil", [
    "lse in bfloat16", "weights not normalised", "weights swapped", "upstream ignored", "dlse ignored",
    "o in bfloat16", "o not subtracted", "NaN for two empty states", "one gradient for both", "1 % more",
])  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
def test_faults_are_refused(spoil, dtype):
    tensors = [with_upstream(tensors_of(family, dtype)) for family in ("alike", "both_empty", "large")]
    assert any(not found.passed for t in tensors for found in judged(t, formula(t, spoil=spoil)).values())


def test_autograd_gives_two_empty_states_a_gradient_of_nan():
    """As log(0) in every formula does that autograd goes through unguarded: found, and not allowed."""
    tensors = with_upstream(tensors_of("both_empty", "float32"))
    assert judged(tensors, by_autograd(merge, tensors))["lse_a"].status == "nonfinite"


def test_shapes_and_names_are_checked():
    shapes = {name: (2, 3) if name.startswith("o") else (2,) for name in NAMES}
    with pytest.raises(ValueError, match="upstream has shape"):
        BACKWARD.resolve_options({}, {**shapes, "upstream": (2, 4)})
    with pytest.raises(ValueError, match="must name some of o_a, lse_a, o_b, lse_b"):
        backward(("o",))
