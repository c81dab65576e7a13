"""Loss and gradient in Triton, each in its own pass over the classes: compiled on CUDA, interpreted
by numpy on the CPU.
"""

from typing import Any

import torch

from suite.kernels import kernel


@kernel("cross_entropy", devices=("cuda",), requires=("triton",))
def triton_fused(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    from suite.kernels.parts.triton_cross_entropy import cross_entropy

    return cross_entropy(logits, target, **options)


@kernel("cross_entropy", devices=("cpu",), requires=("triton",), slow=True)
def triton_fused_interpreter(logits: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    from suite.kernels.parts.triton_cross_entropy import cross_entropy

    return cross_entropy(logits, target, **options)
