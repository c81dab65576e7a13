"""jax.nn.softmax, from outside, compiled by XLA for the CPU, which flushes subnormal numbers."""

from typing import Any

from suite.kernels import kernel


@kernel("softmax", name="jax", adapter="jax", requires=("jax",), slow=True)
def jax_softmax(x: Any, dim: int = -1) -> Any:
    import jax

    return jax.nn.softmax(x, axis=dim)
