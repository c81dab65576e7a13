"""The whole row in one block, in Triton: compiled on CUDA, interpreted by numpy on the CPU."""

import torch

from suite.kernels import kernel


@kernel("logsumexp", devices=("cuda",), requires=("triton",))
def triton_fused(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_fused import fused

    return fused("logsumexp", x, dim)


@kernel("logsumexp", devices=("cpu",), requires=("triton",), slow=True)
def triton_fused_interpreter(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_fused import fused

    return fused("logsumexp", x, dim)
