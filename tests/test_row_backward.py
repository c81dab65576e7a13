"""Backward of the row-wise ops: the definitions against differences of the forward ones, the bounds
against honest kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from suite.formats import float64, get_format
from suite.inputs import rounded, upstream
from suite.inputs.draws import Draw
from suite.inputs.targets import indices, probabilities
from suite.inputs.upstream import UPSTREAMS
from suite.numerics import BEST_PRACTICE, CONTRACT, Numerics
from suite.ops import UPSTREAM, get_op, row_ops
from suite.ops.arithmetic import Arb, Float64, Mpmath
from suite.ops.special import Special
from suite.oracle import Oracle
from suite.tensors import to_float64, to_torch
from suite.verdict.judge import judge, judge_values
from suite.verdict.judgement import JudgementError
from tests.honest.losses import LOSSES

ORACLE = Oracle()
INF, NAN = np.inf, np.nan


def backward_of(op, inputs):
    return get_op(op).of(inputs)


# Honest kernels. Each takes the logits and the upstream of rows, in the arithmetic's dtype, and
# gives the gradient in it; `stored` rounds to the tensors' own format, as a tensor that is saved
# between forward and backward is.

Tensor = torch.Tensor
Kernel = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]
HONEST: dict[str, dict[str, tuple[Kernel, Numerics]]] = {op: {} for op in row_ops()}


def honest(*ops, numerics=BEST_PRACTICE):
    def register(kernel):
        for op in ops:
            HONEST[op][kernel.__name__] = (kernel, numerics)
        return kernel

    return register


def top(x):
    return x.amax(-1, keepdim=True)


def total(values):
    return values.sum(-1, keepdim=True)


def one_by_one(values):
    """The sum in order, each addition rounded."""
    return values.cumsum(-1)[..., -1:]


def by_division(x):
    e = torch.exp(x - top(x))
    return e / total(e)


def by_reciprocal(x):
    e = torch.exp(x - top(x))
    return e * (1 / total(e))


def in_base_two(x):
    e = torch.exp2((x - top(x)) * 1.4426950408889634)
    return e / total(e)


def in_one_pass(x):
    """Maximum and sum one entry at a time (Milakov and Gimelshein, arXiv 1805.02867), then the weights."""
    m, d = x[:, :1], (x[:, :1] > -torch.inf).to(x.dtype)
    for column in x.split(1, -1)[1:]:
        larger = torch.maximum(m, column)
        safe = larger.masked_fill(larger == -torch.inf, 0.0)
        m, d = larger, d * torch.exp(m - safe) + torch.exp(column - safe)
    return torch.exp(x - m) / d


def from_log_sum_exp(x):
    """exp(x - lse), lse kept in the format of the arithmetic."""
    m = top(x)
    return torch.exp(x - (m + torch.log(total(torch.exp(x - m)))))


def from_result(x):
    """exp of log_softmax, kept in the format of the arithmetic."""
    z = x - top(x)
    return torch.exp(z - torch.log(total(torch.exp(z))))


WEIGHTS = (by_division, by_reciprocal, in_base_two, in_one_pass)


def softmax_difference(p, g):
    return p * (g - total(p * g))


def softmax_two_products(p, g):
    return p * g - p * total(p * g)


def softmax_in_order(p, g):
    return p * (g - one_by_one(p * g))


for _weights in WEIGHTS:
    for _form in (softmax_difference, softmax_two_products, softmax_in_order):

        def _kernel(x, g, stored, weights=_weights, form=_form):
            return form(weights(x), g)

        _kernel.__name__ = f"{_form.__name__}_{_weights.__name__}"
        honest("softmax")(_kernel)


@honest("softmax")
def weights_saved_in_the_tensors_format(x, g, stored):
    return softmax_difference(stored(by_division(x)), g)


@honest("softmax")
def weights_saved_for_the_sum_only(x, g, stored):
    p = by_division(x)
    return p * (g - total(stored(p) * g))


@honest("softmax")
def weights_saved_outside_of_the_sum_only(x, g, stored):
    p = by_division(x)
    return stored(p) * (g - total(p * g))


@honest("softmax")
def products_saved_in_the_tensors_format(x, g, stored):
    """D = rowsum(dO * O) from the stored output."""
    p = by_division(x)
    return p * (g - total(g * stored(p)))


@honest("softmax")
def divided_last(x, g, stored):
    e = torch.exp(x - top(x))
    s = total(e)
    return e * (g - total(e * g) / s) / s


@honest("softmax", numerics=Numerics(shift="lse"))
def softmax_from_log_sum_exp(x, g, stored):
    return softmax_difference(from_log_sum_exp(x), g)


for _weights in (*WEIGHTS, from_result):
    for _sum in (total, one_by_one):

        def _kernel(x, g, stored, weights=_weights, sum=_sum):
            return g - weights(x) * sum(g)

        _kernel.__name__ = f"log_softmax_{_sum.__name__}_{_weights.__name__}"
        honest("log_softmax")(_kernel)

for _weights in (*WEIGHTS, from_log_sum_exp, from_result):

    def _kernel(x, g, stored, weights=_weights):
        return g * weights(x)

    _kernel.__name__ = f"logsumexp_{_weights.__name__}"
    honest("logsumexp")(_kernel)


@honest("logsumexp")
def logsumexp_divided_last(x, g, stored):
    e = torch.exp(x - top(x))
    return e * (g / total(e))


# Autograd of compositions


def autograd(forward):
    def kernel(x, g, stored):
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(forward(leaf), leaf, g)[0]

    kernel.__name__ = f"autograd_of_{forward.__name__}"
    return kernel


def softmax_by_maximum(x):
    e = torch.exp(x - top(x))
    return e / total(e)


def softmax_by_detached_maximum(x):
    e = torch.exp(x - top(x).detach())
    return e / total(e)


def softmax_by_first_maximum(x):
    """max() sends its gradient to one of the largest, amax() a share to each."""
    e = torch.exp(x - x.max(-1, keepdim=True).values)
    return e * (1 / total(e))


def softmax_in_blocks(x):
    """A maximum for each block of 16, then one for the row; none of them detached."""
    parts = [(top(b), b) for b in x.split(16, -1)]
    m = functools.reduce(torch.maximum, [m for m, _ in parts])
    seen = [(m_b.masked_fill(m_b == -torch.inf, 0.0), b) for m_b, b in parts]
    s = sum(total(torch.exp(b - m_b)) * torch.exp(m_b - m) for m_b, b in seen)
    return torch.cat([torch.exp(b - m) / s for _, b in seen], -1)


def torchs_softmax(x):
    return torch.softmax(x, -1)


for _forward in (
    softmax_by_maximum,
    softmax_by_detached_maximum,
    softmax_by_first_maximum,
    softmax_in_blocks,
    torchs_softmax,
):
    honest("softmax")(autograd(_forward))


def log_softmax_by_maximum(x):
    z = x - top(x)
    return z - torch.log(total(torch.exp(z)))


def log_softmax_by_detached_maximum(x):
    z = x - top(x).detach()
    return z - torch.log(total(torch.exp(z)))


def torchs_log_softmax(x):
    return torch.log_softmax(x, -1)


for _forward in (log_softmax_by_maximum, log_softmax_by_detached_maximum, torchs_log_softmax):
    honest("log_softmax")(autograd(_forward))


def logsumexp_by_maximum(x):
    m = top(x)
    return m + torch.log(total(torch.exp(x - m)))


def logsumexp_by_detached_maximum(x):
    m = top(x).detach()
    return m + torch.log(total(torch.exp(x - m)))


def torchs_logsumexp(x):
    return torch.logsumexp(x, -1, keepdim=True)


for _forward in (logsumexp_by_maximum, logsumexp_by_detached_maximum, torchs_logsumexp):
    honest("logsumexp")(autograd(_forward))


# Rows


def _minus_infinity(draw, rows, n):
    x = np.where(draw.uniform(rows, n) < 0.4, -INF, 3 * draw.normal(rows, n))
    x[np.arange(rows), draw.integers(n, rows)] = draw.normal(rows)
    return x


def _one_ahead(draw, rows, n):
    x = 0.01 * draw.normal(rows, n)
    x[np.arange(rows), draw.integers(n, rows)] = 30 * draw.uniform(rows)
    return x


ROWS = {
    "normal": lambda draw, rows, n: draw.normal(rows, n),
    "confident": lambda draw, rows, n: 12 * draw.normal(rows, n),
    "gaps": lambda draw, rows, n: -110 * draw.uniform(rows, n),
    "ties": lambda draw, rows, n: draw.integers(3, rows, n).astype(np.float64),
    "equal": lambda draw, rows, n: np.broadcast_to(draw.normal(rows, 1), (rows, n)),
    "offset": lambda draw, rows, n: 1e4 * (2 * draw.uniform(rows, 1) - 1) + 4 * draw.normal(rows, n),
    "ramp": lambda draw, rows, n: np.linspace(0, 1, n) * (220 * draw.uniform(rows, 1) - 110),
    "one_ahead": _one_ahead,
    "minus_infinity": _minus_infinity,
}  # fmt: skip
"""Kinds of rows: (draw, rows, n) -> [rows, n]."""


def _nearly_constant(draw, rows, n, format):
    """Neighbours of one number: what is left of the gradient is a few roundings of it."""
    return draw.normal(rows, 1) * (1 + 4 * format.unit_roundoff * draw.normal(rows, n))


def _alternating(draw, rows, n, format):
    return np.where(np.arange(n) % 2, 1.0, -1.0) * (1 + 0.1 * draw.uniform(rows, n))


def _scattered(draw, rows, n, format):
    """Magnitudes over all of a 16-bit format."""
    return draw.normal(rows, n) * 2.0 ** np.rint(12 * (2 * draw.uniform(rows, n) - 1))


ADVERSARIAL = {kind.__name__: kind for kind in (_nearly_constant, _alternating, _scattered)}
KINDS = (*UPSTREAMS, *ADVERSARIAL)


def upstream_rows(kind, rows, n, format, draw):
    if kind in UPSTREAMS:
        return upstream.build(kind, (rows, n), -1, format, draw)
    return rounded(ADVERSARIAL[kind](draw, rows, n, format), format)


def measured(op, name, x, g, format):
    """The judgement of an honest kernel on float64 rows x [rows, n] and upstream g [rows, n], or
    [rows, 1] of a sum.
    """
    kernel, numerics = HONEST[op][name]
    inputs = {"x": x, UPSTREAM: g[:, 0] if op == "logsumexp" else g}
    backward = backward_of(op, inputs)
    reference = ORACLE.reference(backward, inputs, {"dim": -1}, format)
    dtype = torch.float64 if format.name == "float64" else torch.float32
    own = getattr(torch, format.name)
    upstreams = to_torch(g, format).to(dtype)
    found = kernel(to_torch(x, format).to(dtype), upstreams, lambda tensor: tensor.to(own).to(dtype)).to(own)
    shapes = {name: values.shape for name, values in inputs.items()}
    return judge_values(
        backward, reference, to_float64(found), shapes, {"dim": -1}, format, numerics, statistics=False
    )


# The definitions

STEP = 2.0**-40
CENTRAL = 1e-21
"""h^2/6 times a third derivative, which at temperature 1/2 is at most 8 * 6 times the sum of the
|upstream|.
"""
ASSUMED = Numerics(exp_ulp=4, log_ulp=4)
FAR = -3000.0
"""Stands for -inf in a difference: e^-2900 is nothing at 22 digits."""

SETTINGS = [
    ("softmax", {"dim": -1}),
    ("softmax", {"dim": 0}),
    ("softmax", {"temperature": 0.5}),
    ("softmax", {"off_by_one": True}),
    ("softmax", {"off_by_one": True, "temperature": 2.0, "dim": 0}),
    ("log_softmax", {"dim": -1}),
    ("log_softmax", {"dim": 0}),
    ("logsumexp", {"dim": -1}),
    ("logsumexp", {"dim": 0}),
    *(
        ("cross_entropy", {"reduction": reduction, "label_smoothing": smoothing, "target": target})
        for reduction in ("mean", "sum", "none")
        for smoothing in (0.0, 0.25, 1.0)
        for target in ("indices", "probabilities")
    ),
]


def small(op, options, kind, *, hidden=False, seed=0):
    """(inputs, options) of two rows or three of a few classes, multiples of 2^-10; with some -inf
    where they are hidden.
    """
    draw = Draw(f"small|{op}|{options}|{kind}|{hidden}|{seed}")
    x = np.rint(1024 * 3 * draw.normal(3, 4)) / 1024
    if hidden:
        x[0, 1] = x[2, 3] = -INF
    options = dict(options)
    inputs = {get_op(op).arguments[0]: x}
    if op == "cross_entropy":
        chosen = np.array([0, -100, 2])
        weights = np.array([[0.5, 0, 0.25, 0.25], [1.0, 0, 0, 0], [0.75, 0.5, 0.25, 0.0]])
        inputs["target"] = weights if options.pop("target") == "probabilities" else chosen
    options = get_op(op).resolve_options(options, {name: values.shape for name, values in inputs.items()})
    shape = get_op(op).output_shape({name: values.shape for name, values in inputs.items()}, options)
    along = options["dim"] if op in ("softmax", "log_softmax") else -1
    return {**inputs, UPSTREAM: upstream.build(kind, shape, along, get_format("float32"), draw)}, options


def weighted_output(op, inputs, options):
    """sum of upstream * output over all entries, of rows that are kept, by the forward definition."""
    forward = get_op(op)
    problem = forward.problem({name: values for name, values in inputs.items() if name != UPSTREAM}, options)
    rows = forward.define(Mpmath(), problem)
    g = np.asarray(inputs[UPSTREAM])
    if op == "cross_entropy":
        g = np.broadcast_to(g.reshape(-1, 1), rows.shape) * problem.kept[:, None]
        return (Mpmath().lift(g) * rows).sum() / (problem.divisor or 1)
    return (Mpmath().lift(forward.output_rows(g, problem, options)) * rows).sum()


def differences(op, inputs, options):
    """Central differences of weighted_output() by each logit, in the logits' shape; with FAR in
    place of -inf.
    """
    name = get_op(op).arguments[0]
    x = np.where(inputs[name] == -INF, FAR, inputs[name])
    found = np.empty(x.shape, dtype=object)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += STEP
        down[index] -= STEP
        above, below = (weighted_output(op, {**inputs, name: moved}, options) for moved in (up, down))
        found[index] = (above - below) / (2 * mpmath.mpf(STEP))
    return found


def gradient(op, inputs, options, arithmetic):
    """The backward definition's value in the logits' shape; an ignored row is 0."""
    backward = backward_of(op, inputs)
    problem = backward.problem(inputs, options)
    value = backward.define(arithmetic, problem)
    value[~problem.ordinary] = arithmetic.number(0.0)
    x = inputs[get_op(op).arguments[0]]
    axis = backward.axis(options, x.shape)
    others = x.shape[:axis] + x.shape[axis + 1 :]
    return np.moveaxis(value.reshape(*others, x.shape[axis]), -1, axis)


@pytest.mark.parametrize(
    ("number", "hidden"),
    [(number, False) for number in range(len(SETTINGS))]
    + [(number, True) for number, (_, options) in enumerate(SETTINGS) if not options.get("label_smoothing")],
)
def test_the_definition_is_the_derivative_of_the_forward_one(number, hidden):
    """To 21 digits of the upstream, of every kind in turn; a logit of -inf, one without weight in a
    loss, is the limit of ever smaller ones.
    """
    op, options = SETTINGS[number]
    for kind in ("normal", list(UPSTREAMS)[number % len(UPSTREAMS)]):
        inputs, resolved = small(op, options, kind, hidden=hidden)
        if op == "cross_entropy" and hidden and inputs["target"].ndim > 1:
            inputs["target"] = np.where(inputs["logits"] == -INF, 0.0, inputs["target"])
        with Mpmath.precision(240):
            expected = differences(op, inputs, resolved)
            found = gradient(op, inputs, resolved, Mpmath())
            scale = float(np.abs(inputs[UPSTREAM]).sum())
            worst = max(abs(a - b) for a, b in zip(expected.flat, found.flat, strict=True))
        assert worst <= CENTRAL * scale, (kind, float(worst / scale))


def test_the_difference_sees_a_definition_that_is_not_the_derivative(monkeypatch):
    """The check itself: a sum of the wrong terms, and a count that is forgotten."""
    inputs, options = small("log_softmax", {"dim": -1}, "normal")
    with Mpmath.precision(240):
        expected = differences("log_softmax", inputs, options)
        of_softmax = gradient("softmax", inputs, {**get_op("softmax").options, **options}, Mpmath())
        right = gradient("log_softmax", inputs, options, Mpmath())
    scale = float(np.abs(inputs[UPSTREAM]).sum())

    assert max(abs(a - b) for a, b in zip(expected.flat, right.flat, strict=True)) <= CENTRAL * scale
    assert max(abs(a - b) for a, b in zip(expected.flat, of_softmax.flat, strict=True)) > 1e-3 * scale


ROW = st.lists(st.one_of(st.floats(-800, 800), st.just(-INF)), min_size=1, max_size=9).filter(
    lambda r: max(r) > -INF
)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@settings(max_examples=15, deadline=None)
@given(
    row=ROW,
    kind=st.sampled_from(list(UPSTREAMS)),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_the_three_arithmetics_agree(name, row, kind, seed, temperature):
    """float64 lies within its own bound of 300 bits, and the ball, whose radius is nothing, has
    them inside.
    """
    options = (
        {"dim": -1, "temperature": temperature, "off_by_one": seed % 2 == 1}
        if name == "softmax"
        else {"dim": -1}
    )
    x = np.array([row])
    g = upstream.build(kind, (1,) if name == "logsumexp" else x.shape, -1, float64, Draw(f"agree|{seed}"))
    agree(name, {"x": x, UPSTREAM: g}, options)


@settings(max_examples=15, deadline=None)
@given(
    row=ROW,
    kind=st.sampled_from(list(UPSTREAMS)),
    seed=st.integers(0, 99),
    smoothing=st.sampled_from([0.0, 0.1]),
    reduction=st.sampled_from(["mean", "none"]),
)
def test_the_three_arithmetics_agree_on_cross_entropy(row, kind, seed, smoothing, reduction):
    x = np.array([row, row[::-1]])
    smoothing *= float(np.isfinite(x).all())
    draw = Draw(f"agree|{seed}")
    g = upstream.build(kind, (2,) if reduction == "none" else (), -1, float64, draw)
    likely = np.array([int(x[0].argmax()), int(x[1].argmax())])
    options = {"ignore_index": -100, "label_smoothing": smoothing, "reduction": reduction}
    agree("cross_entropy", {"logits": x, "target": likely, UPSTREAM: g}, options)


def agree(name, inputs, options):
    backward = backward_of(name, inputs)
    problem = backward.problem(inputs, options)
    with Mpmath.precision(300), Arb.precision(300), np.errstate(all="ignore"):
        exact, ball = (backward.define(arithmetic, problem) for arithmetic in (Mpmath(), Arb()))
        double = backward.define(Float64(), problem)
        allowed = backward.bound(backward.facts(problem), ASSUMED, float64).absolute
        scale = float(np.abs(inputs[UPSTREAM]).sum())
        for e, b, d, a in zip(exact.flat, ball.flat, double.flat, allowed.flat, strict=True):
            mantissa, exponent = b.mid().man_exp()
            middle = mpmath.ldexp(mpmath.mpf(int(mantissa)), int(exponent))
            assert abs(e - middle) <= mpmath.mpf(2) ** -250 * scale
            assert abs(e - mpmath.mpf(float(d))) <= a


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_full_jacobian(n):
    """One-hot upstreams give its rows: diag(p) - p p^T, whose rows and columns sum to 0; I - 1 p^T;
    p; p - t.
    """
    row = np.rint(1024 * Draw(f"jacobian|{n}").normal(n)) / 512
    x, identity = np.broadcast_to(row, (n, n)).copy(), np.eye(n)
    target = np.arange(n)
    with Mpmath.precision(200):
        close = mpmath.mpf(2) ** -190
        p = get_op("softmax").define(
            Mpmath(), get_op("softmax").problem({"x": x[:1]}, get_op("softmax").options)
        )[0]
        softmax = gradient("softmax", {"x": x, UPSTREAM: identity}, get_op("softmax").options, Mpmath())
        log_softmax = gradient("log_softmax", {"x": x, UPSTREAM: identity}, {"dim": -1}, Mpmath())
        logsumexp = gradient("logsumexp", {"x": x[:1], UPSTREAM: np.ones(1)}, {"dim": -1}, Mpmath())[0]
        losses = {"logits": x, "target": target, UPSTREAM: np.ones(n)}
        loss = gradient(
            "cross_entropy", losses, {**get_op("cross_entropy").options, "reduction": "none"}, Mpmath()
        )
        for i in range(n):
            for j in range(n):
                assert abs(softmax[i, j] - (p[i] * (i == j) - p[i] * p[j])) < close
                assert abs(softmax[i, j] - softmax[j, i]) < close
                assert abs(log_softmax[i, j] - ((i == j) - p[j])) < close
                assert abs(loss[i, j] - (p[j] - (i == j))) < close
            for jacobian in (softmax, log_softmax, loss):
                assert abs(jacobian[i].sum()) < close
        assert max(abs(a - b) for a, b in zip(logsumexp, p, strict=True)) < close
        assert abs(logsumexp.sum() - 1) < close


# Special values


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize(
    ("row", "judged"),
    [
        ([0.0, 1.0], True),
        ([-INF, 1.0], True),
        ([NAN, 1.0], False),
        ([INF, 1.0], False),
        ([-INF, -INF], False),
    ],
)
def test_a_row_without_a_value_has_no_gradient_to_judge(op, row, judged):
    """But a logsumexp of -inf is the limit of ever smaller ones, whose gradient counts as 0."""
    x = np.array([row, [0.0, 1.0]])
    inputs = {"x": x, UPSTREAM: np.ones(2) if op == "logsumexp" else np.ones((2, 2))}
    backward = backward_of(op, inputs)
    codes = backward.special(backward.problem(inputs, backward.options), CONTRACT)
    judged = judged or (op == "logsumexp" and max(row) == -INF)

    assert codes[0].tolist() == [Special.FINITE if judged else Special.ANYTHING] * 2
    assert codes[1].tolist() == [Special.FINITE] * 2


def loss_gradient(logits, target, dx, g=1.0, **options):
    given = {"logits": torch.tensor(logits), "target": torch.tensor(target), UPSTREAM: torch.tensor(g)}
    return judge("cross_entropy", given, torch.tensor(dx), options=options, oracle=ORACLE)


def test_an_ignored_row_is_exactly_0_whatever_its_logits():
    logits = [[0.0, 0.0], [NAN, 1.0], [INF, -INF]]
    right = [[-0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]
    assert loss_gradient(logits, [0, -100, -100], right).passed
    for row in (1, 2):
        for value, status in ((NAN, "nonfinite"), (1e-45, "inaccurate"), (1.0, "inaccurate")):
            wrong = [list(entries) for entries in right]
            wrong[row][1] = value
            assert loss_gradient(logits, [0, -100, -100], wrong).status == status


def test_where_every_row_is_ignored_every_gradient_is_0():
    assert loss_gradient([[0.0, 1.0]], [-100], [[0.0, 0.0]]).passed
    assert loss_gradient([[0.0, 1.0]], [-100], [[NAN, NAN]]).status == "nonfinite"


def test_at_minus_infinity_softmax_and_logsumexp_give_0_and_log_softmax_the_upstream_or_0():
    x, g = torch.tensor([[0.0, -INF, 0.0]]), torch.tensor([[1.0, 2.0, 5.0]])
    assert judge("softmax", {"x": x, UPSTREAM: g}, torch.tensor([[-1.0, 0.0, 1.0]])).passed
    assert not judge("softmax", {"x": x, UPSTREAM: g}, torch.tensor([[-1.0, 1e-40, 1.0]])).passed
    assert judge("logsumexp", {"x": x, UPSTREAM: g[:, 0]}, torch.tensor([[0.5, 0.0, 0.5]])).passed
    assert not judge("logsumexp", {"x": x, UPSTREAM: g[:, 0]}, torch.tensor([[0.5, 1e-40, 0.5]])).passed
    for own, passed in ((2.0, True), (0.0, True), (1.0, False), (NAN, False)):
        assert judge("log_softmax", {"x": x, UPSTREAM: g}, torch.tensor([[-3.0, own, 1.0]])).passed is passed


# The bounds admit what is honest


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_honest_backward_passes_keep_the_bound(op, dtype):
    """On every kind of row, each with its own kind of upstream; lengths from 1 to 200."""
    format, largest = get_format(dtype), {}
    for number, (kind, rows) in enumerate(ROWS.items()):
        draw = Draw(f"honest|{op}|{dtype}|{kind}")
        n = (1, 2, 3, 17, 64, 40, 200, 5, 33)[number]
        x = rounded(rows(draw, 3, n), format)
        of_upstream = KINDS[(number + len(dtype)) % len(KINDS)]
        g = upstream_rows(of_upstream, 3, 1 if op == "logsumexp" else n, format, draw)
        for name in HONEST[op]:
            judgement = measured(op, name, x, g, format)
            assert judgement.passed, (name, kind, of_upstream, judgement.message)
            assert judgement.judged == 1
            largest[name] = max(largest.get(name, 0.0), judgement.ratio)
    if dtype == "float32":
        assert max(largest.values()) > 0.01, "so wide a bound that no kernel uses any of it"


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
@settings(max_examples=20, deadline=None)
@given(
    row=st.lists(st.one_of(st.floats(-110, 110, width=16), st.just(-INF)), min_size=1, max_size=40).filter(
        lambda r: max(r) > -INF
    ),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    offset=st.sampled_from([0.0, 0.0, 1024.0, -8192.0]),
    data=st.data(),
)
def test_honest_backward_passes_keep_the_bound_on_any_row(op, row, dtype, offset, data):
    format = get_format(dtype)
    upstreams = st.floats(-64, 64, width=16)
    g = data.draw(
        st.lists(upstreams, min_size=1, max_size=1) if op == "logsumexp" else _as_long(upstreams, row)
    )
    name = data.draw(st.sampled_from(sorted(HONEST[op])))
    x, g = (rounded(np.array([values]), format) for values in (np.array(row) + offset, g))

    judgement = measured(op, name, x, g, format)

    assert judgement.passed, judgement.message


def _as_long(elements, row):
    return st.lists(elements, min_size=len(row), max_size=len(row))


WRONG_GRADIENT = ("log1p_surprisal", "smoothing_as_a_difference")
"""Right losses whose gradient by autograd is wrong: see test_a_right_loss_may_have_a_wrong_gradient."""


def loss_case(draw, kind, n, format, *, targets, reduction, upstreams):
    x = rounded(ROWS[kind](draw, 5, n), format)
    target = probabilities(x, format, draw) if targets == "probabilities" else indices(x, -100, draw)
    if targets == "some":
        target[::2] = -100
    g = upstream.build(upstreams, (5,) if reduction == "none" else (), -1, format, draw)
    return {"logits": x, "target": target, UPSTREAM: g}


def of_loss(loss, inputs, format, options):
    """(tensors, gradient of the logits) by autograd through a loss of tensors in their own format."""
    tensors = {name: to_torch(values, format) for name, values in inputs.items()}
    leaf = tensors["logits"].detach().requires_grad_()
    return tensors, torch.autograd.grad(loss(leaf, tensors["target"], **options), leaf, tensors[UPSTREAM])[0]


def closed_form(logits, target, ignore_index, label_smoothing, reduction):
    """(p sum t - t) w, as a fused loss computes it in its forward pass; here as its own autograd function."""
    return _ClosedForm.apply(logits, target, ignore_index, label_smoothing, reduction)


class _ClosedForm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target, ignore_index, smoothing, reduction):
        z = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        kept = torch.ones(len(z), dtype=torch.bool) if target.is_floating_point() else target != ignore_index
        if target.is_floating_point():
            t = target.to(z.dtype)
        else:
            t = functional.one_hot(torch.where(kept, target, 0), z.shape[-1]).to(z.dtype)
        t = (1 - smoothing) * t + smoothing / z.shape[-1] if smoothing else t
        scale = 1 / int(kept.sum()) if reduction == "mean" and kept.any() else 1.0
        dz = (torch.softmax(z, -1) * t.sum(-1, keepdim=True) - t) * scale
        ctx.save_for_backward(torch.where(kept[:, None], dz, 0.0))
        ctx.dtype = logits.dtype
        return logits.new_zeros(len(z) if reduction == "none" else ())

    @staticmethod
    def backward(ctx, g):
        (dz,) = ctx.saved_tensors
        return (dz * g.reshape(-1, 1).to(dz.dtype)).to(ctx.dtype), None, None, None, None


HONEST_LOSSES = {
    **{name: pair for name, pair in LOSSES.items() if name not in WRONG_GRADIENT},
    "closed_form": (closed_form, BEST_PRACTICE),
}


def judged_loss(loss, numerics, inputs, format, options):
    backward = backward_of("cross_entropy", inputs)
    reference = ORACLE.reference(backward, inputs, options, format)
    _, dx = of_loss(loss, inputs, format, options)
    shapes = {name: np.shape(values) for name, values in inputs.items()}
    return judge_values(
        backward, reference, to_float64(dx), shapes, options, format, numerics, statistics=False
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_honest_losses_keep_the_bound(dtype):
    """Autograd of every structure of loss, and a gradient computed in the forward pass: (p - t)
    times a scale.
    """
    format = get_format(dtype)
    for number, kind in enumerate(ROWS):
        reduction = ("mean", "sum", "none")[number % 3]
        options = {"ignore_index": -100, "label_smoothing": (0.0, 0.1)[number % 2], "reduction": reduction}
        if kind == "minus_infinity":
            options["label_smoothing"] = 0.0
        targets = ("indices", "probabilities", "some")[(number + len(dtype)) % 3]
        n, of_upstream = (2, 3, 17, 64, 40, 5, 33, 1, 20)[number], list(UPSTREAMS)[(number + len(dtype)) % 6]
        draw = Draw(f"losses|{dtype}|{kind}")
        inputs = loss_case(draw, kind, n, format, targets=targets, reduction=reduction, upstreams=of_upstream)
        for name, (loss, numerics) in HONEST_LOSSES.items():
            judgement = judged_loss(loss, numerics, inputs, format, options)
            assert judgement.passed, (name, kind, of_upstream, judgement.message)


@pytest.mark.parametrize(
    ("name", "smoothing"), [("log1p_surprisal", 0.0), ("smoothing_as_a_difference", 1.0)]
)
def test_a_right_loss_may_have_a_wrong_gradient(name, smoothing):
    """amax() shares its gradient among equal maxima, of which log1p's form leaves out one; where()
    cuts the gradient of the branch that it does not take, though both have one value.
    """
    inputs = {"logits": np.array([[1.0, 1.0, 0.0]]), "target": np.array([0]), UPSTREAM: np.ones(())}
    if smoothing:
        inputs["logits"] = np.array([[1.0, 1.0, 1.0]])
    options = {"ignore_index": -100, "label_smoothing": smoothing, "reduction": "mean"}
    loss, numerics = LOSSES[name]
    format = get_format("float32")
    tensors = {key: to_torch(values, format) for key, values in inputs.items() if key != UPSTREAM}

    assert judge(
        "cross_entropy", tensors, loss(**tensors, **options), options=options, numerics=numerics
    ).passed
    assert judged_loss(loss, numerics, inputs, format, options).status == "inaccurate"


# The bounds refuse what is not


FAULTS = {
    "softmax without its sum": ("softmax", "normal", lambda x, g, s: by_division(x) * g),
    "softmax with the sum of the upstream": (
        "softmax",
        "normal",
        lambda x, g, s: by_division(x) * (g - total(g)),
    ),
    "softmax with the mean in place of the sum": (
        "softmax",
        "normal",
        lambda x, g, s: by_division(x) * (g - (by_division(x) * g).mean(-1, keepdim=True)),
    ),
    "softmax of a constant upstream is not 0": (
        "softmax",
        "constant",
        lambda x, g, s: by_division(x) * (g - 0.5 * total(by_division(x) * g)),
    ),
    "softmax without the factor p": ("softmax", "normal", lambda x, g, s: g - total(by_division(x) * g)),
    "softmax negated": ("softmax", "normal", lambda x, g, s: -softmax_difference(by_division(x), g)),
    "softmax's sum loses its second half": (
        "softmax",
        "constant",
        lambda x, g, s: by_division(x) * (g - total((by_division(x) * g)[:, :16])),
    ),
    "log_softmax without its sum": ("log_softmax", "normal", lambda x, g, s: g.clone()),
    "log_softmax with the sum of softmax": (
        "log_softmax",
        "normal",
        lambda x, g, s: g - by_division(x) * total(by_division(x) * g),
    ),
    "logsumexp without the upstream": ("logsumexp", "normal", lambda x, g, s: by_division(x)),
    "logsumexp with log-probabilities": ("logsumexp", "normal", lambda x, g, s: g * torch.log_softmax(x, -1)),
    **{
        f"{op} is 0": (op, "normal", lambda x, g, s: torch.zeros_like(x))
        for op in ("softmax", "log_softmax", "logsumexp")
    },
    **{
        f"{op} is NaN": (op, "normal", lambda x, g, s: x * torch.nan)
        for op in ("softmax", "log_softmax", "logsumexp")
    },
}
SAVED = {
    "log_softmax from a saved result": (
        "log_softmax",
        lambda x, g, s: g - torch.exp(s(torch.log_softmax(x, -1))) * total(g),
    ),
    "logsumexp from a saved result": (
        "logsumexp",
        lambda x, g, s: g * torch.exp(x - s(torch.logsumexp(x, -1, True))),
    ),
}
"""Results in the tensors' own format, which cost |log p| and |lse| roundings of it in the exponent."""


def judged_mutant(op, kernel, kind, dtype, of_upstream, n=33):
    format = get_format(dtype)
    draw = Draw(f"judged_mutant|{op}|{kind}|{dtype}")
    x = rounded(ROWS[kind](draw, 8, n), format)
    g = upstream_rows(of_upstream, 8, 1 if op == "logsumexp" else n, format, draw)
    HONEST[op]["judged_mutant"] = kernel, BEST_PRACTICE
    try:
        return measured(op, "judged_mutant", x, g, format)
    finally:
        del HONEST[op]["judged_mutant"]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_gradient_is_refused(name, dtype):
    op, of_upstream, kernel = FAULTS[name]
    status = "nonfinite" if "NaN" in name else "inaccurate"
    for kind in ("normal", "ties", "confident"):
        assert judged_mutant(op, kernel, kind, dtype, of_upstream).status == status, kind


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_result_saved_in_16_bits_is_refused_and_in_32_is_not(name, dtype):
    """pytorch/pytorch#113708: the backward of torch.logsumexp takes its weights from the rounded result."""
    op, kernel = SAVED[name]
    for kind in ("normal", "confident") + (
        () if op == "log_softmax" else ("offset",)
    ):  # |lse| roundings of float32 are allowed
        assert judged_mutant(op, kernel, kind, dtype, "one_hot").status == "inaccurate", kind
        assert judged_mutant(op, lambda x, g, s: kernel(x, g, lambda t: t), kind, dtype, "one_hot").passed, (
            kind
        )


def from_saved_log_sum_exp(x, g, s):
    return softmax_difference(torch.exp(x - s(torch.logsumexp(x, -1, True))), g)


def sum_in_the_tensors_format(x, g, s):
    """Term after term: it stops growing where a term is below half an ulp."""
    p, mean = by_division(x), torch.zeros_like(x[:, :1])
    for p_j, g_j in zip(p.split(1, -1), g.split(1, -1), strict=True):
        mean = s(mean + s(p_j * g_j))
    return p * (g - mean)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_rounded_to_16_bits_cost_one_rounding_and_what_they_come_from_many(dtype):
    """P of softmax may be saved in the tensors' own format; lse may not, and sums are not made in it."""
    for kind in ("offset", "confident", "ramp"):
        assert judged_mutant(
            "softmax", HONEST["softmax"]["weights_saved_in_the_tensors_format"][0], kind, dtype, "normal"
        ).passed
        assert (
            judged_mutant("softmax", from_saved_log_sum_exp, kind, dtype, "normal").status == "inaccurate"
        ), kind
    if dtype == "bfloat16":
        assert (
            judged_mutant("softmax", sum_in_the_tensors_format, "normal", dtype, "constant", n=300).status
            == "inaccurate"
        )


LOSS_FAULTS = {
    "the target is not subtracted": lambda p, t, w, n: p * w,
    "twice the target": lambda p, t, w, n: (p - 2 * t) * w,
    "not divided by the count": lambda p, t, w, n: (p - t) * w * n,
    "divided by all rows": lambda p, t, w, n: (p - t) * w * n / len(p),
    "negated": lambda p, t, w, n: (t - p) * w,
    "the target's entry only": lambda p, t, w, n: (p - t) * t * w,
    "all but the target's entry": lambda p, t, w, n: (p - t) * (1 - t) * w,
    "zero": lambda p, t, w, n: 0 * p,
    "without the upstream": lambda p, t, w, n: (p - t) / n,
}


@pytest.mark.parametrize("name", LOSS_FAULTS)
def test_a_wrong_gradient_of_a_loss_is_refused(name):
    format, draw = get_format("float32"), Draw("loss faults")
    inputs = loss_case(draw, "normal", 17, format, targets="some", reduction="mean", upstreams="normal")
    kept = inputs["target"] != -100
    x, g = torch.from_numpy(inputs["logits"]), torch.from_numpy(inputs[UPSTREAM])
    p = torch.softmax(x, -1)
    t = torch.zeros_like(p)
    t[np.flatnonzero(kept), inputs["target"][kept]] = 1
    tensors = {key: to_torch(values, format) for key, values in inputs.items()}
    mask = torch.from_numpy(kept)[:, None]
    count = int(kept.sum())

    def judged(gradient):
        return judge("cross_entropy", tensors, torch.where(mask, gradient, 0.0).float(), oracle=ORACLE)

    assert judged((p - t) * (g / count)).passed
    assert judged(LOSS_FAULTS[name](p, t, g / count, count)).status == "inaccurate"


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"temperature": 0.5}, lambda p, g: softmax_difference(p, g)),
        ({"temperature": 2.0}, lambda p, g: softmax_difference(p, g) * 2.0),
        ({"off_by_one": True}, lambda p, g: p * (g - total(p * g) / total(p))),
    ],
)
def test_an_option_that_the_backward_forgets_is_refused(options, wrong):
    draw = Draw("options")
    x, g = torch.from_numpy(draw.normal(4, 9)), torch.from_numpy(draw.normal(4, 9))
    temperature, hidden = (
        options.get("temperature", 1.0),
        torch.zeros(4, int(options.get("off_by_one", False))),
    )
    p = torch.softmax(torch.cat([x / temperature, hidden.double()], -1), -1)[:, :9]
    right = softmax_difference(p, g) / temperature

    assert judge("softmax", {"x": x, UPSTREAM: g}, right, options=options).passed
    assert judge("softmax", {"x": x, UPSTREAM: g}, wrong(p, g), options=options).status == "inaccurate"


def test_in_16_bits_torchs_own_backward_takes_its_weights_from_the_rounded_result():
    """On CPU, log_softmax and logsumexp: what SAVED plants is what is out there; in float32 they
    are right.
    """
    x = torch.linspace(-2, 2, 33)[None] + (torch.arange(33) % 3) / 7
    for op, forward in (("log_softmax", torch.log_softmax), ("logsumexp", torch.logsumexp)):
        for dtype, status in (
            (torch.float32, "passed"),
            (torch.bfloat16, "inaccurate"),
            (torch.float16, "inaccurate"),
        ):
            leaf = x.to(dtype).requires_grad_()
            y = forward(leaf, -1)
            g = torch.ones_like(y)
            (dx,) = torch.autograd.grad(y, leaf, g)
            assert judge(op, {"x": leaf.detach(), UPSTREAM: g}, dx).status == status, (op, dtype)


def test_the_judgement_is_an_error_that_names_the_gradient():
    x = torch.zeros(1, 2)
    with pytest.raises(
        JudgementError, match=r"softmax backward float32 \[1, 2\]: inaccurate(.|\n)*upstream 1\.0 there"
    ):
        judge("softmax", {"x": x, UPSTREAM: torch.ones(1, 2)}, torch.ones(1, 2)).raise_if_failed()


def test_two_exponentials_of_one_logit_are_admitted():
    """Autograd of an online softmax: p comes by exp(x - m), the sum by other exponentials, so that
    they do not cancel.
    """
    format, draw = get_format("float32"), Draw("target|66|spread")
    n = (3, 5, 9, 17, 18, 33, 49)[draw.integers(7)]
    x = rounded(30 * draw.normal(40, n), format)
    for kind in ("ones", "constant"):
        g = upstream_rows(kind, 40, n, format, draw)
        for name in ("autograd_of_softmax_in_blocks",):
            judgement = measured("softmax", name, x, g, format)
            assert judgement.passed, judgement.message


@pytest.mark.parametrize("n", [257, 1000])
@pytest.mark.parametrize("kind", ["ties", "equal"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_gradient_of_0_is_refused_on_long_rows_of_equal_logits(dtype, kind, n):
    """A rounding of P to 16 bits does not go through a maximum; n of them would admit anything."""
    assert (
        judged_mutant("softmax", lambda x, g, s: torch.zeros_like(x), kind, dtype, "normal", n=n).status
        == "inaccurate"
    )

    def half(x, g, s):
        return by_division(x) * (g - 0.5 * total(by_division(x) * g))

    assert n > 257 or judged_mutant("softmax", half, kind, dtype, "constant", n=n).status == "inaccurate"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_loss_gradient_without_p_is_refused_on_long_rows_of_equal_logits(dtype):
    n = 1000
    logits = torch.zeros(4, n, dtype=getattr(torch, dtype))
    target = torch.arange(4)
    dx = -functional.one_hot(target, n).to(logits.dtype) / 4
    given = {"logits": logits, "target": target, UPSTREAM: torch.ones((), dtype=logits.dtype)}
    assert judge("cross_entropy", given, dx).status == "inaccurate"


@pytest.mark.parametrize("value", [INF, -INF, NAN])
@pytest.mark.parametrize("op", row_ops())
def test_a_row_with_an_upstream_that_is_no_number_is_not_judged(op, value):
    """A loss scale that overflows: what comes back is anything, in its own row."""
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    if op == "cross_entropy":
        given = {"logits": x, "target": torch.tensor([0, 1]), UPSTREAM: torch.tensor([value, 0.0])}
        options = {"reduction": "none"}
    else:
        g = torch.tensor([[value, 1.0], [0.0, 0.0]])
        given, options = {"x": x, UPSTREAM: g[:, 0] if op == "logsumexp" else g}, {}
    dx = torch.tensor([[NAN, NAN], [0.0, 0.0]])
    assert judge(op, given, dx, options=options).status in ("passed", "unjudged")
    dx[1, 0] = 1.0
    assert judge(op, given, dx, options=options).status == "inaccurate"


def test_at_minus_infinity_not_even_a_subnormal_is_allowed():
    x, g = torch.tensor([[0.0, -INF, 0.0]]), torch.tensor([[1.0, 2.0, 5.0]])
    assert not judge("softmax", {"x": x, UPSTREAM: g}, torch.tensor([[-1.0, 1e-45, 1.0]])).passed
    assert not judge("logsumexp", {"x": x, UPSTREAM: g[:, 0]}, torch.tensor([[0.5, 1e-45, 0.5]])).passed


def test_an_upstream_of_integers_is_refused():
    with pytest.raises(ValueError, match="upstream"):
        judge(
            "softmax",
            {"x": torch.zeros(2, 3), UPSTREAM: torch.ones(2, 3, dtype=torch.int64)},
            torch.zeros(2, 3),
        )
