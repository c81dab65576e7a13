"""Parts of a row side by side, then merged, in Triton: compiled on CUDA, interpreted by numpy on the CPU."""

import torch

from suite.kernels import kernel


@kernel("softmax", devices=("cuda",), requires=("triton",))
def triton_split(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_split import split

    return split("softmax", x, dim)


@kernel("softmax", devices=("cpu",), requires=("triton",), slow=True)
def triton_split_interpreter(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    from suite.kernels.parts.triton_split import split

    return split("softmax", x, dim)
