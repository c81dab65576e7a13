"""Bad kernels before the engine: whatever one does is a status and a message, and the next one is
judged as ever.

Each bad kernel is one function, registered with the status it must get and a piece of the message
that must say why.
"""

import contextlib
import functools
import json
import os
import re
import sys
import warnings

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution import state as global_state
from suite.execution.evaluation import evaluate
from suite.kernels import Kernel, load_kernels
from suite.oracle import Oracle
from suite.records.store import Store

ORACLE = Oracle()
LAWS = ("permutation", "batch")
BAD = []
CORRUPTING = []


def bad(status, fragment, **case):
    """Registers a function as a bad kernel of softmax on 8 normal rows of 33, or on what `case` says."""

    def register(function):
        BAD.append(pytest.param(function, status, fragment, case, id=function.__name__))
        return function

    return register


def corrupting(switch):
    """Registers a right kernel that changes a global switch, which the message must name."""

    def register(function):
        CORRUPTING.append(pytest.param(function, switch, id=function.__name__))
        return function

    return register


def right(x, dim):
    return torch.softmax(x, dim)


def judged(function, *, op="softmax", family="normal", shape=(8, 33), laws=LAWS, dtype="float32", **options):
    case = Case(op=op, family=family, shape=shape, laws=laws)
    return evaluate(
        case, Kernel(id=function.__name__, op=op, call=function), dtype=dtype, oracle=ORACLE, **options
    )


@functools.cache
def undisturbed():
    """The record of a right kernel that makes a tensor of its own, on hard rows, by an oracle that
    remembers nothing.
    """

    def right_with_a_tensor_of_its_own(x, dim):
        return right(x, dim) * torch.ones(1)

    case = Case(op="softmax", family="normal_large", shape=(8, 33))
    kernel = Kernel(id="right", op="softmax", call=right_with_a_tensor_of_its_own)
    return evaluate(case, kernel, dtype="float32", oracle=Oracle())


@pytest.fixture(autouse=True)
def _this_process_stays_whole():
    """Keeps what a kernel may corrupt, so that an engine that puts too little back fails one test
    and not all.
    """
    state, errors, streams = global_state.read(), np.geterr(), (sys.stdout, sys.stderr)
    device = torch.get_default_device()
    yield
    torch.set_default_device(device if device.type != "cpu" else None)
    np.seterr(**errors)
    sys.stdout, sys.stderr = streams
    global_state.write(state, global_state.read())


# Kernels that raise


@bad("raised", "ValueError: rows are too long (at test_bad_kernels.py:")
def raises(x, dim):
    raise ValueError("rows are too long")


@bad("crashed", "os._exit(0) would have ended this process (at test_bad_kernels.py:")
def leaves_without_a_word(x, dim):
    os._exit(0)


class _UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@bad("raised", "_UnprintableError: its message cannot be shown")
def raises_what_cannot_be_printed(x, dim):
    raise _UnprintableError


@bad("raised", "SystemExit: 0")
def exits(x, dim):
    sys.exit(0)


@bad("raised", "Skipped: not today")
def skips(x, dim):
    pytest.skip("not today")


@bad("raised", "RecursionError")
def recurses(x, dim):
    return recurses(x, dim)


@bad("raised", "ValueError: x" + "x" * 400)
def raises_with_a_megabyte(x, dim):
    raise ValueError("x" * 1_000_000)


@bad("unsupported", "NotImplementedError: no such hardware")
def declines(x, dim):
    raise NotImplementedError("no such hardware")


@bad("raised", "(only on this case's input)")
def declines_what_is_hard(x, dim):
    if x.any():
        raise NotImplementedError("too hard")
    return right(x, dim)


@bad("out_of_memory", "MemoryError: 3 GiB are missing")
def runs_out_of_memory(x, dim):
    raise MemoryError("3 GiB are missing")


@bad("out_of_memory", "memory")
def allocates_an_exbibyte_with_torch(x, dim):
    return torch.empty(2**60, dtype=torch.uint8)


@bad("out_of_memory", "EiB")
def allocates_an_exbibyte_with_numpy(x, dim):
    return torch.from_numpy(np.empty(2**60, dtype=np.uint8))


# Kernels that return what is no output


@bad("wrong_type", "a list ([tensor(")
def returns_a_list(x, dim):
    return [right(x, dim)]


@bad("wrong_type", "a tuple ((tensor(")
def returns_a_tuple(x, dim):
    return right(x, dim), None


@bad("wrong_type", "a NoneType (None)")
def returns_nothing(x, dim):
    right(x, dim)


@bad("wrong_type", "a float (0.5)")
def returns_a_float(x, dim):
    return 0.5


@bad("wrong_type", "expected one tensor")
def returns_a_numpy_array(x, dim):
    return right(x, dim).numpy()


@bad("wrong_type", "on meta; the input is on cpu")
def returns_a_tensor_on_another_device(x, dim):
    return right(x, dim).to("meta")


@bad("wrong_type", "sparse")
def returns_a_sparse_tensor(x, dim):
    return right(x, dim).to_sparse()


class _Unshowable:
    def __repr__(self):
        raise RuntimeError("no text")


@bad("wrong_type", "_Unshowable")
def returns_what_cannot_be_shown(x, dim):
    return _Unshowable()


class _Stubborn(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError("hands off")


@bad("wrong_type", "_Stubborn")
def returns_a_tensor_that_refuses_all_operations(x, dim):
    return right(x, dim).as_subclass(_Stubborn)


@bad("wrong_dtype", "returned float64; expected float32")
def returns_float64(x, dim):
    return right(x.double(), dim)


@bad("wrong_dtype", "returned int64; expected float32")
def returns_integers(x, dim):
    return right(x, dim).long()


@bad("wrong_dtype", "returned complex64; expected float32")
def returns_complex_numbers(x, dim):
    return right(x, dim).to(torch.complex64)


@bad("wrong_shape", "returned shape [8, 32]; expected [8, 33]")
def drops_a_column(x, dim):
    return right(x, dim)[:, :-1]


@bad("wrong_shape", "returned shape []; expected [8, 33]")
def returns_a_scalar(x, dim):
    return right(x, dim).sum()


@bad("wrong_shape", "returned shape [33, 8]; expected [8, 33]")
def transposes(x, dim):
    return right(x, dim).T


@bad("wrong_shape", "returned shape [8, 1]; expected [8]", op="logsumexp")
def keeps_the_reduced_dim(x, dim):
    return torch.logsumexp(x, dim, keepdim=True)


@bad("wrong_shape", "returned shape [1, 8, 33]; expected [8, 33]")
def reshapes_its_input_and_its_output(x, dim):
    return right(x.unsqueeze_(0), dim)


# Kernels that return wrong values


@bad("nonfinite", "264 are NaN or infinite where the definition is finite")
def returns_nan(x, dim):
    return torch.full_like(x, torch.nan)


@bad("nonfinite", "264 are NaN or infinite where the definition is finite")
def returns_infinity(x, dim):
    return torch.full_like(x, torch.inf)


@bad("inaccurate", "got       0.0")
def returns_zeros(x, dim):
    return torch.zeros_like(x)


@bad("inaccurate", "264 of 264 entries")
def returns_its_input(x, dim):
    return x


@bad("inaccurate", "in 16 of 16 rows", shape=(16, 16))
def transposes_a_square(x, dim):
    return right(x, dim).T.contiguous()


@bad("inaccurate", "first failing column", family="two_heavy_ends", shape=(8, 257))
def leaves_out_the_last_entry(x, dim):
    return torch.cat([right(x[:, :-1], dim), torch.zeros_like(x[:, -1:])], dim)


@bad("nonfinite", "where the definition is finite", family="very_negative")
def uses_the_maximum_of_another_row(x, dim):
    e = torch.exp(x - x.amax(dim, keepdim=True).roll(1, 0))
    return e / e.sum(dim, keepdim=True)


@bad("law_broken", "NaN", family="nan_and_infinity")
def swallows_nan(x, dim):
    return right(x, dim).nan_to_num(0.0)


# Kernels that break a law


@bad("law_broken", "the kernel changed its input tensor")
def works_in_place(x, dim):
    return x.copy_(right(x, dim))


@bad("law_broken", "the kernel changed its input tensor")
def spoils_its_input(x, dim):
    result = right(x, dim)
    x[0, 0] = -0.0 if x[0, 0] == 0 else 0.0
    return result


@bad("law_broken", "the kernel changed its input tensor")
def returns_a_view_of_its_input(x, dim):
    x.copy_(right(x, dim))
    return x[:, :]


_REPLAYED = {}


@bad("law_broken", "permutation: the same rows reversed")
def replays_its_first_output(x, dim):
    return _REPLAYED.setdefault(tuple(x.shape), right(x, dim)).clone()


@bad("law_broken", "batch: row 0 on its own")
def depends_on_the_number_of_rows(x, dim):
    return right(x, dim) * (1 if len(x) > 1 else 1.01)


@bad("law_broken", "repeat: a second call on the same input", laws=("repeat",))
def is_right_every_second_time(x, dim):
    is_right_every_second_time.calls = getattr(is_right_every_second_time, "calls", 0) + 1
    return right(x, dim) * (1 if is_right_every_second_time.calls % 2 else 1.01)


@bad("law_broken", "raised: RuntimeError: once is enough", laws=("repeat",))
def raises_every_second_time(x, dim):
    raises_every_second_time.calls = getattr(raises_every_second_time, "calls", 0) + 1
    if raises_every_second_time.calls % 2 == 0:
        raise RuntimeError("once is enough")
    return right(x, dim)


# Right kernels that corrupt what all kernels share


@corrupting("default_dtype from torch.float32 to torch.float64")
def changes_the_default_dtype(x, dim):
    torch.set_default_dtype(torch.float64)
    return right(x, dim)


@corrupting("threads from")
def changes_the_number_of_threads(x, dim):
    torch.set_num_threads(torch.get_num_threads() + 1)
    return right(x, dim)


@corrupting("subnormals_flushed from False to True")
def flushes_subnormals(x, dim):
    torch.set_flush_denormal(True)
    return right(x, dim)


@corrupting("grad_enabled from False to True")
def switches_gradients_on(x, dim):
    torch.set_grad_enabled(True)
    return right(x, dim)


@corrupting("deterministic_mode from 0 to 2")
def asks_for_determinism(x, dim):
    torch.use_deterministic_algorithms(True)
    return right(x, dim)


@corrupting("precision from")
def lowers_the_matmul_precision(x, dim):
    torch.set_float32_matmul_precision("medium")
    return right(x, dim)


@corrupting("cudnn")
def allows_tf32_in_cudnn(x, dim):
    torch.backends.cudnn.allow_tf32 = True
    return right(x, dim)


if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # since torch 2.9

    @corrupting("precision")
    def lowers_the_matmul_precision_by_its_new_name(x, dim):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        return right(x, dim)


@corrupting("default_device from cpu to meta")
def changes_the_default_device(x, dim):
    result = right(x, dim)
    torch.set_default_device("meta")
    return result


# Right kernels that are odd, and none of the judge's business


def requires_gradients(x, dim):
    return right(x, dim).requires_grad_()


def returns_a_strided_view(x, dim):
    return torch.stack([right(x, dim)] * 2, dim=-1)[..., 0]


def returns_a_column_major_tensor(x, dim):
    return right(x, dim).T.contiguous().T


class _Tagged(torch.Tensor):
    pass


def returns_a_tensor_of_its_own_class(x, dim):
    return right(x, dim).as_subclass(_Tagged)


def returns_a_parameter(x, dim):
    return torch.nn.Parameter(right(x, dim))


_BUFFERS = {}


def reuses_its_output_buffer(x, dim):
    return torch.softmax(x, dim, out=_BUFFERS.setdefault(tuple(x.shape), torch.empty_like(x)))


ODD = [
    requires_gradients,
    returns_a_strided_view,
    returns_a_column_major_tensor,
    returns_a_tensor_of_its_own_class,
    returns_a_parameter,
    reuses_its_output_buffer,
]


# Right kernels that meddle with the process


def prints_a_megabyte(x, dim):
    print("a" * 1_000_000)
    print("b" * 1000, file=sys.stderr)
    return right(x, dim)


def warns(x, dim):
    warnings.warn("careful", stacklevel=1)
    warnings.warn("careful", stacklevel=1)
    return right(x, dim)


def makes_warnings_errors(x, dim):
    warnings.simplefilter("error")
    return right(x, dim)


def closes_stdout(x, dim):
    sys.stdout.close()
    return right(x, dim)


def deletes_stdout(x, dim):
    del sys.stdout
    return right(x, dim)


def replaces_stdout(x, dim):
    sys.stdout = None
    return right(x, dim)


@corrupting("numpy_errors from")
def makes_numpy_raise(x, dim):
    np.seterr(all="raise")
    return right(x, dim)


MEDDLING = [
    prints_a_megabyte,
    warns,
    makes_warnings_errors,
    closes_stdout,
    deletes_stdout,
    replaces_stdout,
]


@pytest.mark.parametrize(("function", "status", "fragment", "case"), BAD)
def test_a_bad_kernel_gets_a_status_and_a_message_that_says_why(function, status, fragment, case):
    record = judged(function, **case)

    assert record.status == status
    assert fragment in record.message
    assert "Traceback" not in record.message
    assert len(record.message) < 5000


@pytest.mark.parametrize(("function", "switch"), CORRUPTING)
def test_changing_a_global_switch_breaks_a_law_and_is_undone(function, switch):
    before = global_state.read(), torch.get_default_device()

    record = judged(function)

    assert record.status == "law_broken"
    assert "global state untouched" in record.message
    assert switch in record.message
    assert (global_state.read(), torch.get_default_device()) == before


@pytest.mark.parametrize("function", [*ODD, *MEDDLING], ids=lambda f: f.__name__)
def test_a_right_output_passes_however_it_was_made(function):
    record = judged(function)

    assert record.status == "passed", record.message
    assert record.judgement.digest == judged(right).judgement.digest


@pytest.mark.parametrize(
    "function",
    [p.values[0] for p in BAD] + [p.values[0] for p in CORRUPTING] + MEDDLING,
    ids=lambda f: f.__name__,
)
def test_the_next_kernel_is_judged_as_if_nothing_had_happened(function):
    case = next((p.values[3] for p in BAD if p.values[0] is function), {})
    expected = undisturbed()
    streams, filters, errors = (sys.stdout, sys.stderr), list(warnings.filters), np.geterr()

    with contextlib.suppress(Exception):  # what this kernel's own evaluation must be is another test
        judged(function, **case)
    after = undisturbed.__wrapped__()

    assert after.status == expected.status == "passed"
    assert (after.judgement.digest, after.judgement.ratio, after.judgement.max_ulp) == (
        expected.judgement.digest,
        expected.judgement.ratio,
        expected.judgement.max_ulp,
    )
    assert (sys.stdout, sys.stderr) == streams
    assert warnings.filters == filters
    assert np.geterr() == errors


def test_a_keyboard_interrupt_passes_through_and_leaves_the_state_as_it_was():
    def interrupted(x, dim):
        torch.set_default_dtype(torch.float64)
        raise KeyboardInterrupt

    before = global_state.read()

    with pytest.raises(KeyboardInterrupt):
        judged(interrupted)
    assert global_state.read() == before


def test_the_state_of_the_caller_is_put_back_whole():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        record = judged(right)
        assert record.status == "passed"
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_a_kernel_prints_is_kept_to_its_tail():
    record = judged(prints_a_megabyte)

    assert record.outcome.output.endswith("b" * 1000 + "\n")
    assert len(record.outcome.output) < 2100
    assert int(re.match(r"\[(\d+) characters before this\]", record.outcome.output)[1]) == 1_001_002 - 2000


def test_what_a_kernel_warns_of_is_recorded_once():
    assert judged(warns).outcome.warnings == ("UserWarning: careful",)


def test_every_broken_status_is_recorded_by_precedence():
    def spoils_everything(x, dim):
        x.zero_()
        torch.set_default_dtype(torch.float64)
        return torch.cat([torch.full_like(x[:1], torch.nan), torch.zeros_like(x[1:])])

    record = judged(spoils_everything)

    assert record.broken == ("nonfinite", "inaccurate", "law_broken")
    assert "input untouched" in record.message
    assert "global state untouched" in record.message


@pytest.mark.parametrize("function", [right, raises, returns_nan], ids=lambda f: f.__name__)
def test_the_record_is_on_disk_when_evaluate_returns(function, tmp_path):
    with contextlib.closing(Store(tmp_path)) as store:
        record = judged(function, store=store)
        [path] = tmp_path.glob("records-*.jsonl")
        lines = path.read_text().splitlines()

    assert [json.loads(line) for line in lines] == [record.to_dict()]


def test_a_reason_to_decline_is_found_before_any_input_exists():
    def without_dim(x):
        raise AssertionError("called")

    kernel = Kernel(id="without_dim", op="softmax", call=without_dim, parameters=frozenset({"x"}))
    case = Case(op="softmax", family="normal", shape=(5, 3, 7), options={"dim": 1})

    record = evaluate(case, kernel, dtype="float32", oracle=ORACLE)

    assert (record.status, record.message) == ("unsupported", "takes no argument dim")


@pytest.mark.parametrize(
    ("op", "dtype", "message"),
    [
        (
            "logsumexp",
            "float32",
            "kernel right is a kernel of logsumexp, case softmax/normal/8x33/s0 is one of softmax",
        ),
        ("softmax", "fp32", "unknown format 'fp32'; expected one of float64, float32"),
    ],
)
def test_misuse_is_a_value_error_that_names_what_is_wrong(op, dtype, message):
    case = Case(op="softmax", family="normal", shape=(8, 33))

    with pytest.raises(ValueError, match=message):
        evaluate(case, Kernel(id="right", op=op, call=right), dtype=dtype, oracle=ORACLE)


@pytest.mark.parametrize(
    ("source", "function", "message"),
    [
        (None, "f", "does not exist"),
        ("def g(x, dim=-1): pass", "f", "has no function 'f'; it has: g"),
        ("f = 3", "f", "is a int, not a function"),
        (
            "def f(): pass",
            "f",
            "cannot be called as a kernel of softmax: expected f(x, dim=-1, temperature=1.0",
        ),
        ("def f(x, y, dim): pass", "f", "cannot be called as a kernel of softmax"),
        ("def f(x, dim=-1): pass", "", "declares no kernel of softmax"),
        ("import nowhere", "f", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("raise ValueError('first\\nsecond')", "f", "cannot be imported: ValueError: first"),
        ("def f(x:\n", "f", "cannot be imported: SyntaxError"),
        ("import sys; sys.exit(3)", "f", "cannot be imported: SystemExit: 3"),
        ("raise KeyError", "f", "cannot be imported: KeyError"),
    ],
    ids=[
        "no file",
        "no function",
        "no callable",
        "too few arguments",
        "too many arguments",
        "nothing declared",
        "import error",
        "raises",
        "syntax error",
        "exits",
        "raises without a message",
    ],
)
def test_a_file_that_holds_no_kernel_is_answered_in_one_line(source, function, message, tmp_path):
    path = tmp_path / "kernels.py"
    if source is not None:
        path.write_text(source)

    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_kernels(f"{path}:{function}" if function else str(path), "softmax")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
