"""softmax-suite tells the truth about softmax and attention kernels: against certified references,
by proved bounds.

    from suite import judge
    judge("softmax", x, y).raise_if_failed()

Importing this package does not import torch.
"""

from suite.kernels import kernel
from suite.numerics import BEST_PRACTICE, CONTRACT, Numerics, Semantics
from suite.verdict.judge import judge
from suite.verdict.judgement import Judgement, JudgementError
from suite.version import __version__

__all__ = [
    "BEST_PRACTICE",
    "CONTRACT",
    "Judgement",
    "JudgementError",
    "Numerics",
    "Semantics",
    "__version__",
    "judge",
    "kernel",
]
