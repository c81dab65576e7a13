"""suite/studies/modules: each against its exact forward and gradient, and wrong ones that disagree."""

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

from suite.formats import float64
from suite.inputs.draws import Draw
from suite.studies.modules import exact as exact_module
from suite.studies.modules.additive_attention import AddedInput, AdditiveAttention
from suite.studies.modules.attention_softmax import AttentionSoftmax, PooledAttentionSoftmax
from suite.studies.modules.exact import exact
from suite.studies.modules.lstm_attention import LSTMAttention
from suite.studies.modules.multi_head_attention import MultiHeadAttention
from suite.studies.modules.multiplicative_attention import MultiplicativeAttention, ScaledInput
from suite.studies.modules.position_attention import PositionAttention, sinusoidal
from suite.studies.modules.tape import gradients, numbers
from suite.studies.modules.transformer_stack import NORMS, TransformerLayer, TransformerStack
from suite.studies.modules.weights import built
from suite.tensors import to_torch

TOLERANCE = 1e-12
"""Largest error over the largest exact entry. No path here is longer than 200 roundings of u =
1.1e-16, together 2.2e-14; the slopes in between (softmax at most 1/2, tanh and sigmoid at most 1,
LayerNorm about 1 / its standard deviation, here above 0.1) multiply that by less than 40. An error
in a formula shows in the first digits.
"""


def normal(*shape):
    return to_torch(Draw(f"modules {shape}").normal(*shape), float64)


def drawn(make):
    """The module with no parameter left at 0 or 1, so that each of them shows."""
    module = built(make, "modules")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(to_torch(Draw(f"vector {name}").normal(len(parameter)), float64), alpha=0.2)
    return module


TOKENS = torch.tensor([[0, 1, 2, 0, 1]])
MODULES = {
    "softmax": (lambda: nn.Softmax(-2), (normal(3, 4),)),
    "attention_softmax of logits": (lambda: AttentionSoftmax(1, 3), (normal(2, 5, 1),)),
    "attention_softmax": (lambda: AttentionSoftmax(2, 3), (normal(4, 2),)),
    "attention_softmax pooled": (lambda: PooledAttentionSoftmax(3, 2), (normal(2, 4, 3),)),
    "multi_head_attention": (lambda: MultiHeadAttention(4, 2), (normal(3, 4),)),
    "multi_head_attention cross": (
        lambda: MultiHeadAttention(4, 2, head_size=3),
        (normal(2, 4), normal(3, 4)),
    ),
    "position_attention sinusoidal": (lambda: PositionAttention(3, 3, 5), (TOKENS,)),
    "position_attention learned": (lambda: PositionAttention(3, 3, 5, positions="learned"), (TOKENS,)),
    "lstm_attention": (lambda: LSTMAttention(3, 2, 3), (TOKENS,)),
    "additive as written": (lambda: AddedInput(3), (normal(3, 3),)),
    "additive_attention": (lambda: AdditiveAttention(3, 2), (normal(2, 3), normal(4, 3))),
    "multiplicative as written": (lambda: ScaledInput(3), (normal(3, 3),)),
    "multiplicative_attention": (lambda: MultiplicativeAttention(3), (normal(2, 3), normal(4, 3))),
} | {
    f"transformer_stack residual={residual} {norm}": (
        lambda norm=norm, residual=residual: TransformerStack(2, 4, 2, norm=norm, residual=residual),
        (normal(3, 4),),
    )
    for norm in NORMS
    for residual in (True, False)
}


def relative_error(got, expected, scale=None):
    expected = np.array(expected, dtype=object).astype(np.float64)
    largest = np.abs(expected).max() if scale is None else scale
    return np.abs(got.detach().numpy() - expected).max() / largest


def errors(module, inputs):
    """The relative errors of torch's output, of its gradients of inputs, and of parameters over the
    largest of those.
    """
    leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    output = module(*leaves)
    upstream = normal(*output.shape)
    right = exact(module, inputs, upstream)
    names = [name for name, _ in module.named_parameters()]
    floating = [x for x in leaves if x.is_floating_point()]
    found = torch.autograd.grad(output, [*floating, *module.parameters()], upstream, materialize_grads=True)
    of_inputs = [
        relative_error(got, of)
        for got, of in zip(found, [g for g in right.inputs if g is not None], strict=False)
    ]
    # Some are exactly 0: a key's bias.
    largest = max((float(abs(of).max()) for of in right.parameters.values()), default=0.0)
    of_parameters = [
        relative_error(got, right.parameters[name], largest)
        for name, got in zip(names, found[len(floating) :], strict=True)
    ]
    return [relative_error(output, right.output), *of_inputs, *of_parameters]


@pytest.mark.parametrize("name", MODULES)
def test_forward_and_gradient_are_the_exact_ones(name):
    make, inputs = MODULES[name]

    assert max(errors(drawn(make), inputs)) < TOLERANCE


# Wrong modules.


class Unscaled(MultiHeadAttention):
    def forward(self, x, context=None):
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        p = torch.softmax(q @ k.transpose(-2, -1), -1)
        return self.norm(self.output((p @ v).transpose(-3, -2).flatten(-2)))


class OverQueries(MultiHeadAttention):
    def forward(self, x, context=None):
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        p = torch.softmax(q @ k.transpose(-2, -1) / self.head_size**0.5, -2)
        return self.norm(self.output((p @ v).transpose(-3, -2).flatten(-2)))


class WithoutLastResidual(TransformerStack):
    def states(self, x):
        found = super().states(x)
        return [*found[:-1], found[-1] - found[-2]]


class DetachedResidual(TransformerStack):
    """Right forward, wrong gradient."""

    def states(self, x):
        y = self.layers[0](x)
        return [x, y, self.layers[1](y) - y + y.detach()]


class OverFeatures(AttentionSoftmax):
    def forward(self, x):
        a = torch.softmax(x @ (self.query @ self.weight), -1)
        return torch.softmax(a[..., None] * x, -1)


class OverBatch(PooledAttentionSoftmax):
    def forward(self, x):
        a = torch.softmax(self.energy(self.query(x)), 0)
        return torch.softmax((a * x).sum(-2), -1)


class PositionFromOne(PositionAttention):
    def scores(self, tokens):
        z = self.embedding(tokens) + sinusoidal(len(self.position) + 1, 3)[1:]
        return z, z @ self.query


class LastStateOnly(LSTMAttention):
    def forward(self, tokens):
        h, _ = self.lstm(self.embedding(tokens))
        return torch.sigmoid(self.dense(h[:, -1]))


class WithoutTanh(AdditiveAttention):
    def forward(self, queries, keys):
        hidden = self.query(queries)[..., :, None, :] + self.key(keys)[..., None, :, :]
        return torch.softmax(self.energy(hidden).squeeze(-1), -1) @ keys


class DotOnly(MultiplicativeAttention):
    def forward(self, queries, keys):
        return torch.softmax(queries @ (keys + 0 * self.key(keys)).transpose(-2, -1), -1) @ keys


WRONG = [
    (lambda: Unscaled(4, 2), (normal(3, 4),)),
    (lambda: OverQueries(4, 2), (normal(3, 4),)),
    (lambda: WithoutLastResidual(2, 4, 2, norm="before"), (normal(3, 4),)),
    (lambda: DetachedResidual(2, 4, 2, norm="before"), (normal(3, 4),)),
    (lambda: OverFeatures(2, 3), (normal(4, 2),)),
    (lambda: OverBatch(3, 2), (normal(2, 4, 3),)),
    (lambda: PositionFromOne(3, 3, 5), (TOKENS,)),
    (lambda: LastStateOnly(3, 2, 3), (TOKENS,)),
    (lambda: WithoutTanh(3, 2), (normal(2, 3), normal(4, 3))),
    (lambda: DotOnly(3), (normal(2, 3), normal(4, 3))),
]


@pytest.mark.parametrize(("make", "inputs"), WRONG)
def test_a_wrong_module_disagrees_in_its_first_digits(make, inputs):
    assert max(errors(drawn(make), inputs)) > 1e-3


# The exact side is judged too.


def test_the_exact_gradient_is_the_slope_of_the_exact_output():
    """Central differences with a step h = 2^-80 at 400 bits are off by h^2 f''' / 6, about 2^-160."""
    x = Draw("slope").normal(3, 4)
    module = drawn(lambda: TransformerStack(1, 4, 2, norm="after"))
    up, direction = Draw("up").normal(3, 4), Draw("direction").normal(3, 4)
    right = exact(module, (to_torch(x, float64),), to_torch(up, float64), bits=400)

    with mpmath.mp.workprec(400):
        w = exact_module.Weights({name: numbers(p.detach().numpy()) for name, p in module.named_parameters()})
        h = mpmath.mpf(2) ** -80

        def f(sign):
            moved = numbers(x) + numbers(direction) * (sign * h)
            return sum(
                a.value * float(b)
                for a, b in zip(
                    exact_module.transformer_stack(module, w, moved).ravel(), up.ravel(), strict=True
                )
            )

        slope = (f(1) - f(-1)) / (2 * h)
        expected = sum(
            g * mpmath.mpf(float(d)) for g, d in zip(right.inputs[0].ravel(), direction.ravel(), strict=True)
        )

        assert abs(slope - expected) < abs(expected) * mpmath.mpf(2) ** -140


def test_the_tape_adds_what_reaches_a_number_on_several_ways():
    with mpmath.mp.workprec(64):
        x = numbers(np.array([3.0]))
        [gradient, unused] = gradients(
            x * x + 1 / x - x, np.array([mpmath.mpf(2)], dtype=object), [x, numbers(np.ones(1))]
        )

        assert abs(gradient[0] - 2 * (6 - mpmath.mpf(1) / 9 - 1)) < 1e-17
        assert unused[0] == 0


def test_a_constant_is_divided_by_exactly():
    with mpmath.mp.workprec(200):
        [third] = numbers(np.array([1.0])) / 3

        assert third.value == mpmath.mpf(1) / 3


def test_the_precision_outside_stays():
    before = mpmath.mp.prec
    exact(built(lambda: AddedInput(2), "k"), (normal(1, 2),), normal(1, 2), bits=500)

    assert mpmath.mp.prec == before


def test_the_bias_of_a_key_has_no_gradient():
    """It adds the same to every score of a query."""
    module = drawn(lambda: MultiHeadAttention(4, 2))
    gradient = exact(module, (normal(3, 4),), normal(3, 4), bits=256).parameters["key.bias"]

    assert max(abs(entry) for entry in gradient) < mpmath.mpf(2) ** -240


def test_what_has_no_formula_or_drops_out_is_refused():
    with pytest.raises(
        ValueError, match="Linear has no exact formula; those with one: Softmax, AttentionSoftmax"
    ):
        exact(nn.Linear(2, 2), (normal(1, 2),), normal(1, 2))
    with pytest.raises(ValueError, match=r"TransformerStack drops out while it trains; call eval\(\) first"):
        exact(TransformerStack(1, 4, 2, dropout=0.5), (normal(3, 4),), normal(3, 4))
    with pytest.raises(ValueError, match=r"upstream has shape \(2,\), the output \(1, 2\)"):
        exact(AddedInput(2), (normal(1, 2),), normal(2))


# The modules themselves.


def test_the_module_of_the_document_takes_1_by_16_by_512_and_returns_it():
    module = built(lambda: MultiHeadAttention(512, 8), "document").float()

    assert module.head_size == 64
    assert module(torch.ones(1, 16, 512)).shape == (1, 16, 512)


def test_choices_are_named_where_one_is_wrong():
    with pytest.raises(ValueError, match="size=6 is not a multiple of heads=4; give head_size"):
        MultiHeadAttention(6, 4)
    with pytest.raises(ValueError, match="norm='pre' is not one of none, output, before, after"):
        TransformerLayer(4, 2, norm="pre")
    with pytest.raises(ValueError, match="positions='rotary' is not one of sinusoidal, learned"):
        PositionAttention(3, 3, 5, positions="rotary")


def test_weights_are_the_same_every_time_and_torchs_random_state_stays():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second = (built(lambda: MultiHeadAttention(4, 2), "same") for _ in range(2))

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first.query.weight, first.key.weight)


def test_dropout_acts_in_training_only():
    stack = built(lambda: TransformerStack(1, 4, 2, dropout=0.999999), "dropout")
    x = normal(3, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = stack(x)

    assert torch.equal(trained, x)
    assert not torch.equal(stack.eval()(x), x)


def test_the_worked_example_of_the_scores():
    """Embeddings and positions of the document; it prints 0.4, 0.55, 0.65, 0.4, 0.55, which no
    reading of q . z gives.
    """
    module = PositionAttention(3, 3, 5, positions="learned").double()
    with torch.no_grad():
        module.embedding.weight.copy_(torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]))
        module.position.copy_(torch.eye(3)[[0, 1, 2, 0, 1]])
        module.query.fill_(0.5)
        score = module.scores(TOKENS)[1]

    # Embeddings rounded to float32.
    assert score[0].tolist() == pytest.approx([0.8, 1.25, 1.7, 0.8, 1.25], rel=1e-7)


def test_the_sinusoidal_encoding_has_the_papers_entries():
    table = sinusoidal(7, 5)

    assert table.shape == (7, 5)
    assert float(table[3, 0]) == pytest.approx(np.sin(3), rel=1e-15)
    assert float(table[3, 3]) == pytest.approx(np.cos(3 / 10000 ** (2 / 5)), rel=1e-14)
