"""logsumexp: see definition.py, bound.py and kernels/."""

from suite.ops import Result, TorchKernel
from suite.ops.logsumexp.bound import bound
from suite.ops.logsumexp.definition import define, special
from suite.ops.row_op import RowOp


class LogSumExp(RowOp):
    name = "logsumexp"
    summary = "log sum_j exp(x_j)"
    result = Result.LOG_SUM
    operations_by_entry = (4, 3)
    torch = TorchKernel("torch.logsumexp", ("fused",))
    measured = ("exponential", "thresholds", "tolerance", "vanishing")
    define = staticmethod(define)
    special = staticmethod(special)
    bound = staticmethod(bound)


OP = LogSumExp()
