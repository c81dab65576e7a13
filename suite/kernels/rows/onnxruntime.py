"""The ONNX operators Softmax, LogSoftmax and ReduceLogSumExp, run by ONNX Runtime on the CPU."""

import functools
from typing import Any

import torch

from suite.kernels import kernel

OPERATORS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "logsumexp": "ReduceLogSumExp"}
OPSET = 18
"""The first in which ReduceLogSumExp takes its axes as an input, like later ones; Softmax is that
of opset 13.
"""
LOG_ERRORS_ONLY = 4


@kernel(
    "softmax",
    "log_softmax",
    "logsumexp",
    name="onnxruntime",
    adapter="numpy",
    requires=("onnxruntime", "onnx"),
)
def onnx_operator(x: Any, dim: int = -1, *, op: str) -> Any:
    return run_operator(OPERATORS[op], x, dim)


def run_operator(operator: str, x: Any, axis: int) -> Any:
    """The operator's result along `axis` of a numpy array, in the array's dtype; ReduceLogSumExp
    drops the axis.

    operator: Softmax, LogSoftmax or ReduceLogSumExp. Raises NotImplementedError, in ONNX Runtime's
    words, for a dtype that it has no CPU kernel for.
    """
    session = _session(operator, x.dtype.name, axis % x.ndim, x.ndim, torch.get_num_threads())
    return session.run(None, {"x": x})[0]


@functools.cache
def _session(operator: str, dtype: str, axis: int, rank: int, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = LOG_ERRORS_ONLY
    model = _model(operator, dtype, axis, rank)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        raise NotImplementedError(str(error)) from error


def _model(operator: str, dtype: str, axis: int, rank: int) -> bytes:
    """A graph of one node, every dimension free."""
    import numpy as np
    from onnx import TensorProto, checker, helper

    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    if operator == "ReduceLogSumExp":
        node = helper.make_node(operator, ["x", "axes"], ["y"], keepdims=0)
        constants = [helper.make_tensor("axes", TensorProto.INT64, [1], [axis])]
    else:
        node = helper.make_node(operator, ["x"], ["y"], axis=axis)
        constants = []
    rank_out = rank - 1 if operator == "ReduceLogSumExp" else rank
    x = helper.make_tensor_value_info("x", element, [None] * rank)
    y = helper.make_tensor_value_info("y", element, [None] * rank_out)
    graph = helper.make_graph([node], operator, [x], [y], constants)
    # The IR version that belongs to the opset: the newest one would ask for a runtime as new as the
    # onnx package.
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        graph, opset_imports=[opset], ir_version=helper.find_min_ir_version_for([opset])
    )
    checker.check_model(model)
    return bytes(model.SerializeToString())
