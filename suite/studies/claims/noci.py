"""Noci et al., "Signal Propagation in Transformers", arXiv 2206.03126: what rank collapse does to
gradients.
"""

from __future__ import annotations

from suite.formats import float64
from suite.studies.claims import Finding, claim
from suite.studies.depth import gradients_through

STACKS = ("attention", "residual, LayerNorm before")


@claim(
    name="rank-collapse-query-gradients",
    source="Noci, Anagnostidis, Biggio, Orvieto, Singh and Lucchi, arXiv 2206.03126, abstract",
    published=None,
    criterion=(
        "norm of the gradient of W_q over that of W_v at layer 8 of 8, float64: below 10^-12 in attention"
        " alone, above 10^-2 with residuals and LayerNorm before; the gradient of the tokens changes by less"
        " than a factor of 100 in both"
    ),
    seconds=1.0,
)
def query_gradients() -> Finding:
    """Rank collapse makes the gradients of queries and keys vanish at initialisation."""
    found = {name: gradients_through(name, [float64], depths=(8,))["float64"] for name in STACKS}
    ratios, gains = (
        {n: d["query"][-1] for n, d in found.items()},
        {n: d["gain"][-1] for n, d in found.items()},
    )
    collapsed, kept = STACKS
    return Finding(
        measured="; ".join(
            f"{n}: W_q over W_v {ratios[n]:.1e}, gradient through 8 layers × {gains[n]:.2f}" for n in STACKS
        ),
        agrees=ratios[collapsed] < 1e-12
        and ratios[kept] > 1e-2
        and all(0.01 < gain < 100 for gain in gains.values()),
    )
