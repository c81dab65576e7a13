"""Both passes with online maximum and sum over blocks, in Triton: compiled on CUDA, interpreted by
numpy on the CPU.
"""

import torch

from suite.kernels import kernel


@kernel("log_softmax", devices=("cuda",), requires=("triton",))
def triton_fused(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_log_softmax import log_softmax

    return log_softmax(x, dim)


@kernel("log_softmax", devices=("cpu",), requires=("triton",), slow=True)
def triton_fused_interpreter(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_log_softmax import log_softmax

    return log_softmax(x, dim)
