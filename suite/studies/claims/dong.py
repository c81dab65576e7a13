"""Dong, Cordonnier and Loukas, "Attention is not all you need", arXiv 2103.03404: attention alone
loses rank with depth.
"""

from __future__ import annotations

import itertools

from suite.formats import float64
from suite.studies.claims import Finding, claim
from suite.studies.depth import exact_residuals, rank_collapse

SOURCE = "Dong, Cordonnier and Loukas, arXiv 2103.03404"


@claim(
    name="rank-collapse-cubic",
    source=SOURCE,
    published="the exponent of the bound triples from layer to layer",
    criterion=(
        "log10 of the residual of layers 3 to 6 is 2.9 to 3.5 times that of the layer before, in mpmath"
    ),
    seconds=1.0,
)
def cubic() -> Finding:
    """Without skip connections tokens become the same doubly exponentially: each layer about cubes
    what is left of them.
    """
    logs = exact_residuals(6)
    ratios = [after / before for before, after in itertools.pairwise(logs[1:])]
    residuals, growth = (
        ", ".join(f"10^{value:.1f}" for value in logs),
        ", ".join(f"{ratio:.2f}" for ratio in ratios),
    )
    return Finding(
        measured=f"residuals {residuals}; ratios of exponents {growth}",
        agrees=all(2.9 <= ratio <= 3.5 for ratio in ratios),
        note="8 tokens of 8 features, one head, weights N(0, 1/8), no LayerNorm",
    )


@claim(
    name="rank-collapse-skip",
    source=SOURCE,
    published=None,
    criterion=(
        "median residual in float64 after 12 layers: below 10^-12 without, above 10^-2 with skip connections"
    ),
    seconds=2.0,
)
def skip() -> Finding:
    """Skip connections stop the collapse; LayerNorm does not."""
    [alone, normalised, skipping] = (
        rank_collapse(name, [float64])["float64"]["median"][-1]
        for name in ("attention", "LayerNorm after", "residual")
    )
    return Finding(
        measured=(
            f"attention {alone:.1e}, with LayerNorm {normalised:.1e}, with skip connections {skipping:.2f}"
        ),
        agrees=max(alone, normalised) < 1e-12 and skipping > 1e-2,
        note="64 tokens of 64 features, one head, 8 draws",
    )
