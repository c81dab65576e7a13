"""Tests run beside each other: one thread of torch each, or they wait for one another on small tensors."""

import torch

torch.set_num_threads(1)
