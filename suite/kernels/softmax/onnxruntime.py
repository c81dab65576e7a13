"""The ONNX operator Softmax, from outside, run by ONNX Runtime on the CPU."""

from typing import Any

from suite.kernels import kernel
from suite.kernels.parts.onnx_operator import run_operator


@kernel("softmax", name="onnxruntime", adapter="numpy", requires=("onnxruntime", "onnx"))
def onnxruntime_softmax(x: Any, dim: int = -1) -> Any:
    return run_operator("Softmax", x, dim)
