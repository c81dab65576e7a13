"""log_softmax: see definition.py, bound.py and kernels/."""

from suite.ops import RowOp
from suite.ops.log_softmax.bound import bound
from suite.ops.log_softmax.definition import define, special


class LogSoftmax(RowOp):
    name = "log_softmax"
    keeps_length = True
    lower_limit = float("-inf")
    summary = "x_i - log sum_j exp(x_j)"
    define = staticmethod(define)
    special = staticmethod(special)
    bound = staticmethod(bound)


OP = LogSoftmax()
