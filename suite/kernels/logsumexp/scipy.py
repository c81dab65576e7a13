"""scipy.special.logsumexp, from outside, on numpy arrays in their own format."""

from typing import Any

from suite.kernels import kernel


@kernel("logsumexp", name="scipy", adapter="numpy", requires=("scipy",))
def scipy_logsumexp(x: Any, dim: int = -1) -> Any:
    from scipy import special

    return special.logsumexp(x, axis=dim)
