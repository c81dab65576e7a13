"""scipy.special.softmax, from outside, on numpy arrays in their own format."""

from typing import Any

from suite.kernels import kernel


@kernel("softmax", name="scipy", adapter="numpy", requires=("scipy",))
def scipy_softmax(x: Any, dim: int = -1) -> Any:
    from scipy import special

    return special.softmax(x, axis=dim)
