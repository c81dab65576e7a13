"""Mutants: wrong kernels that the cases must catch. `python -m tests.mutants` (make score) prints the count.

Each mutant names what it breaks and the statuses that may catch it. One that only some formats show
names its dtypes. x arrives in its own format as [..., n] with dim = -1, or whatever the case has.
Kernels compute in float32, unless the mutant is that they do not.

A file a kind: rows (softmax, log_softmax, logsumexp), calls (options, dims, memory, state), losses
(cross_entropy), attention, states (merge_states), backward (the backward of all of them).
"""

from tests.mutants import attention, backward, calls, losses, rows, states  # noqa: F401
from tests.mutants.mutant import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
