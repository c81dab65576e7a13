"""The Triton kernels: judged through the interpreter where the cases do not look, compiled for a
GPU that need not be here.
"""

import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.execution.in_process import InProcess
from suite.formats import DTYPES, get_format
from suite.kernels import own_kernels
from suite.verdict.judge import judge
from tests.extras import needs
from tests.sources import compiled, loaded, mutated

needs("triton")

import triton.language as tl  # noqa: E402, TID253

from suite.kernels.parts import triton_fused, triton_online, triton_rows, triton_split  # noqa: E402
from suite.kernels.parts.triton_configuration import trying  # noqa: E402

OPS = ("softmax", "log_softmax", "logsumexp")
IDEAS = ("fused", "online", "split")
INTERPRETED = {(op, idea): own_kernels(op)[f"triton_{idea}_interpreter"] for op in OPS for idea in IDEAS}
EVERY = [pytest.param(op, idea, id=f"{op}-{idea}") for op in OPS for idea in IDEAS]
INF, NAN = float("inf"), float("nan")


def draw(*shape, dtype=torch.float32):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(5)) * 4).to(dtype)


def judged(op, idea, x, dim=-1):
    judge(op, x, INTERPRETED[op, idea].call(x, dim=dim), options={"dim": dim}).raise_if_failed()


@pytest.mark.parametrize(("op", "idea"), EVERY)
@pytest.mark.parametrize("n", [1, 127, 128, 129, 257])
def test_every_entry_around_the_ends_of_a_block_counts_once(op, idea, n):
    x = torch.full((5, n), -30.0)
    x[0, 0], x[1, n - 1], x[2, n // 2], x[3, min(127, n - 1)], x[4, min(128, n - 1)] = 1, 2, 3, 4, 5
    judged(op, idea, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "idea"), EVERY)
def test_every_dtype_is_rounded_once(op, idea, dtype):
    judged(op, idea, draw(7, 300, dtype=getattr(torch, dtype)))


@pytest.mark.parametrize(("op", "idea"), EVERY)
def test_special_values_of_one_block_reach_the_whole_row(op, idea):
    x = draw(8, 300)
    x[0] = -INF
    x[1, :128] = -INF
    x[2, 128:] = -INF
    x[3, 5] = INF
    x[4, 299] = INF
    x[5, 200] = NAN
    x[6, 3], x[6, 250] = NAN, INF
    x[7] = NAN
    judged(op, idea, x)


@pytest.mark.parametrize(("op", "idea"), EVERY)
def test_any_dim_and_any_strides(op, idea):
    judged(op, idea, draw(2, 140, 3), dim=1)
    judged(op, idea, draw(140, 3).t()[:, ::2], dim=1)
    judged(op, idea, draw(2, 140), dim=-2)
    judged(op, idea, draw(140), dim=0)


@pytest.mark.parametrize(("op", "idea"), EVERY)
@pytest.mark.parametrize(("shape", "dim"), [((0, 5), 1), ((3, 0), 1), ((0, 3), 0), ((2, 0, 3), 1)])
def test_an_empty_input_has_an_empty_result_and_an_empty_row_the_logsumexp_minus_infinity(
    op, idea, shape, dim
):
    y = INTERPRETED[op, idea].call(torch.empty(shape), dim=dim)

    assert y.shape == torch.Size(shape if op != "logsumexp" else shape[:dim] + shape[dim + 1 :])
    assert (y == -INF).all()


def test_more_parts_than_one_block_can_merge_become_longer_parts():
    with trying("split", {"shortest_part": 128, "most_parts": 4, "entries": 4096, "warps": 4}):
        for op in OPS:
            judged(op, "split", draw(3, 1100))


def test_a_row_that_does_not_fit_is_unsupported():
    n = triton_fused.LONGEST_ROW + 1
    record = evaluate(Case(op="softmax", family="ties", shape=(1, n)), INTERPRETED["softmax", "fused"])

    assert record.status == "unsupported"
    assert f"rows of at most 65536 entries, not {n}" in record.message


@pytest.mark.parametrize(("op", "idea"), EVERY)
def test_the_interpreter_is_never_passed_off_as_the_device(op, idea):
    native, interpreted = own_kernels(op)[f"triton_{idea}"], INTERPRETED[op, idea]
    options, format = {"dim": -1}, get_format("float32")

    assert native.supports(options, format, "cpu") == "declares devices cuda"
    assert interpreted.supports(options, format, "cuda:0") == "declares devices cpu"
    assert (native.slow, interpreted.slow) == (False, True)


@pytest.mark.parametrize("idea", IDEAS)
def test_the_interpreter_is_quiet_and_leaves_the_process_as_it_was(idea):
    before = {name: getattr(tl, name) for name in ("load", "reduce", "range", "exp")}
    x = torch.full((2, 200), -INF)

    outcome = InProcess().call(INTERPRETED["softmax", idea], x, {"dim": -1})

    assert outcome.status is None
    assert (outcome.warnings, outcome.output, outcome.state_changes, outcome.modified) == ((), "", (), False)
    assert {name: getattr(tl, name) for name in before} == before


def test_the_interpreters_own_bfloat16_is_truncated_which_is_why_rows_pass_in_float32():
    """Where this fails, Triton's interpreter has learnt to round: over_rows can let bfloat16 pass
    as it is.
    """
    x = draw(4, 300, dtype=torch.bfloat16)
    y = torch.empty_like(x)
    triton_fused._compute("softmax", x, y)

    assert judge("softmax", x, y).status == "inaccurate"


# The same sources, decorated while TRITON_INTERPRET is set.


def test_with_triton_interpret_set_the_cpu_works_and_a_device_is_declined(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = loaded(triton_online.__file__)
    x = draw(3, 200)

    judge("softmax", x, module.online("softmax", x, -1)).raise_if_failed()
    with pytest.raises(
        NotImplementedError, match="TRITON_INTERPRET is set: nothing can be compiled for meta"
    ):
        triton_rows.launch(module.online_kernel, (1,), x.to("meta"))


FAULTS = {
    "the sum is not rescaled": (triton_online, "d = d * tl.exp(m - m_finite) +", "d = d +"),
    "the last block is left out": (triton_online, "while start < n:", "while start + BLOCK < n:"),
    "parts are added unscaled": (triton_split, "d_k * tl.exp(m_k - m_finite)", "d_k"),
    "padding counts as 0": (triton_fused, 'mask=inside, other=-float("inf")', "mask=inside, other=0.0"),
    "a block of -inf is not guarded": (triton_online, "tl.where(tl.abs(m_new) == float(\"inf\"), 0.0, m_new)",
        "m_new"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_written_into_the_kernel_is_seen(fault, tmp_path):
    module, right, wrong = FAULTS[fault]
    x = draw(4, 300)
    x[0, :128] = -INF
    faulty = mutated(module, right, wrong, tmp_path)

    y = getattr(faulty, module.__name__.rpartition("_")[2])("softmax", x, -1)

    assert not judge("softmax", x, y).passed


# Compiled for a GPU of compute capability 9.0, down to its machine code; nothing is run.


def ptx(kernel, element, op, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    wide = "fp64" if element == "fp64" else "fp32"
    constants = {
        "OP": op,
        "FORMAT": tl.float64 if wide == "fp64" else tl.float32,
        "ROWS": 4,
        "BLOCK": 64,
        "PART": 64,
        "PARTS": 64,
    }
    kinds = {"x_ptr": f"*{element}", "y_ptr": f"*{element}", "m_ptr": f"*{wide}", "d_ptr": f"*{wide}"}
    made = compiled(kernel, kinds, constants)
    assert made.asm["cubin"]
    return made.asm["ptx"]


KERNELS = {
    "fused": triton_fused.fused_kernel,
    "online": triton_online.online_kernel,
    "part": triton_split.part_kernel,
    "merge": triton_split.merge_kernel,
    "normalise": triton_split.normalise_kernel,
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_compiles_for_cuda_with_the_exp_that_its_docstring_names(kernel, monkeypatch, tmp_path):
    text = ptx(KERNELS[kernel], "bf16", "softmax", monkeypatch, tmp_path)

    assert "ex2.approx.f32" in text
    assert ".ftz" not in text
    if kernel in ("fused", "online", "normalise"):
        assert "cvt.rn.bf16" in text


def test_float64_is_not_approximated_on_cuda(monkeypatch, tmp_path):
    text = ptx(triton_fused.fused_kernel, "fp64", "softmax", monkeypatch, tmp_path)

    assert "div.rn.f64" in text
    assert "ex2.approx" not in text
