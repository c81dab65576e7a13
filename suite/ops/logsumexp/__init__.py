"""logsumexp: see definition.py, bound.py and kernels/."""

from suite.ops import RowOp
from suite.ops.logsumexp.bound import bound
from suite.ops.logsumexp.definition import define, special


class LogSumExp(RowOp):
    name = "logsumexp"
    keeps_length = False
    lower_limit = float("-inf")
    summary = "log sum_j exp(x_j)"
    define = staticmethod(define)
    special = staticmethod(special)
    bound = staticmethod(bound)


OP = LogSumExp()
