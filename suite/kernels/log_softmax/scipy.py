"""scipy.special.log_softmax, from outside, on numpy arrays in their own format."""

from typing import Any

from suite.kernels import kernel


@kernel("log_softmax", name="scipy", adapter="numpy", requires=("scipy",))
def scipy_log_softmax(x: Any, dim: int = -1) -> Any:
    from scipy import special

    return special.log_softmax(x, axis=dim)
