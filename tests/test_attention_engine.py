"""attention through the engine: kernels in their own process, two outputs, other names of
arguments, other libraries.
"""

import inspect
import math
import sys

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.execution.in_process import InProcess
from suite.execution.isolated import Isolated
from suite.kernels import Kernel, declarations, kernel, load_kernels
from suite.oracle import Oracle
from tests.attention_kernels import shifted
from tests.extras import needs

ORACLE = Oracle(remembered=200)
SHAPE = (2, 4, 9, 8)
TIMES = ("started", "seconds")


def case_of(*, family="normal", shape=SHAPE, laws=(), options=None, **tensors):
    return Case(op="attention", family=family, shape=shape, options=options or {}, tensors=tensors, laws=laws)


def judged(function, case, *, dtype="float32", **how):
    call = function if isinstance(function, Kernel) else Kernel(id="k", op="attention", call=function)
    return evaluate(case, call, dtype=dtype, oracle=ORACLE, **how)


def plain(record):
    return {name: value for name, value in record.to_dict().items() if name not in TIMES}


# in a process of its own


SOURCE = """
import torch
from tests.attention_kernels import shifted

def f(q, k, v, *, mask=None, causal=None, scale=None, softcap=None, window=None, alibi_slopes=None, sink=None,
      enable_gqa=False, kv_lengths=None, return_lse=False):
    assert window is None or type(window) is tuple
    assert mask is None or mask.dtype in (torch.bool, q.dtype)
    assert kv_lengths is None or kv_lengths.dtype == torch.int64
    given = dict(mask=mask, causal=causal, scale=scale, softcap=softcap, window=window,
                 alibi_slopes=alibi_slopes, sink=sink, kv_lengths=kv_lengths, return_lse=return_lse)
    return shifted(q, k, v, **given)

def wrong_lse(q, k, v, *, return_lse=False):
    output = shifted(q, k, v, return_lse=return_lse)
    return (output[0], 1.01 * output[1]) if return_lse else output

def keys_swapped(q, k, v):
    order = torch.arange(k.shape[2])
    order[[3, 40]] = order[[40, 3]]
    return shifted(q, k, v[:, :, order])

def as_list(q, k, v, *, return_lse=False):
    return list(shifted(q, k, v, return_lse=return_lse))

def numpy_arrays(q, k, v, *, return_lse=False):
    return tuple(one.numpy() for one in shifted(q, k, v, return_lse=return_lse))

def three(q, k, v, *, return_lse=False):
    return (*shifted(q, k, v, return_lse=return_lse), q)

def views(q, k, v, *, return_lse=False):
    o, lse = shifted(q, k, v, return_lse=return_lse)
    wide = torch.empty(*o.shape[:3], 2 * o.shape[3], dtype=o.dtype)
    wide[..., ::2] = o
    return wide[..., ::2], lse[:, :1].expand_as(lse) if lse.shape[1] == 1 else lse.mT.contiguous().mT
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("kernels") / "attention_of_a_file.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def host():
    if sys.platform != "linux":
        pytest.skip("what is promised of processes is promised for Linux")
    with Isolated(memory_bytes=2**30) as host:
        yield host


def both(host, file, name, case, **how):
    """The records of the same kernel in a process of its own and in this one."""
    [there], [here] = host.load(f"{file}:{name}", "attention"), load_kernels(f"{file}:{name}", "attention")
    return judged(there, case, host=host, **how), judged(here, case, **how)


LAWS = (
    "alone",
    "hidden_keys",
    "masked",
    "neutral",
    "parts",
    "reversed_keys",
    "with_log_sum_exp",
    "repeat",
    "canaries",
)
RIGHT = {
    "plain": case_of(laws=LAWS),
    "mask, sink, return_lse": case_of(
        mask="random_with_empty_rows", sink="mixed", keys=33, options={"return_lse": True}, laws=LAWS
    ),
    "additive mask": case_of(mask="additive_infinite", keys=33, laws=LAWS),
    "all at once": case_of(
        mask="random",
        sink="normal",
        alibi_slopes="geometric",
        kv_lengths="ragged",
        keys=33,
        key_heads=2,
        value_size=5,
        options={
            "causal": "bottom_right",
            "window": (20, None),
            "softcap": 3.0,
            "scale": -0.5,
            "return_lse": True,
        },
        laws=LAWS,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_kernel_of_a_file_has_the_same_record_in_its_own_process(host, file, name, dtype):
    there, here = both(host, file, "f", RIGHT[name], dtype=dtype)

    assert here.status == "passed", here.message
    assert plain(there) == plain(here)


@pytest.mark.parametrize(
    ("name", "options", "status"),
    [
        ("wrong_lse", {"return_lse": True}, "inaccurate"),
        ("keys_swapped", {}, "inaccurate"),
        ("three", {"return_lse": True}, "wrong_type"),
        ("views", {"return_lse": True}, "passed"),
        ("views", {}, "raised"),
        ("keys_swapped", {"return_lse": True}, "unsupported"),
        ("keys_swapped", {"causal": "top_left"}, "unsupported"),
    ],
)
def test_a_fault_has_the_same_record_in_its_own_process(host, file, name, options, status):
    there, here = both(host, file, name, case_of(keys=70, options=options))

    assert here.status == status, here.message
    assert plain(there) == plain(here)


@pytest.mark.parametrize("name", ["as_list", "numpy_arrays"])
def test_an_output_of_another_container_has_the_same_record_in_its_own_process(host, file, name):
    there, here = both(host, file, name, case_of(options={"return_lse": True}))
    assert there.status == here.status, there.message


def test_the_place_of_a_fault_is_found_in_its_own_process_too(host, file):
    there, _ = both(host, file, "keys_swapped", case_of(keys=70, shape=(1, 1, 9, 16)))
    assert (
        there.judgement.tiles["key"]
        == "errors begin at key 0: 2 of 5 blocks of 16 keys have wrong weights, keys 0..15, 32..47"
    )


# layouts


@pytest.mark.parametrize("layout", ["transposed", "strided", "padded"])
def test_every_layout_reaches_the_kernel_and_not_its_verdict(layout):
    strides = []

    def attention(q, k, v, **given):
        strides.append((q.stride(), v.stride()))
        return shifted(q, k, v, **given)

    case = Case(
        op="attention",
        family="normal",
        shape=SHAPE,
        layout=layout,
        tensors={"keys": 21},
        laws=("alone", "reversed_keys"),
    )
    record = judged(attention, case)
    assert record.status == "passed", record.message
    assert strides[0] != (torch.empty(SHAPE).stride(), torch.empty(2, 4, 21, 8).stride())


@pytest.mark.parametrize("op", ["attention", "softmax"])
def test_a_tensor_of_one_entry_may_have_any_stride(op):
    shape = (1, 1, 1, 1) if op == "attention" else (1, 1)
    call = shifted if op == "attention" else torch.softmax
    record = evaluate(
        Case(op=op, family="normal", shape=shape, layout="strided"),
        Kernel(id="k", op=op, call=call),
        oracle=ORACLE,
    )
    assert record.status == "passed"


# two outputs


def changed(change):
    def attention(q, k, v, **given):
        return change(*shifted(q, k, v, **given))

    return attention


WRONG = {
    "one tensor": (lambda o, lse: o, "wrong_type", "returned a Tensor (tensor("),
    "both in one tensor": (
        lambda o, lse: torch.stack([o, o]),
        "wrong_type",
        "expected a tuple of 2 tensors: attention, attention_lse",
    ),
    "three": (
        lambda o, lse: (o, lse, lse),
        "wrong_type",
        "expected a tuple of 2 tensors: attention, attention_lse",
    ),
    "one in a tuple": (
        lambda o, lse: (o,),
        "wrong_type",
        "expected a tuple of 2 tensors: attention, attention_lse",
    ),
    "a mapping": (lambda o, lse: {"o": o, "lse": lse}, "wrong_type", "returned a dict ("),
    "nothing": (
        lambda o, lse: None,
        "wrong_type",
        "returned a NoneType (None); expected a tuple of 2 tensors",
    ),
    "no lse": (
        lambda o, lse: (o, None),
        "wrong_type",
        "attention_lse: returned a NoneType (None); expected one tensor",
    ),
    "no o": (
        lambda o, lse: (None, lse),
        "wrong_type",
        "attention: returned a NoneType (None); expected one tensor",
    ),
    "lse first": (
        lambda o, lse: (lse, o),
        "wrong_shape",
        "attention: returned shape [2, 4, 9]; expected [2, 4, 9, 8]",
    ),
    "lse with a dim of 1": (
        lambda o, lse: (o, lse[..., None]),
        "wrong_shape",
        "attention_lse: returned shape [2, 4, 9, 1]; expected [2, 4, 9]",
    ),
    "lse transposed": (
        lambda o, lse: (o, lse.mT),
        "wrong_shape",
        "attention_lse: returned shape [2, 9, 4]; expected [2, 4, 9]",
    ),
    "lse padded": (
        lambda o, lse: (o, torch.nn.functional.pad(lse, (0, 7))),
        "wrong_shape",
        "attention_lse: returned shape [2, 4, 16]",
    ),
    "lse in bfloat16": (
        lambda o, lse: (o, lse.bfloat16()),
        "wrong_dtype",
        "attention_lse: returned bfloat16; expected float32",
    ),
    "lse in float64": (
        lambda o, lse: (o, lse.double()),
        "wrong_dtype",
        "attention_lse: returned float64; expected float32",
    ),
    "o in float32": (
        lambda o, lse: (o.float(), lse),
        "wrong_dtype",
        "attention: returned float32; expected bfloat16",
    ),
    "o transposed": (
        lambda o, lse: (o.transpose(1, 2), lse),
        "wrong_shape",
        "attention: returned shape [2, 9, 4, 8]",
    ),
    "sparse": (
        lambda o, lse: (o, lse.to_sparse()),
        "wrong_type",
        "attention_lse: returned a tensor with layout torch.sparse_coo",
    ),
    "on another device": (
        lambda o, lse: (o, lse.to("meta")),
        "wrong_type",
        "attention_lse: returned a tensor on meta",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_outputs_of_another_kind_have_a_status_and_a_message_that_names_which(name):
    change, status, words = WRONG[name]
    record = judged(changed(change), case_of(options={"return_lse": True}), dtype="bfloat16")

    assert (record.status, record.broken) == (status, (status,))
    assert words in record.message


def test_a_tuple_where_one_tensor_is_asked_for_is_of_the_wrong_type():
    record = judged(lambda q, k, v, **given: shifted(q, k, v, return_lse=True, **given), case_of())
    assert record.status == "wrong_type"
    assert "returned a tuple (" in record.message
    assert "expected one tensor" in record.message


def test_numpy_arrays_of_a_torch_kernel_are_of_the_wrong_type_in_a_tuple_too():
    record = judged(changed(lambda o, lse: (o.numpy(), lse.numpy())), case_of(options={"return_lse": True}))
    assert record.status == "wrong_type", record.message


# other names and signatures


def record_of_names(function, case, **how):
    declared = kernel("attention", **how)(function)
    return judged(declarations(declared)["attention", declared.__name__], case)


def test_arguments_may_have_other_names():
    heard = {}

    def renamed(
        query,
        key,
        value,
        *,
        softmax_scale=None,
        attn_bias=None,
        alibi=None,
        window_size=None,
        return_softmax_lse=False,
    ):
        heard.update(softmax_scale=softmax_scale, attn_bias=attn_bias, alibi=alibi, window_size=window_size)
        return shifted(
            query, key, value, scale=softmax_scale, mask=attn_bias, alibi_slopes=alibi, window=window_size,
            return_lse=return_softmax_lse,
        )  # fmt: skip

    names = {
        "scale": "softmax_scale",
        "mask": "attn_bias",
        "alibi_slopes": "alibi",
        "window": "window_size",
        "return_lse": "return_softmax_lse",
    }
    case = case_of(
        mask="additive",
        alibi_slopes="geometric",
        options={"scale": 0.25, "window": (4, 2), "return_lse": True},
    )
    record = record_of_names(renamed, case, names=names)

    assert record.status == "passed", record.message
    assert (heard["softmax_scale"], heard["window_size"]) == (0.25, (4, 2))
    assert heard["attn_bias"].shape == (1, 4, 9, 9)
    assert record_of_names(renamed, case).message == "takes no argument mask"
    assert record_of_names(renamed, case_of(sink="normal"), names=names).message == "takes no argument sink"
    assert (
        record_of_names(renamed, case_of(options={"causal": "top_left"}), names=names).message
        == "takes no argument causal"
    )


def test_a_declared_name_is_known_in_its_own_process(host, tmp_path):
    path = tmp_path / "named_kernels.py"
    path.write_text(
        "from suite.kernels import kernel\n"
        "from tests.attention_kernels import shifted\n"
        "@kernel('attention', names={'scale': 'softmax_scale', 'mask': 'bias'})\n"
        "def named(q, k, v, *, softmax_scale=None, bias=None):\n"
        "    return shifted(q, k, v, scale=softmax_scale, mask=bias)\n"
    )
    there, here = both(
        host, path, "named", case_of(mask="random", options={"scale": 0.25}, laws=("masked", "neutral"))
    )
    assert here.status == "passed", here.message
    assert plain(there) == plain(here)


@pytest.mark.parametrize("names", [{"scales": "s"}, {"q": "query"}, {"mask": "bias", "dim": "axis"}])
def test_names_of_what_is_no_argument_by_name_are_refused(names):
    with pytest.raises(
        ValueError,
        match="is no argument by name of attention; expected some of mask, kv_lengths, alibi_slopes, sink, ",
    ):
        kernel("attention", names=names)


def torchs(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    assert dropout_p == 0.0
    assert isinstance(is_causal, bool)
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def of(function, **how):
    return Kernel(
        id="k",
        op="attention",
        call=function,
        parameters=frozenset(inspect.signature(function).parameters),
        declared=False,
        **how,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, ""),
        ({"mask": "random"}, ""),
        ({"mask": "additive"}, ""),
        ({"options": {"causal": "top_left"}, "keys": 15}, ""),
        ({"key_heads": 2, "options": {"scale": 0.5}}, ""),
        (
            {"options": {"causal": "bottom_right"}},
            "takes is_causal, which is top_left, not causal=bottom_right",
        ),
        ({"options": {"window": (3, 3)}}, "takes no argument window"),
        ({"options": {"return_lse": True}}, "takes no argument return_lse"),
        ({"sink": "normal"}, "takes no argument sink"),
        ({"kv_lengths": "ragged"}, "takes no argument kv_lengths"),
    ],
)
def test_the_signature_of_torch_is_understood(settings, message):
    record = judged(of(torchs), case_of(**settings))

    assert record.status == ("unsupported" if message else "passed"), record.message
    assert record.message == message or not message


def test_is_causal_that_is_bottom_right_is_caught():
    """torch's own documentation is of the upper left corner; FlashAttention's causal is of the
    lower right.
    """

    def lower_right(q, k, v, is_causal=False):
        return shifted(q, k, v, causal="bottom_right" if is_causal else None)

    case = case_of(options={"causal": "top_left"}, keys=15)
    assert judged(of(lower_right), case).status == "inaccurate"
    assert judged(of(lower_right), case_of(keys=15)).status == "passed"


@pytest.mark.parametrize("given", ["is_causal", "causal"])
def test_causal_has_its_own_name_where_there_is_one(given):
    heard = []

    def either(q, k, v, causal=None, is_causal=False):
        heard.append((causal, is_causal))
        return shifted(q, k, v, causal=causal)

    def only(q, k, v, is_causal=False):
        heard.append((None, is_causal))
        return shifted(q, k, v, causal="top_left" if is_causal else None)

    record = judged(of(either if given == "causal" else only), case_of(options={"causal": "top_left"}))
    assert record.status == "passed", record.message
    assert heard == [("top_left", False) if given == "causal" else (None, True)]


def test_a_mask_has_its_own_name_where_there_is_one():
    def both_names(q, k, v, mask=None, attn_mask=None):
        assert attn_mask is None
        return shifted(q, k, v, mask=mask)

    assert judged(of(both_names), case_of(mask="random")).status == "passed"


def test_a_kernel_of_three_tensors_alone_is_judged_on_what_it_takes():
    def bare(q, k, v):
        return shifted(q, k, v)

    assert (
        judged(of(bare), case_of(laws=("masked", "neutral", "with_log_sum_exp", "alone"))).status == "passed"
    )
    assert judged(of(bare), case_of(key_heads=2)).message == "takes no argument enable_gqa"
    assert judged(of(bare), case_of(mask="random")).status == "unsupported"


# other libraries


def numpy_attention(q, k, v, *, mask=None, sink=None, return_lse=False, scale=None):
    assert all(isinstance(x, np.ndarray) for x in (q, k, v))
    assert mask is None or mask.dtype in (np.bool_, q.dtype)
    wide = np.float64 if q.dtype == np.float64 else np.float32
    s = (q.astype(wide) @ k.astype(wide).swapaxes(-1, -2)) * wide(
        scale if scale is not None else 1 / math.sqrt(q.shape[-1])
    )
    if mask is not None:
        s = np.where(mask, s, wide(-np.inf)) if mask.dtype == np.bool_ else s + mask.astype(wide)
    m = s.max(axis=-1, keepdims=True)
    if sink is not None:
        m = np.maximum(m, sink.astype(wide)[:, None, None])
    shift = np.where(np.isfinite(m), m, wide(0))
    e = np.exp(s - shift)
    total = e.sum(axis=-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink.astype(wide)[:, None, None] - shift)
    with np.errstate(divide="ignore"):
        lse = (m + np.log(total))[..., 0]
    o = (e @ v.astype(wide) / np.where(total == 0, wide(1), total)).astype(q.dtype)
    return (o, lse) if return_lse else o


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(
    "case",
    [
        case_of(laws=LAWS),
        case_of(
            mask="random_with_empty_rows", sink="mixed", keys=33, options={"return_lse": True}, laws=LAWS
        ),
        case_of(mask="additive_infinite", keys=33),
    ],
    ids=["plain", "mask, sink, lse", "additive mask"],
)
def test_a_kernel_of_numpy_is_judged_by_its_adapter(case, dtype):
    record = judged(of(numpy_attention, adapter="numpy"), case, dtype=dtype)
    assert record.status == "passed", record.message


def test_a_kernel_of_numpy_has_no_bfloat16_and_its_faults_are_caught():
    assert (
        judged(of(numpy_attention, adapter="numpy"), case_of(), dtype="bfloat16").message
        == "numpy has no bfloat16"
    )

    def wrong(q, k, v, *, return_lse=False):
        o, lse = numpy_attention(q, k, v, return_lse=True)
        return o, lse / np.log(2).astype(lse.dtype)

    record = judged(of(wrong, adapter="numpy"), case_of(options={"return_lse": True}))
    assert record.status == "inaccurate"
    assert record.message.startswith("attention_lse ")


def jax_attention(q, k, v, *, mask=None, return_lse=False):
    import jax
    import jax.numpy as jnp

    assert all(isinstance(x, jax.Array) for x in (q, k, v))
    wide = jnp.float64 if q.dtype == jnp.float64 else jnp.float32
    s = jnp.einsum("bhle,bhse->bhls", q.astype(wide), k.astype(wide), precision="highest") / math.sqrt(
        q.shape[-1]
    )
    if mask is not None:
        s = jnp.where(mask, s, -jnp.inf) if mask.dtype == jnp.bool_ else s + mask.astype(wide)
    m = s.max(axis=-1, keepdims=True)
    e = jnp.exp(s - jnp.where(jnp.isfinite(m), m, 0))
    total = e.sum(axis=-1, keepdims=True)
    o = jnp.einsum("bhls,bhsv->bhlv", e, v.astype(wide), precision="highest") / jnp.where(
        total == 0, 1, total
    )
    return (o.astype(q.dtype), (m + jnp.log(total))[..., 0]) if return_lse else o.astype(q.dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_kernel_of_jax_is_judged_by_its_adapter(dtype):
    needs("jax")
    laws = ("with_log_sum_exp", "reversed_keys", "masked")
    for case in (case_of(laws=laws), case_of(mask="random_with_empty_rows", options={"return_lse": True})):
        record = judged(of(jax_attention, adapter="jax"), case, dtype=dtype)
        assert record.status == "passed", record.message


@pytest.mark.parametrize("adapter", ["numpy", "jax"])
def test_a_tensor_in_an_arrays_place_is_of_the_wrong_type(adapter):
    needs(adapter)
    record = judged(of(lambda q, k, v: [q], adapter=adapter), case_of(), host=InProcess())
    assert record.status == "wrong_type"
