"""scipy.special.softmax, log_softmax and logsumexp, on numpy arrays in their own format."""

from typing import Any

from suite.kernels import kernel


@kernel("softmax", "log_softmax", "logsumexp", name="scipy", adapter="numpy", requires=("scipy",))
def scipy_special(x: Any, dim: int = -1, *, op: str) -> Any:
    from scipy import special

    return getattr(special, op)(x, axis=dim)
