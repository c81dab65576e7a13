"""Running maximum and sum over blocks of the row, in Triton: compiled on CUDA, interpreted by numpy
on the CPU.
"""

import torch

from suite.kernels import kernel


@kernel("logsumexp", devices=("cuda",), requires=("triton",))
def triton_online(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_online import online

    return online("logsumexp", x, dim)


@kernel("logsumexp", devices=("cpu",), requires=("triton",), slow=True)
def triton_online_interpreter(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_online import online

    return online("logsumexp", x, dim)
