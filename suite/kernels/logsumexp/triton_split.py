"""Parts of a row side by side, then merged, in Triton: compiled on CUDA, interpreted by numpy on the CPU."""

import torch

from suite.kernels import kernel


@kernel("logsumexp", devices=("cuda",), requires=("triton",))
def triton_split(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_split import split

    return split("logsumexp", x, dim)


@kernel("logsumexp", devices=("cpu",), requires=("triton",), slow=True)
def triton_split_interpreter(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_split import split

    return split("logsumexp", x, dim)
