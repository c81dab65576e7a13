"""jax.nn.logsumexp, from outside, run by XLA on the CPU, which flushes subnormal numbers."""

from typing import Any

from suite.kernels import kernel


@kernel("logsumexp", name="jax", adapter="jax", requires=("jax",), slow=True)
def jax_logsumexp(x: Any, dim: int = -1) -> Any:
    import jax

    return jax.nn.logsumexp(x, axis=dim)
