"""jax.nn.log_softmax, from outside, compiled by XLA for the CPU, which flushes subnormal numbers."""

from typing import Any

from suite.kernels import kernel


@kernel("log_softmax", name="jax", adapter="jax", requires=("jax",), slow=True)
def jax_log_softmax(x: Any, dim: int = -1) -> Any:
    import jax

    return jax.nn.log_softmax(x, axis=dim)
