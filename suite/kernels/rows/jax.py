"""jax.nn.softmax, log_softmax and logsumexp, compiled by XLA for the CPU, which flushes subnormal numbers."""

from typing import Any

from suite.kernels import kernel


@kernel("softmax", "log_softmax", "logsumexp", name="jax", adapter="jax", requires=("jax",), slow=True)
def jax_nn(x: Any, dim: int = -1, *, op: str) -> Any:
    import jax

    return getattr(jax.nn, op)(x, axis=dim)
