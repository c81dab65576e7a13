"""The gradient of the gradient: its definition by differences of the first backward, its bound, its law."""

import mpmath
import numpy as np
import pytest
import torch

from suite import judge
from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.inputs.draws import Draw
from suite.kernels import Kernel
from suite.ops import get_op
from suite.ops.arithmetic import Mpmath

SETTINGS = [
    ("softmax", {}),
    ("softmax", {"temperature": 0.5}),
    ("softmax", {"off_by_one": True}),
    ("log_softmax", {}),
    ("logsumexp", {}),
    ("cross_entropy", {}),
    ("cross_entropy", {"label_smoothing": 0.25, "reduction": "sum"}),
]


def inputs_of(op, options):
    case = Case(op=op, family="normal", shape=(3, 5), options=options, upstream="normal")
    from suite.formats import float64

    return case.inputs(float64), case.resolved_options()


@pytest.mark.parametrize(("op", "options"), SETTINGS)
def test_the_definition_is_the_derivative_of_the_first_backward(op, options):
    """Central differences with a step of 2^-60 at 240 bits: their error is of the order of the
    step's square, 1e-36.
    """
    inputs, resolved = inputs_of(op, options)
    name = next(iter(inputs))
    h = Draw("h").normal(3, 5)
    second = get_op(op).of({**inputs, "second": h})
    arithmetic = Mpmath()
    with arithmetic.precision(240):
        found = second.define(arithmetic, second.problem({**inputs, "second": h}, resolved))
        step = mpmath.mpf(2) ** -60

        def first(x):
            """<h, dx> of logits that are mpf: float64 logits, and the rest of the step by the chain
            rule would not do.
            """
            problem = get_op(op).of(inputs).problem(inputs, resolved)
            shifted = _Moved(x)
            return (get_op(op).of(inputs).define(shifted, problem) * h).sum()

        x = arithmetic.lift(get_op(op).of(inputs).problem(inputs, resolved).x)
        for row, column in np.ndindex(3, 5):
            up, down = x.copy(), x.copy()
            up[row, column] += step
            down[row, column] -= step
            expected = (first(up) - first(down)) / (2 * step)
            assert abs(found[row, column] - expected) < mpmath.mpf(10) ** -25, (row, column)
    assert inputs[name].shape == (3, 5)


class _Moved(Mpmath):
    """Arithmetic in which the logits of a problem are these, of any precision."""

    def __init__(self, x):
        super().__init__()
        self.moved = x

    def shifted_exp(self, x, temperature=1.0):
        largest = self.moved.max(axis=1, keepdims=True)
        return self.exp((self.moved - largest) / self.number(temperature))


TORCH = {
    "softmax": torch.softmax,
    "log_softmax": torch.log_softmax,
    "logsumexp": torch.logsumexp,
}


@pytest.mark.parametrize("op", TORCH)
def test_torch_is_right_and_one_per_cent_is_not(op):
    x = torch.from_numpy(Draw("x").normal(4, 33)).requires_grad_()
    y = TORCH[op](x, -1)
    g, h = torch.from_numpy(Draw("g").normal(*y.shape)), torch.from_numpy(Draw("h").normal(4, 33))
    [dx] = torch.autograd.grad(y, x, g, create_graph=True)
    [found] = torch.autograd.grad(dx, x, h)
    given = {"x": x.detach(), "upstream": g, "second": h}
    assert judge(op, given, found).passed
    assert judge(op, given, 1.01 * found).status == "inaccurate"


class _NoGraph(torch.autograd.Function):
    """softmax whose backward is right and leaves nothing to differentiate."""

    @staticmethod
    def forward(x):
        return torch.softmax(x, -1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, g):
        p = ctx.saved_tensors[0].detach()
        return p * (g.detach() - (p * g.detach()).sum(-1, keepdim=True))


class _Once(_NoGraph):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        return p * (g - (p * g).sum(-1, keepdim=True))


class _Zero(torch.autograd.Function):
    """A gradient whose own gradient is 0."""

    @staticmethod
    def forward(x):
        return torch.softmax(x, -1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        p = torch.softmax(x.detach(), -1)
        return p * (g - (p * g).sum(-1, keepdim=True)) + 0 * x


CASE = Case(op="softmax", family="normal", shape=(4, 9), upstream="normal", laws=("double_backward",))


def run(function):
    kernel = Kernel(id="k", op="softmax", call=lambda x, dim=-1: function(x))
    return evaluate(CASE, kernel, dtype="float32")


def test_the_law_catches_a_wrong_gradient_of_the_gradient():
    record = run(_Zero.apply)
    assert record.status == "law_broken"
    assert "double_backward: the gradient of the gradient" in record.message


@pytest.mark.parametrize("function", [_Once.apply, _NoGraph.apply, lambda x: torch.softmax(x, -1)])
def test_a_backward_that_cannot_be_differentiated_keeps_the_law(function):
    record = run(function)
    assert record.status == "passed", record.message


def test_another_shape_of_the_second_upstream_is_refused_by_name():
    x, g = np.zeros((2, 3)), np.ones((2, 3))
    with pytest.raises(ValueError, match=r"second has shape \[2, 4\]; expected that of x, \[2, 3\]"):
        judge("softmax", {"x": x, "upstream": g, "second": np.ones((2, 4))}, x)
