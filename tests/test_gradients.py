"""The engine on cases of the backward: whatever a backward pass does is a status and a message,
here and in its own process.
"""

import re
import sys

import pytest
import torch

from suite import judge
from suite.case import Case
from suite.execution.adapters import adapted_call
from suite.execution.evaluation import evaluate
from suite.execution.gradients import gradients
from suite.execution.isolated import Isolated
from suite.formats import float32
from suite.kernels import Kernel, declarations, kernel, load_kernels
from suite.oracle import Oracle

ORACLE = Oracle()
CASE = Case(op="softmax", family="normal", shape=(6, 33), upstream="normal")
EXPANDED = Case(op="softmax", family="normal", shape=(6, 33), upstream="ones", layout="expanded")

SOURCE = """
import ctypes, os, signal, sys, time, warnings
import numpy as np
import torch
from suite.kernels import kernel

def right(p, g):
    return p * (g - (p * g).sum(-1, keepdim=True))

def softmax_with(backward, forward=None):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (forward or (lambda x: torch.softmax(x, -1)))(x)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return backward(x, torch.softmax(x, -1), g)

    return lambda x, dim=-1: Function.apply(x)

def then(action):
    def backward(x, p, g):
        action(x, g)
        return right(p, g)
    return softmax_with(backward)

# Right ones

right_function = softmax_with(lambda x, p, g: right(p, g))
prints = then(lambda x, g: print("on the way back"))
warns = then(lambda x, g: warnings.warn("on the way back"))

def composed(x, dim=-1):
    e = torch.exp(x - x.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)

def maximum_without_gradient(x, dim=-1):
    with torch.no_grad():
        m = x.amax(dim, keepdim=True)
    e = torch.exp(x - m)
    return e / e.sum(dim, keepdim=True)

wider = softmax_with(lambda x, p, g: right(p.double(), g.double()))

@kernel("softmax", backward=True)
def declared(x, dim=-1):
    return torch.softmax(x, dim)

# No backward

def detached(x, dim=-1):
    return torch.softmax(x, dim).detach()

def without_gradient(x, dim=-1):
    with torch.no_grad():
        return torch.softmax(x, dim)

def in_inference_mode(x, dim=-1):
    with torch.inference_mode():
        return torch.softmax(x, dim)

def by_numpy(x, dim=-1):
    return torch.from_numpy(torch.softmax(x, dim).detach().numpy().copy())

@kernel("softmax", adapter="numpy")
def of_numpy(x, dim=-1):
    e = np.exp(x - x.max(dim, keepdims=True))
    return e / e.sum(dim, keepdims=True)

@kernel("softmax", backward=False)
def declared_without(x, dim=-1):
    return torch.softmax(x, dim)

@kernel("softmax", backward=True)
def declared_and_detached(x, dim=-1):
    return torch.softmax(x, dim).detach()

def _not_written(x, p, g):
    raise NotImplementedError("the backward is not written yet")

not_written = softmax_with(_not_written)

def declines_some(x, dim=-1):
    return torch.softmax(x, dim) if bool((x == 0).all()) else torch.softmax(x, dim).detach()

# Wrong ones

gives_none = softmax_with(lambda x, p, g: None)
wrong_shape = softmax_with(lambda x, p, g: right(p, g)[:, :5])
one_number = softmax_with(lambda x, p, g: g.sum())
two_gradients = softmax_with(lambda x, p, g: (right(p, g), g))
narrower = softmax_with(lambda x, p, g: right(p, g).half())
an_array = softmax_with(lambda x, p, g: right(p, g).numpy())
gives_nan = softmax_with(lambda x, p, g: right(p, g) * torch.nan)
gives_infinity = softmax_with(lambda x, p, g: right(p, g) / 0.0)
gives_zeros = softmax_with(lambda x, p, g: torch.zeros_like(x))
without_its_sum = softmax_with(lambda x, p, g: p * g)
of_the_upstream = softmax_with(lambda x, p, g: g)

def _raises(x, p, g):
    raise ValueError("rows are too long for the way back")

raises = softmax_with(_raises)
exits = softmax_with(lambda x, p, g: sys.exit(0))
needs_contiguous = softmax_with(lambda x, p, g: right(p, g.view(-1).view(p.shape)))

def _reads_as_contiguous(x, p, g):
    return right(p, torch.as_strided(g, p.shape, p.stride(), g.storage_offset()))

reads_as_contiguous = softmax_with(_reads_as_contiguous)
writes_into_the_upstream = softmax_with(lambda x, p, g: g.sub_((p * g).sum(-1, keepdim=True)).mul_(p))
writes_into_the_input = then(lambda x, g: x.data.fill_(0.0))

def writes_in_the_forward(x, dim=-1):
    return x.copy_(torch.softmax(x, dim))

def writes_past_autograd(x, dim=-1):
    y = torch.softmax(x, dim)
    x.data.zero_()
    return y

def writes_into_what_autograd_saved(x, dim=-1):
    y = torch.softmax(x, dim)
    z = y * 1.0
    y.zero_()
    return z

def of_two(x, dim=-1):
    return torch.softmax(x, dim), x

def of_an_array(x, dim=-1):
    return torch.softmax(x, dim).detach().numpy()

def of_nothing(x, dim=-1):
    pass

def of_wrong_shape(x, dim=-1):
    return torch.softmax(x, dim)[:, :5]

changes_the_threads = then(lambda x, g: torch.set_num_threads(3))
changes_the_default_dtype = then(lambda x, g: torch.set_default_dtype(torch.float64))
turns_gradients_off = then(lambda x, g: torch.set_grad_enabled(False))
draws = then(lambda x, g: torch.rand(1))

KEPT = []

def _keeps(x, p, g):
    KEPT.append(KEPT[0] if KEPT else g.clone())
    return right(p, KEPT[-1])

keeps_the_first_upstream = softmax_with(_keeps)

# Ones that must have a process of their own

hangs = then(lambda x, g: time.sleep(600))
segfaults = then(lambda x, g: ctypes.memset(0, 1, 8))
is_killed = then(lambda x, g: (os.kill(os.getpid(), signal.SIGKILL), time.sleep(60)))
leaves = then(lambda x, g: os._exit(0))
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("kernels") / "kernels.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def named(path):
    """The kernel of this name in SOURCE, of this process."""

    def load(name):
        [found] = load_kernels(f"{path}:{name}", "softmax")
        return found

    return load


@pytest.fixture(scope="module")
def host():
    with Isolated(memory_bytes=2**28) as host:
        yield host


def judged(kernel, case=CASE, **given):
    return evaluate(case, kernel, oracle=ORACLE, **given)


RIGHT = (
    "right_function",
    "prints",
    "warns",
    "composed",
    "maximum_without_gradient",
    "wider",
    "declared",
    "turns_gradients_off",
)
UNSUPPORTED = {
    "detached": r"NotImplementedError: its output has no gradient \(upstream\)",
    "without_gradient": r"its output has no gradient \(upstream\)",
    "in_inference_mode": r"its output has no gradient \(upstream\)",
    "by_numpy": r"its output has no gradient \(upstream\)",
    "of_numpy": "a kernel of numpy has no backward here: gradients are those of torch's autograd",
    "declared_without": "declares that it has no backward",
    "not_written": "NotImplementedError: the backward is not written yet",
}
WRONG = {
    "declared_and_detached": ("raised", r"its output has no gradient \(upstream\)"),
    "declines_some": ("raised", r"its output has no gradient \(upstream\).*\(only on this case's input\)"),
    "gives_none": ("wrong_type", "the backward returned None for x; expected a gradient"),
    "wrong_shape": (
        "raised",
        r"returned an invalid gradient at index 0 - got \[6, 5\] but expected shape .*\[6, 33\]",
    ),
    "one_number": (
        "raised",
        r"returned an invalid gradient at index 0 - got \[\] but expected shape .*\[6, 33\]",
    ),
    "two_gradients": ("raised", "incorrect number of gradients"),
    "narrower": ("inaccurate", "softmax backward float32"),
    "an_array": ("raised", "expected Variable or None"),
    "gives_nan": ("nonfinite", "softmax backward float32"),
    "gives_infinity": ("nonfinite", "softmax backward float32"),
    "gives_zeros": ("inaccurate", r"got +0\.0"),
    "without_its_sum": ("inaccurate", "upstream .* there"),
    "of_the_upstream": ("inaccurate", "upstream .* there"),
    "raises": ("raised", r"ValueError: rows are too long for the way back \(at kernels\.py:\d+\)"),
    "exits": ("raised", "SystemExit"),
    "writes_into_the_upstream": ("law_broken", "input untouched: the kernel changed its input tensor"),
    "writes_into_the_input": ("law_broken", "input untouched: the kernel changed its input tensor"),
    "writes_in_the_forward": (
        "raised",
        "a leaf Variable that requires grad is being used in an in-place operation",
    ),
    "writes_past_autograd": ("law_broken", "input untouched: the kernel changed its input tensor"),
    "writes_into_what_autograd_saved": ("raised", "modified by an inplace operation"),
    "of_two": ("wrong_type", "the forward returned Tensor, Tensor; expected tensors of torch: softmax"),
    "of_an_array": ("wrong_type", "the forward returned ndarray; expected tensors of torch: softmax"),
    "of_nothing": ("wrong_type", "the forward returned NoneType; expected tensors of torch: softmax"),
    "of_wrong_shape": ("raised", r"Mismatch in shape: grad_output\[0\] has a shape of .*\[6, 33\].*\[6, 5\]"),
    "changes_the_threads": ("law_broken", "global state untouched: the kernel changed threads"),
    "changes_the_default_dtype": ("law_broken", "global state untouched: the kernel changed default_dtype"),
    "draws": ("law_broken", "global state untouched: the kernel changed torch_seed"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_backward_passes(name, named):
    for case in (CASE, EXPANDED):
        record = judged(named(name), case)
        assert (record.status, record.direction, record.broken) == ("passed", "backward", ()), record.message
        assert record.case.endswith(f"/upstream={case.upstream}/s0")
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_without_a_backward_a_kernel_is_unsupported_and_says_why(name, named):
    record = judged(named(name))

    assert record.status == "unsupported"
    assert re.search(UNSUPPORTED[name], record.message), record.message
    if name != "not_written":
        assert judged(named(name), Case(op="softmax", family="normal", shape=(6, 33))).status == "passed"


@pytest.mark.parametrize("name", WRONG)
def test_each_fault_of_a_backward_has_its_status_and_a_message_that_says_why(name, named):
    status, words = WRONG[name]
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()

    record = judged(named(name))

    assert record.status == status, record.message
    assert re.search(words, record.message, re.DOTALL), record.message
    assert "Traceback" not in record.message
    assert record.reproduce.endswith(f"--case {CASE.id}")
    assert (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()) == (
        threads,
        dtype,
        True,
    )
    assert judged(named("composed")).status == "passed"


def test_a_backward_that_needs_a_contiguous_upstream_raises_on_an_expanded_one(named):
    record = judged(named("needs_contiguous"), EXPANDED)

    assert record.status == "raised"
    assert "view size is not compatible with input tensor's size and stride" in record.message
    assert judged(named("needs_contiguous")).status == "passed"


@pytest.mark.parametrize("layout", ["transposed", "strided", "padded", "expanded"])
def test_the_upstream_has_the_layout_of_the_case(layout, named):
    """A right backward passes in every layout; one that takes the upstream's memory in order is
    wrong in all but one.
    """
    upstream = "ones" if layout == "expanded" else "normal"
    case = Case(op="softmax", family="normal", shape=(6, 33), upstream=upstream, layout=layout)

    assert judged(named("right_function"), case).status == "passed"
    assert judged(named("reads_as_contiguous"), case).status == (
        "inaccurate" if layout == "transposed" else "nonfinite"
    )
    assert judged(named("reads_as_contiguous")).status == "passed"


def test_what_a_backward_writes_and_says_is_recorded(named):
    assert judged(named("prints")).outcome.output == "on the way back\n"
    assert judged(named("warns")).outcome.warnings == ("UserWarning: on the way back",)


def test_a_kernel_that_keeps_its_first_upstream_breaks_a_law_and_no_single_call_tells(named):
    kept = named("keeps_the_first_upstream")
    assert judged(kept).status == "passed"
    laws = Case(op="softmax", family="normal", shape=(6, 33), upstream="normal", laws=("other_upstream",))
    record = judged(kept, laws)

    assert record.status == "law_broken"
    assert "law       other_upstream: the upstream reversed" in record.message


# In a process of its own


@pytest.mark.skipif(sys.platform != "linux", reason="what is promised of processes is promised for Linux")
@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("hangs", "timed_out", r"still in its call after .* \(at kernels\.py:\d+"),
        ("segfaults", "crashed", r"SIGSEGV, in its call \(at kernels\.py:\d+"),
        ("is_killed", "crashed", "SIGKILL"),
        ("leaves", "crashed", "exited with code 0"),
    ],
)
def test_a_backward_that_ends_its_process_or_never_comes_back(name, status, words, path, host):
    [isolated] = host.load(f"{path}:{name}", "softmax")
    record = judged(isolated, host=host, timeout=3 if status == "timed_out" else 60)

    assert record.status == status, record.message
    assert re.search(words, record.message), record.message


@pytest.mark.skipif(sys.platform != "linux", reason="what is promised of processes is promised for Linux")
@pytest.mark.parametrize(
    "name", ["gives_none", "detached", "writes_into_the_upstream", "changes_the_threads", "raises"]
)
def test_the_verdict_is_the_same_in_a_process_of_its_own(name, path, named, host):
    [isolated] = host.load(f"{path}:{name}", "softmax")
    here, there = judged(named(name)), judged(isolated, host=host)

    assert (there.status, there.message, there.broken) == (here.status, here.message, here.broken)


@pytest.mark.skipif(sys.platform != "linux", reason="what is promised of processes is promised for Linux")
def test_a_right_backward_has_the_same_bits_in_a_process_of_its_own_in_every_layout(path, named, host):
    laws = ("doubled", "other_upstream", "repeat", "written", "canaries")
    [isolated] = host.load(f"{path}:right_function", "softmax")
    for layout in ("contiguous", "transposed", "expanded"):
        upstream = "ones" if layout == "expanded" else "normal"
        case = Case(op="softmax", family="normal", shape=(6, 33), upstream=upstream, layout=layout, laws=laws)
        here, there = judged(named("right_function"), case), judged(isolated, case, host=host)
        assert here.status == there.status == "passed", there.message
        assert (here.judgement.digest, here.judgement.ratio, here.bitwise) == (
            there.judgement.digest,
            there.judgement.ratio,
            there.bitwise,
        )
    [crude] = host.load(f"{path}:reads_as_contiguous", "softmax")
    transposed = Case(op="softmax", family="normal", shape=(6, 33), upstream="normal", layout="transposed")
    assert judged(crude, transposed, host=host).status == "inaccurate"


# judge() on gradients


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_two_lines_judge_somebodys_gradient():
    x, g = normal(4, 9).requires_grad_(), normal(4, 9, seed=1)
    (dx,) = torch.autograd.grad(torch.softmax(x, -1), x, g)

    judge("softmax", {"x": x, "upstream": g}, dx).raise_if_failed()
    assert judge("softmax", {"x": x, "upstream": g}, dx * 1.01).status == "inaccurate"
    assert judge("softmax", {"x": x, "upstream": g}, torch.softmax(x, -1)).status == "inaccurate"


def test_judge_takes_numpy_and_every_op():
    x, g = normal(4, 9).double(), normal(4, seed=1).double()
    p = torch.softmax(x, -1)
    target = torch.tensor([0, 3, -100, 8])
    loss = torch.where((target >= 0)[:, None], p - torch.eye(9).double()[target.clamp(0)], 0.0) / 3

    assert judge("logsumexp", {"x": x.numpy(), "upstream": g.numpy()}, (g[:, None] * p).numpy()).passed
    assert judge("log_softmax", {"x": x, "upstream": x}, x - p * x.sum(-1, keepdim=True)).passed
    assert judge(
        "cross_entropy", {"logits": x, "target": target, "upstream": torch.ones(()).double()}, loss
    ).passed


@pytest.mark.parametrize(
    ("op", "g", "message"),
    [
        ("softmax", normal(4, 8), r"upstream has shape \[4, 8\]; expected the output's, \[4, 9\]"),
        ("softmax", normal(4, 1), r"upstream has shape \[4, 1\]; expected the output's, \[4, 9\]"),
        ("softmax", torch.tensor(1.0), r"upstream has shape \[\]; expected the output's, \[4, 9\]"),
        ("logsumexp", normal(4, 9), r"upstream has shape \[4, 9\]; expected the output's, \[4\]"),
        ("logsumexp", normal(4, 1), r"upstream has shape \[4, 1\]; expected the output's, \[4\]"),
        (
            "softmax",
            normal(4, 9, dtype=torch.float16),
            "input upstream has dtype float16; expected float32, as x has float32",
        ),
        (
            "softmax",
            normal(4, 9, dtype=torch.float64),
            "input upstream has dtype float64; expected float32, as x has float32",
        ),
        ("softmax", torch.ones(4, 9, dtype=torch.bool), "upstream"),
    ],
)
def test_an_upstream_of_another_shape_or_dtype_is_refused_by_name(op, g, message):
    with pytest.raises(ValueError, match=message):
        judge(op, {"x": normal(4, 9), "upstream": g}, normal(4, 9))


def test_an_upstream_that_is_no_tensor_and_tensors_of_no_op_are_refused():
    with pytest.raises(TypeError, match="upstream"):
        judge("softmax", {"x": normal(4, 9), "upstream": 1.0}, normal(4, 9))
    with pytest.raises(ValueError, match="gradient"):
        judge("softmax", {"x": normal(4, 9), "gradient": normal(4, 9)}, normal(4, 9))


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (None, "wrong_type"),
        ((normal(4, 9), normal(4, 9)), "wrong_type"),
        (normal(4, 8), "wrong_shape"),
        (normal(4, 9, dtype=torch.float16), "wrong_dtype"),
        (normal(4, 9) * torch.nan, "nonfinite"),
    ],
)
def test_what_is_wrong_with_a_gradient_is_a_status(output, status):
    judgement = judge("softmax", {"x": normal(4, 9), "upstream": normal(4, 9, seed=1)}, output)

    assert judgement.status == status
    assert judgement.op == "softmax backward"


# gradients() itself


def test_gradients_are_those_of_autograd_in_the_order_of_the_arguments():
    q, k, v, g = (normal(1, 2, 3, 4, seed=seed) for seed in range(4))
    sdpa = Kernel(id="sdpa", op="attention", call=torch.nn.functional.scaled_dot_product_attention)
    found = gradients(sdpa, {"q": q, "k": k, "v": v, "upstream": g}, {})
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    expected = torch.autograd.grad(torch.nn.functional.scaled_dot_product_attention(*leaves), leaves, g)

    assert isinstance(found, tuple)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not any(t.requires_grad for t in (q, k, v, g))


def test_a_target_has_no_gradient_and_a_kernel_runs_with_gradients_whatever_the_caller_does():
    logits, target = normal(3, 5), torch.tensor([0, 1, 2])
    loss = Kernel(id="loss", op="cross_entropy", call=torch.nn.functional.cross_entropy)
    with torch.no_grad():
        found, seconds = adapted_call(
            loss, {"logits": logits, "target": target, "upstream": torch.tensor(1.0)}, {}
        )

    assert found.shape == logits.shape
    assert seconds > 0
    assert judge(
        "cross_entropy", {"logits": logits, "target": target, "upstream": torch.tensor(1.0)}, found
    ).passed


def test_a_kernel_says_that_it_has_a_backward():
    @kernel("softmax", backward=False)
    def without(x, dim=-1):
        return torch.softmax(x, dim)

    [declared] = declarations(without).values()
    assert declared.backward is False
    assert declared.supports({"dim": -1}, float32, "cpu") is None
    assert (
        declared.supports({"dim": -1}, float32, "cpu", further=["upstream"])
        == "declares that it has no backward"
    )
