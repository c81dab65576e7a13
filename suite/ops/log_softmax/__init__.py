"""log_softmax: see definition.py, bound.py and kernels/."""

from suite.ops import Op
from suite.ops.log_softmax.bound import bound
from suite.ops.log_softmax.definition import define, special

OP = Op(
    name="log_softmax",
    define=define,
    special=special,
    bound=bound,
    keeps_length=True,
    lower_limit=float("-inf"),
    summary="x_i - log sum_j exp(x_j)",
)
