"""log_softmax: see definition.py, bound.py and kernels/."""

from suite.ops import Result, TorchKernel
from suite.ops.log_softmax.bound import bound
from suite.ops.log_softmax.definition import define, special
from suite.ops.row_op import RowOp


class LogSoftmax(RowOp):
    name = "log_softmax"
    summary = "x_i - log sum_j exp(x_j)"
    result = Result.LOG_PROBABILITY
    keeps_length = True
    operations_by_entry = (5, 4)
    torch = TorchKernel("torch.log_softmax", ("fused",))
    measured = ("exponential", "thresholds", "tolerance", "vanishing")
    define = staticmethod(define)
    special = staticmethod(special)
    bound = staticmethod(bound)


OP = LogSoftmax()
