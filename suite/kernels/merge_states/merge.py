"""The weights exp(lse - m), m the larger lse, and the weighted mean of the outputs."""

from suite.kernels import kernel
from suite.kernels.parts import attention_merge
from suite.kernels.parts.attention_merge import State, of_states


@kernel("merge_states")
@of_states
def merge(a: State, b: State) -> State:
    return attention_merge.merge(a, b)
