"""Deterministic weights: a module's parameters as draws of this package, never of torch's global
generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from suite.formats import float64
from suite.inputs.draws import Draw
from suite.tensors import to_torch

Module = TypeVar("Module", bound=nn.Module)


def built(make: Callable[[], Module], key: str) -> Module:
    """The module in float64, its matrices N(0, 1 / fan_in) drawn by `key` and their names; vectors
    as torch initialises them.

    torch's random state is as before. Vectors are biases, which become 0, and a LayerNorm's gain, which is 1.
    """
    with torch.random.fork_rng(devices=[]):
        module = make().double()
    for name, parameter in module.named_parameters():
        with torch.no_grad():
            if parameter.ndim > 1:
                values = Draw(f"{key}: {name}").normal(*parameter.shape) / math.sqrt(parameter.shape[-1])
                parameter.copy_(to_torch(values, float64))
            elif name.rpartition(".")[2].startswith("bias"):
                parameter.zero_()
    return module
