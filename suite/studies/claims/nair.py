"""Nair, "Softmax is 1/2-Lipschitz", arXiv 2510.23012."""

from __future__ import annotations

import numpy as np

from suite.formats import Array
from suite.inputs.draws import Draw
from suite.studies.claims import Finding, claim


def jacobian_norms(p: Array) -> tuple[Array, Array]:
    """The infinity norm (equal to the 1-norm) and the 2-norm of J = diag(p) - p p^T for rows p [rows, n]."""
    jacobian = p[:, :, None] * (np.eye(p.shape[1]) - p[:, None, :])
    return np.abs(jacobian).sum(axis=2).max(axis=1), np.linalg.norm(jacobian, 2, axis=(1, 2))


@claim(
    name="softmax-lipschitz-half",
    source="Nair, arXiv 2510.23012",
    published="0.5 (1 and infinity: attained); below 0.5 (2, n >= 3)",
    criterion=(
        "no norm above 0.5 + 10^-14 on 20,000 rows; 0.5 attained at p = (1/2, 1/2); the 2-norm below 0.5 for"
        " n = 8"
    ),
    seconds=0.5,
)
def lipschitz() -> Finding:
    """The Jacobian of softmax has a norm of at most 1/2, in every l_p norm."""
    x = Draw("claims: Nair").normal(20_000, 8) * 4
    e = np.exp(x - x.max(axis=1, keepdims=True))
    in_infinity, in_two = (float(norms.max()) for norms in jacobian_norms(e / e.sum(axis=1, keepdims=True)))
    attained = float(jacobian_norms(np.array([[0.5, 0.5]]))[0][0])
    return Finding(
        measured=f"infinity {in_infinity:.6f}, two {in_two:.6f}; at (1/2, 1/2) {attained}",
        agrees=in_infinity <= 0.5 + 1e-14 and in_two < 0.5 and attained == 0.5,
    )
