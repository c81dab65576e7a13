"""Weights exp2((lse - m) log2(e)), and lse = m + log2(d) ln 2: base two, as in FlashInfer (arXiv
2501.01005).
"""

import torch

from suite.kernels import kernel
from suite.kernels.parts.attention_merge import State, average, of_states
from suite.kernels.parts.base_two import LN_2, LOG2_E
from suite.kernels.parts.partial import finite


@kernel("merge_states")
@of_states
def merge_base_two(a: State, b: State) -> State:
    (o_a, lse_a), (o_b, lse_b) = a, b
    m = torch.maximum(lse_a, lse_b)
    w_a, w_b = torch.exp2((lse_a - finite(m)) * LOG2_E), torch.exp2((lse_b - finite(m)) * LOG2_E)
    return average(o_a, w_a, o_b, w_b), m + torch.log2(w_a + w_b) * LN_2
