"""softmax: see definition.py, bound.py and kernels/."""

from suite.ops import Op
from suite.ops.softmax.bound import bound
from suite.ops.softmax.definition import define, special

OP = Op(
    name="softmax",
    define=define,
    special=special,
    bound=bound,
    keeps_length=True,
    lower_limit=0.0,
    summary="exp(x_i) / sum_j exp(x_j)",
)
