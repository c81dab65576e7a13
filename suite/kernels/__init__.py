"""Kernels: what is under test. `declaration` is @kernel and what it makes, `loading` finds kernels by name.

Each other folder holds kernels, one algorithm a file; `parts` holds what several of them share.
"""

from suite.kernels.declaration import (
    ADAPTERS,
    Domain,
    Kernel,
    declarations,
    describe,
    from_description,
    kernel,
    triton_kernel,
)
from suite.kernels.loading import UnloadableError, is_importable, kernel_names, load_kernels, own_kernels

__all__ = [
    "ADAPTERS",
    "Domain",
    "Kernel",
    "UnloadableError",
    "declarations",
    "describe",
    "from_description",
    "is_importable",
    "kernel",
    "kernel_names",
    "load_kernels",
    "own_kernels",
    "triton_kernel",
]
