"""Real inputs: pre-softmax attention scores of a language model on real text (capture/README.md has
their provenance).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from suite.formats import Array, Format
from suite.inputs import family
from suite.inputs.draws import Draw

SCORES_SHAPE = (152, 331)
PADDED_SHAPE = (72, 331)


@functools.cache
def _stored(name: str) -> Array:
    path = Path(__file__).parent / "capture" / "minilm_scores.npz"
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file[name], dtype=np.float64)


def minilm_scores(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """Attention scores of all-MiniLM-L6-v2 on the Gettysburg Address: the hardest rows of every
    layer and head.
    """
    return _stored("scores")


def minilm_padded(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """The same model on a short sentence in a padded batch: 36 real keys, 295 padded ones at -inf."""
    return _stored("padded")


family(minilm_scores, fixed_shape=SCORES_SHAPE)
family(minilm_padded, fixed_shape=PADDED_SHAPE)
