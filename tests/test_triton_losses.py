"""Triton's log_softmax, cross_entropy and softmax, both ways: judged through the interpreter,
faults written into them, compiled for a GPU that need not be here.
"""

import pytest
import torch

from suite.formats import DTYPES
from suite.kernels import own_kernels
from suite.verdict.judge import judge
from tests.extras import needs
from tests.sources import compiled, mutated

needs("triton")

import triton  # noqa: E402, TID253  (skipped above where there is no Triton)
import triton.language as tl  # noqa: E402, TID253

from suite.kernels.parts import triton_cross_entropy, triton_log_softmax, triton_rows, triton_softmax_backward  # noqa: E402

SOFTMAX, LOG_SOFTMAX = triton_softmax_backward.softmax, triton_log_softmax.log_softmax
ROW_OPS = {"softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX}
VOCABULARY = 128256
INF, NAN = float("inf"), float("nan")


def draw(*shape, dtype=torch.float32, seed=5, scale=4.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def both_ways(op, function, x, dim=-1, upstream=None):
    """The judgements of the result and of the gradient."""
    given = x.detach().requires_grad_()
    y = function(given, dim)
    g = draw(*y.shape, seed=6, scale=1.0).to(y.dtype) if upstream is None else upstream
    (dx,) = torch.autograd.grad(y, given, g)
    assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
    options = {"dim": dim}
    return judge(op, x, y.detach(), options=options), judge(op, {"x": x, "upstream": g}, dx, options=options)


def loss_both_ways(function, logits, target, upstream=None, **options):
    given = logits.detach().requires_grad_()
    loss = function(given, target, **options)
    g = draw(*loss.shape, seed=6, scale=1.0).to(loss.dtype) if upstream is None else upstream
    (dz,) = torch.autograd.grad(loss, given, g)
    assert (dz.shape, dz.dtype) == (logits.shape, logits.dtype)
    inputs = {"logits": logits, "target": target}
    return (
        judge("cross_entropy", inputs, loss.detach(), options=options),
        judge("cross_entropy", {**inputs, "upstream": g}, dz, options=options),
    )


def passes(judgements):
    for judgement in judgements:
        judgement.raise_if_failed()


@pytest.fixture
def blocks_of_64(monkeypatch):
    """Short rows of several blocks, two rows to a program."""

    def tiling(rows):
        constants = {"FORMAT": triton_rows.arithmetic(rows), "ROWS": 2, "BLOCK": 64, "num_warps": 4}
        return (triton.cdiv(len(rows), 2),), constants

    for module in (triton_log_softmax, triton_softmax_backward, triton_cross_entropy):
        monkeypatch.setattr(module, "tiling", tiling)


def test_the_registered_kernels_are_these():
    x, target = draw(2, 5).requires_grad_(), torch.tensor([1, 4])
    for op, function in ROW_OPS.items():
        y = own_kernels(op)["triton_fused_interpreter"].call(x, dim=-1)
        assert (
            type(y.grad_fn).__name__
            == {"softmax": "SoftmaxBackward", "log_softmax": "LogSoftmaxBackward"}[op]
        )
        assert torch.equal(y, function(x, -1))
    loss = own_kernels("cross_entropy")["triton_fused_interpreter"].call(x, target, reduction="none")
    assert torch.equal(loss, triton_cross_entropy.cross_entropy(x, target, reduction="none"))
    for op in (*ROW_OPS, "cross_entropy"):
        native, interpreted = (own_kernels(op)[f"triton_fused{ending}"] for ending in ("", "_interpreter"))
        assert (native.devices, interpreted.devices) == (("cuda",), ("cpu",))
        assert (native.slow, interpreted.slow) == (False, True)


@pytest.mark.usefixtures("blocks_of_64")
@pytest.mark.parametrize("op", ROW_OPS)
@pytest.mark.parametrize("n", [1, 63, 64, 65, 129])
def test_every_entry_around_the_ends_of_a_block_counts_once(op, n):
    x = torch.full((5, n), -30.0)
    x[0, 0], x[1, n - 1], x[2, n // 2], x[3, min(63, n - 1)], x[4, min(64, n - 1)] = 1, 2, 3, 4, 5
    passes(both_ways(op, ROW_OPS[op], x))
    passes(both_ways(op, ROW_OPS[op], x, upstream=torch.nn.functional.one_hot(x.argmax(-1), n).float()))
    passes(
        loss_both_ways(
            triton_cross_entropy.cross_entropy, x, x.argmax(-1), reduction="none", label_smoothing=0.1
        )
    )


@pytest.mark.usefixtures("blocks_of_64")
@pytest.mark.parametrize("op", ROW_OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_rounded_once(op, dtype):
    passes(both_ways(op, ROW_OPS[op], draw(3, 150, dtype=getattr(torch, dtype))))


@pytest.mark.usefixtures("blocks_of_64")
@pytest.mark.parametrize("op", ROW_OPS)
def test_any_dim_and_any_strides_and_an_upstream_of_stride_0(op):
    passes(both_ways(op, ROW_OPS[op], draw(2, 70, 3), dim=1))
    passes(both_ways(op, ROW_OPS[op], draw(140, 3).t()[:, ::2]))
    passes(both_ways(op, ROW_OPS[op], draw(70), dim=0))
    passes(both_ways(op, ROW_OPS[op], draw(2, 70), upstream=torch.ones(()).expand(2, 70)))


def special_rows():
    x = draw(9, 150)
    x[0] = -INF
    x[1, :64] = -INF
    x[2, 64:] = -INF
    x[3, 5] = INF
    x[4, 149] = INF
    x[5, 100] = NAN
    x[6, 3], x[6, 140] = NAN, INF
    x[7] = NAN
    return x


@pytest.mark.usefixtures("blocks_of_64")
@pytest.mark.parametrize("op", ROW_OPS)
def test_special_values_reach_their_own_row_and_no_other(op):
    passes(both_ways(op, ROW_OPS[op], special_rows()))


@pytest.mark.usefixtures("blocks_of_64")
@pytest.mark.parametrize(
    ("smoothing", "reduction"), [(0.0, "mean"), (0.1, "mean"), (0.1, "none"), (1.0, "sum")]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_and_its_gradient_for_every_reduction(dtype, smoothing, reduction):
    z, target = draw(3, 70, 2, dtype=getattr(torch, dtype)), torch.tensor([[0, 69], [-100, 64], [63, -100]])
    passes(
        loss_both_ways(
            triton_cross_entropy.cross_entropy, z, target, label_smoothing=smoothing, reduction=reduction
        )
    )


@pytest.mark.usefixtures("blocks_of_64")
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_special_logits_of_a_loss_and_ignored_rows_that_hold_them(smoothing):
    z = special_rows()
    for target in (torch.full((9,), 70), torch.full((9,), 3)):
        options = {"label_smoothing": smoothing, "reduction": "none"}
        passes(loss_both_ways(triton_cross_entropy.cross_entropy, z, target, **options))
    target = torch.tensor([7, 7, 7, 7, 7, 7, 7, 7, 8])
    options = {"label_smoothing": smoothing, "ignore_index": 7}
    passes(loss_both_ways(triton_cross_entropy.cross_entropy, z, target, **options))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_where_every_row_is_ignored_the_gradient_is_0_and_the_mean_nan(reduction):
    z, target = draw(2, 5), torch.tensor([-100, -100])
    passes(loss_both_ways(triton_cross_entropy.cross_entropy, z, target, reduction=reduction))
    passes(loss_both_ways(triton_cross_entropy.cross_entropy, draw(5), torch.tensor(3), reduction=reduction))


def test_an_offset_rounds_no_loss():
    z = torch.tensor([[100000.0, 100000.0625, 99999.9375]])
    passes(loss_both_ways(triton_cross_entropy.cross_entropy, z, torch.tensor([2]), label_smoothing=0.1))


def test_a_row_of_a_vocabulary():
    x, target = draw(1, VOCABULARY, dtype=torch.bfloat16), torch.tensor([VOCABULARY - 1])
    passes(both_ways("log_softmax", LOG_SOFTMAX, x))
    passes(loss_both_ways(triton_cross_entropy.cross_entropy, x, target, label_smoothing=0.1))


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 3)])
def test_empty_inputs_have_empty_results_and_gradients(shape):
    for function in ROW_OPS.values():
        x = torch.empty(shape, requires_grad=True)
        y = function(x, 1)
        (dx,) = torch.autograd.grad(y, x, y)
        assert y.shape == dx.shape == torch.Size(shape)
    z = torch.empty((0, 5), requires_grad=True)
    loss = triton_cross_entropy.cross_entropy(z, torch.empty(0, dtype=torch.int64))
    assert loss.isnan()
    assert torch.autograd.grad(loss, z)[0].shape == (0, 5)


def test_other_targets_and_reductions_are_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(triton_cross_entropy, "launch", None)
    z = draw(2, 5)
    with pytest.raises(NotImplementedError, match=r"target of class indices, int64, not torch\.float32"):
        triton_cross_entropy.cross_entropy(z, torch.softmax(z, -1))
    with pytest.raises(ValueError, match="reduction='max' is not one of mean, sum, none"):
        triton_cross_entropy.cross_entropy(z, torch.tensor([1, 2]), reduction="max")


def test_a_target_that_is_no_class_reads_nothing_and_gives_nan():
    z = draw(3, 5).requires_grad_()
    loss = triton_cross_entropy.cross_entropy(z, torch.tensor([5, -1, 4]), reduction="none")
    (dz,) = torch.autograd.grad(loss, z, torch.ones(3))

    assert loss.isnan().tolist() == [True, True, False]
    assert dz.isnan().all(-1).tolist() == [True, True, False]
    assert not dz[2].isnan().any()


# The same sources, with a fault.

FAULTS = {
    "log_softmax": {
        "the sum is not rescaled": ("d = d * tl.exp(m - m_finite) +", "d = d +"),
        "a block of -inf is not guarded": ('tl.where(tl.abs(m_new) == float("inf"), 0.0, m_new)', "m_new"),
        "the sum of g is of the last block": ("total += tl.reduce", "total = tl.reduce"),
        "p is not divided": ("tl.exp(x - m) / d * total", "tl.exp(x - m) * total"),
        "the sum of g is left out": ("/ d * total", "/ d"),
        "g has the strides of x": ("*g.stride(), **constants", "*rows.stride(), **constants"),
    },
    "softmax": {
        "the mean is of the last block": ("mean += tl.reduce", "mean = tl.reduce"),
        "the mean is left out": ("p * (g - mean)", "p * g"),
        "the mean is not weighted": ("tl.reduce(p * g, 1", "tl.reduce(g, 1"),
        "g has the strides of p": ("*g.stride(), **constants", "*p.stride(), **constants"),
    },
    "cross_entropy": {
        "the sum is not rescaled": ("d = d * tl.exp(m - m_finite) +", "d = d +"),
        "a block of -inf is not guarded": ('tl.where(tl.abs(m_new) == float("inf"), 0.0, m_new)', "m_new"),
        "padding has a gap": ("tl.where(inside, m_finite - z, 0.0)", "m_finite - z"),
        "gaps of the last block": ("gaps += tl.reduce", "gaps = tl.reduce"),
        "the loss of the target is not weighted": ("(1 - tl.full([ROWS, 1], SMOOTHING, FORMAT)) * (m", "(m"),
        "the gaps are not a mean": ("(gaps / n)", "gaps"),
        "the gradient is not smoothed": (" + smoothing / n", ""),
        "the gradient's target is in every block": ("column == target", "column % BLOCK == target % BLOCK"),
        "an ignored row has a loss": ("tl.where(target == ignore_index, 0.0, loss)", "loss"),
        "an ignored row has a gradient": ("tl.where(target == ignore_index, 0.0, dz)", "dz"),
        "ignored rows count in the mean": ("(target != ignore_index).sum()", "target.numel()"),
        "the upstream is left out": ("dz = w * (", "dz = ("),
    },
}
MODULES = {
    "log_softmax": triton_log_softmax,
    "softmax": triton_softmax_backward,
    "cross_entropy": triton_cross_entropy,
}
EVERY_FAULT = [
    pytest.param(op, fault, id=f"{op}-{fault}") for op, faults in FAULTS.items() for fault in faults
]


@pytest.mark.usefixtures("blocks_of_64")
@pytest.mark.parametrize(("op", "fault"), EVERY_FAULT)
def test_a_fault_written_into_the_kernel_is_seen(op, fault, tmp_path):
    right, wrong = FAULTS[op][fault]
    faulty = mutated(MODULES[op], right, wrong, tmp_path)
    faulty.tiling = MODULES[op].tiling
    x = draw(4, 150, scale=1.0)
    x[1, 140] = 8.0
    hidden = x.clone()
    hidden[0, :64] = -INF

    if op == "cross_entropy":
        target = torch.tensor([100, 3, 140, -100])
        found = loss_both_ways(faulty.cross_entropy, hidden, target)
        # -inf would make it infinite.
        found += loss_both_ways(faulty.cross_entropy, x, target, label_smoothing=0.1)
    else:
        g = draw(150, 4, seed=6, scale=1.0).t() + 0.5  # strides that x has not
        found = both_ways(op, getattr(faulty, op), hidden, upstream=g)

    assert not all(judgement.passed for judgement in found)


# Compiled for a GPU of compute capability 9.0, down to its machine code; nothing is run.

KERNELS = {
    "log_softmax": triton_log_softmax.forward_kernel,
    "log_softmax backward": triton_log_softmax.backward_kernel,
    "softmax backward": triton_softmax_backward.backward_kernel,
    "cross_entropy": triton_cross_entropy.forward_kernel,
    "cross_entropy backward": triton_cross_entropy.backward_kernel,
}


@pytest.mark.parametrize("element", ["bf16", "fp64"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_compiles_for_cuda_and_has_the_exp_of_its_format(kernel, element, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function, wide = KERNELS[kernel], "fp64" if element == "fp64" else "fp32"
    constants = {
        "FORMAT": tl.float64 if element == "fp64" else tl.float32,
        "ROWS": 2,
        "BLOCK": 64,
        "SMOOTHING": 0.1,
    }
    kinds = dict.fromkeys(("x_ptr", "y_ptr", "g_ptr", "p_ptr", "z_ptr", "dx_ptr", "dz_ptr"), f"*{element}")
    kinds |= dict.fromkeys(("m_ptr", "d_ptr", "w_ptr", "loss_ptr"), f"*{wide}") | {"target_ptr": "*i64"}
    made = compiled(function, kinds, constants)

    assert made.asm["cubin"]
    text = made.asm["ptx"]
    exponentials, quotients = kernel != "softmax backward", kernel not in ("softmax backward", "log_softmax")
    assert ("ex2.approx.f32" in text) == (element == "bf16" and exponentials)
    assert ("cvt.rn.bf16" in text) == (element == "bf16" and kernel != "cross_entropy")
    assert ("div.rn.f64" in text) == (element == "fp64" and quotients)
    if kernel.startswith("cross_entropy"):  # 1 - 0.1 with all of its digits
        assert ("0d3FECCCCCCCCCCCCD" in text) == (element == "fp64")
