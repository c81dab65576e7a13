"""logsumexp: see definition.py, bound.py and kernels/."""

from suite.ops import Op
from suite.ops.logsumexp.bound import bound
from suite.ops.logsumexp.definition import define, special

OP = Op(
    name="logsumexp",
    define=define,
    special=special,
    bound=bound,
    keeps_length=False,
    lower_limit=float("-inf"),
    summary="log sum_j exp(x_j)",
)
