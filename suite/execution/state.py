"""The global state that a kernel can corrupt for everybody after it: set to strict before, compared after, put back."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from suite.floating_point import keep_subnormals, subnormals_are_flushed


@dataclass(frozen=True, slots=True)
class GlobalState:
    """Process-wide switches of torch and of this thread's floating-point unit."""

    default_dtype: torch.dtype
    threads: int
    grad_enabled: bool
    deterministic: bool
    float32_matmul_precision: str
    cuda_allow_tf32: bool
    cudnn_allow_tf32: bool
    subnormals_flushed: bool

    @classmethod
    def read(cls) -> GlobalState:
        return cls(
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            subnormals_are_flushed(),
        )

    def write(self) -> None:
        torch.set_default_dtype(self.default_dtype)
        torch.set_num_threads(self.threads)
        torch.set_grad_enabled(self.grad_enabled)
        torch.use_deterministic_algorithms(self.deterministic)
        torch.set_float32_matmul_precision(self.float32_matmul_precision)
        torch.backends.cuda.matmul.allow_tf32 = self.cuda_allow_tf32
        torch.backends.cudnn.allow_tf32 = self.cudnn_allow_tf32
        if not self.subnormals_flushed:
            keep_subnormals()

    def changes(self, after: GlobalState) -> list[str]:
        """ "name from before to after" for every switch that differs."""
        pairs = ((f.name, getattr(self, f.name), getattr(after, f.name)) for f in fields(self))
        return [f"{name} from {before} to {now}" for name, before, now in pairs if before != now]


def strict() -> GlobalState:
    """The state in which every kernel is called: this process's threads, full precision everywhere, subnormals kept."""
    keep_subnormals()
    return GlobalState(torch.float32, torch.get_num_threads(), False, False, "highest", False, False, False)
