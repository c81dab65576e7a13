"""This suite's own torch kernels: what the cases do not ask of them. Every kernel is here but those
of other libraries.

Accuracy, special values and 16-bit dtypes are the cases' (`pytest cases`); here are empty inputs,
layouts, the boundaries of blocks, options, and that `compiled` is compiled.
"""

import functools

import pytest
import torch

from suite.kernels import own_kernels
from suite.kernels.parts.base_two import LOG2_E, fma, rounded
from suite.kernels.parts.compensated import LANES, compensated_sum
from suite.kernels.parts.compiled import compiled
from suite.kernels.parts.partial import log_sum_exp
from suite.kernels.parts.row_max import row_max
from suite.kernels.rows.online_blocked import blocked_normaliser
from suite.kernels.rows.online_tree import tree_normaliser
from suite.kernels.rows.split import PARTS
from suite.kernels.softmax.softmax1 import softmax1
from suite.kernels.softmax.temperature import temperature
from suite.verdict.judge import judge

OPS = ("softmax", "log_softmax", "logsumexp")
EAGER = {
    op: [k for k in own_kernels(op).values() if not k.requires and k.adapter == "torch" and not k.slow]
    for op in OPS
}
EVERY = [pytest.param(op, k, id=f"{op}-{k.id}") for op in OPS for k in EAGER[op]]
COMPILED = {op: own_kernels(op)["compiled"] for op in OPS}


def draw(*shape, dtype=torch.float32):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 2).to(dtype)


def call(kernel, x, dim=-1):
    return kernel({"x": x}, options={"dim": dim})


def judged(op, kernel, x, dim=-1):
    judge(op, x, call(kernel, x, dim), options={"dim": dim}, numerics=kernel.numerics).raise_if_failed()


def expected_shape(op, shape, dim):
    return torch.Size(shape) if op != "logsumexp" else torch.Size(shape[:dim] + shape[dim + 1 :])


def test_the_kernels_tested_here_are_the_suites_own():
    assert {"shifted", "online", "split", "two_pass", "kahan", "exp2_fma"} <= {k.id for k in EAGER["softmax"]}
    assert all(COMPILED[op].slow and len(EAGER[op]) >= 10 for op in OPS)


@pytest.mark.parametrize(("op", "kernel"), EVERY)
@pytest.mark.parametrize(
    ("shape", "dim"), [((0, 5), 1), ((3, 0), 1), ((0, 3), 0), ((2, 0, 3), 1), ((0, 0), 1)]
)
def test_an_empty_input_has_an_empty_result_and_an_empty_row_the_logsumexp_minus_infinity(
    op, kernel, shape, dim
):
    y = call(kernel, torch.empty(shape), dim)

    assert y.shape == expected_shape(op, shape, dim)
    assert y.dtype == torch.float32
    assert (y == -torch.inf).all()  # of nothing, but for the rows without entries


@pytest.mark.parametrize(("op", "kernel"), EVERY)
def test_any_layout_gives_the_accurate_result_and_is_not_written(op, kernel):
    storage = draw(10, 6)
    layouts = {
        "transposed": (storage.t(), 1),
        "sliced, reduced along the rows": (storage[3:9:2, 1:6:3], 0),
        "expanded": (storage[:1].expand(4, 6), 1),
        "expanded along the row": (storage[:4, :1].expand(4, 9), 1),
        "permuted": (storage.view(2, 5, 6).permute(2, 0, 1), 1),
    }
    before = storage.clone()
    for x, dim in layouts.values():
        judged(op, kernel, x, dim)
    assert torch.equal(storage, before)


@pytest.mark.parametrize(("op", "kernel"), EVERY)
def test_lengths_around_blocks_parts_and_lanes_are_judged_accurate(op, kernel):
    """Widths are 128, parts are 8: below, at and above each, and a last block of one column."""
    for n in (1, PARTS - 1, PARTS, PARTS + 1, LANES - 1, LANES, LANES + 1, 2 * LANES + 1):
        judged(op, kernel, draw(2, n))


@pytest.mark.parametrize("normaliser", [blocked_normaliser, tree_normaliser])
@pytest.mark.parametrize("width", [1, 4, 5, 16, 17, 18, 100])
def test_a_normaliser_is_right_at_every_width(normaliser, width):
    x = draw(4, 17, dtype=torch.float64)
    x[1, :5] = -torch.inf
    x[2] = -torch.inf

    result = log_sum_exp(normaliser(x, 1, width=width)).squeeze(1)

    assert result[2] == -torch.inf
    judge("logsumexp", x, result).raise_if_failed()


@pytest.mark.parametrize(("dtype", "k"), [(torch.float32, 13), (torch.float64, 27)])
def test_a_fused_multiply_add_keeps_the_last_bit_of_the_product(dtype, k):
    """(1 + 2^-k)^2 - 1 = 2^(1-k) + 2^-2k, whose last bit is below half an ulp of the square."""
    a = torch.tensor([1 + 2.0**-k], dtype=dtype)

    assert fma(a, float(a), torch.full_like(a, -1.0)).item() == 2.0 ** (1 - k) + 2.0 ** (-2 * k)
    assert (a * a - 1).item() == 2.0 ** (1 - k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fused_multiply_add_passes_infinities_on(dtype):
    a = torch.tensor([torch.inf, -torch.inf, 1e30, torch.finfo(dtype).max], dtype=dtype)
    c = rounded(LOG2_E, a)

    assert fma(a, c, torch.zeros_like(a)).tolist()[:2] == [torch.inf, -torch.inf]
    assert fma(a, c, torch.zeros_like(a)).tolist()[3] == torch.inf
    assert fma(a, c, torch.full_like(a, -torch.inf))[0].isnan()


def test_a_compensated_sum_keeps_what_a_plain_one_loses():
    """Each 2^-25 is below half an ulp of the 1 before it; together they are 2^-13. The tolerance is
    half an ulp.
    """
    e = torch.full((1, 4096), 2.0**-25)
    e[0, 0] = 1.0

    assert abs(compensated_sum(e, 1).item() - (1 + 4095 * 2.0**-25)) <= 2.0**-24
    assert functools.reduce(torch.add, e[0]).item() == 1.0
    assert compensated_sum(e.t(), 0).shape == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.07, 0.7, 1.0, 3.0])
def test_temperature_divides_differences_so_an_offset_changes_nothing(scale, dtype):
    x = draw(4, 33, dtype=dtype).round()
    y = temperature(x, temperature=scale)

    judge("softmax", x, y, options={"temperature": scale}).raise_if_failed()
    if dtype is torch.float32:  # x + 2^20 is exact
        assert torch.equal(temperature(x + 2.0**20, temperature=scale), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax1_counts_an_extra_logit_zero_wherever_the_row_lies(dtype):
    x = torch.cat([draw(4, 9), draw(1, 9) + 300, draw(1, 9) - 300, torch.full((1, 9), -torch.inf)]).to(dtype)
    y = softmax1(x, off_by_one=True)

    judge("softmax", x, y, options={"off_by_one": True}).raise_if_failed()
    assert torch.equal(y[-1], torch.zeros(9, dtype=dtype))
    assert torch.equal(softmax1(x[:4]), own_kernels("softmax")["shifted"].call(x[:4]))


# compiled

# Torch's own, as it imports inductor.
quiet = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_gradients():
    """As hosts call kernels."""
    with torch.no_grad():
        yield


@pytest.fixture
def graphs():
    """Counts the graphs that dynamo has captured since the start of the test."""
    torch.compiler.reset()
    from torch._dynamo.utils import counters

    start = counters["stats"]["unique_graphs"]
    yield lambda: counters["stats"]["unique_graphs"] - start
    torch.compiler.reset()


@pytest.fixture
def without_inductor(monkeypatch):
    """dynamo with the graph run as captured: limits, guards and fallbacks are dynamo's, and code
    takes seconds to make.
    """
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, backend="eager", **options))


def shift(x, dim):
    return torch.exp(x - row_max(x, dim))


@pytest.mark.share(of=3)
@quiet
@pytest.mark.parametrize("op", OPS)
def test_compiled_is_compiled_and_its_graph_serves_other_lengths(op, graphs):
    judged(op, COMPILED[op], draw(4, 33))
    judged(op, COMPILED[op], draw(7, 130))

    assert graphs() == 1


@pytest.mark.share(of=4)
@quiet
@pytest.mark.parametrize(("shape", "dim"), [((3, 511), -1), ((3, 512), 1), ((2, 3, 1025), 2), ((513, 4), 0)])
def test_blocks_of_a_compiled_row_need_not_be_full(shape, dim):
    online, x = own_kernels("softmax")["online_compiled"], draw(*shape)
    x.movedim(dim, -1)[0] = -torch.inf

    judged("softmax", online, x, dim)
    assert call(online, torch.empty(0, 5)).shape == (0, 5)


def test_the_ninth_graph_is_compiled_too(graphs, without_inductor):
    """torch.compile runs the ninth eagerly, or raises with fullgraph; `shift` cannot run eagerly
    under this decorator.
    """
    function = compiled(shift)
    inputs = [
        draw(*shape, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
        for shape in [(2,) * r for r in range(1, 6)]
    ]
    for x in inputs:
        assert torch.equal(function(x), shift(x, -1))

    assert graphs() == len(inputs) == 10


def test_the_limit_is_reached_by_those_ten_graphs(graphs, without_inductor):
    """Else the test above would say nothing: the same calls without the decorator's second try end
    in an error.
    """
    bare = torch.compile(shift, fullgraph=True, dynamic=True)
    for r in range(1, 9):
        bare(draw(*(2,) * r), -1)

    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        bare(draw(*(2,) * 9), -1)
    assert torch.equal(compiled(shift)(draw(3), -1), shift(draw(3), -1))


def test_an_eager_run_is_an_error_and_no_result(graphs, without_inductor):
    function = compiled(shift)

    with (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(RuntimeError, match="ran this function eagerly"),
    ):
        function(draw(2, 3))
    assert torch.equal(function(draw(2, 3)), shift(draw(2, 3), -1))


@quiet
def test_without_a_compiler_the_kernel_raises_what_torch_says(graphs):
    import torch._inductor.config as inductor

    with (
        inductor.patch({"cpp.cxx": ("/nonexistent/c++",)}),
        pytest.raises(Exception, match=r"No working C\+\+ compiler"),
    ):
        call(COMPILED["softmax"], draw(3, 5, dtype=torch.float64))
