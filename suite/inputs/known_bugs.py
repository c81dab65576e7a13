"""The very numbers of bug reports, one report a row. docs/known-bugs.md says what went wrong in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from suite.formats import Array, Format
from suite.inputs import family
from suite.inputs.draws import Draw

INF = float("inf")
LOWEST = -1.7976931348623157e308
"""Stands for the lowest finite number of each format."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """The logits of a report and what stands behind them in a longer row."""

    source: str
    """repository#number of the reports."""
    logits: tuple[float, ...]
    rest: Literal["masked", "repeated", "last"] = "masked"
    """"masked" = -inf, which leaves the result of the short row as it was; "repeated" = the logits
    again and again; "last" = the last logit, for rows of one entry against many.
    """

    def row(self, n: int) -> Array:
        """The logits and the rest, float64 [n]; where n is too small for all of them, the last ones."""
        if self.rest == "repeated":
            return np.resize(np.array(self.logits), n)
        fill = -np.inf if self.rest == "masked" else self.logits[-1]
        row = np.full(n, fill)
        row[: len(self.logits)] = self.logits[-n:] if n else ()
        return row


TRIGGERS = (
    Trigger("pytorch/pytorch#38839", (-1e7, -9999999.0, -1e7)),
    Trigger("pytorch/pytorch#38839, #195829", (-1e7, -1e7, -1e7)),
    Trigger("pytorch/pytorch#195829", (1e7, 1e7 + 1, 1e7 - 1), "repeated"),
    Trigger("pytorch/pytorch#11752", (1e8, 1e8)),
    Trigger("ml-explore/mlx#4169", (1.0, 1.0)),
    Trigger("ml-explore/mlx#4169", (1e4, 1e4)),
    Trigger("ml-explore/mlx#4169", (1e8, 1e8)),
    Trigger("ml-explore/mlx#4169", (1e20, 1e20)),
    Trigger("BasisResearch/dynestyx#183", (-1e10,) * 11),
    Trigger("cornell-brg/hb-pytorch#61", (88.72284,)),
    Trigger("koaning/scikit-lego#506", (2315.9, -237563.7)),
    Trigger("FluxML/NNlib.jl#68", (-431.0, 279.0, 427.0)),
    Trigger("FluxML/NNlib.jl#68", (-1047.0, -981.0, 1891.0)),
    Trigger("tensorflow/tensorflow#21271", (5000.0, -5000.0), "last"),
    Trigger("HabanaAI/vllm-fork#275", (2000.0, 2001.5, 1998.0, 10.0), "repeated"),
    Trigger("deeplearning4j/deeplearning4j#6539", (1e5, 1e-4)),
    Trigger("scikit-learn/scikit-learn#17978, #33168", (-1000.0, -1001.0, -1000.5), "repeated"),
    Trigger("apple/coremltools#2690", (8.0,), "repeated"),
    Trigger("apple/coremltools#2690", (-8.0, 7.7), "last"),
    Trigger("pytorch/pytorch#2391", (32000.0,) * 4 + (-32000.0,) * 4, "repeated"),
    Trigger("bytedance/lightseq#74", (-1.5, -3.0, -200.0), "repeated"),
    Trigger("bytedance/lightseq#74", (-200.0, -201.0, -199.0), "repeated"),
    Trigger("NVIDIA/TransformerEngine#652", (-20000.0, -19999.0, -20008.0), "repeated"),
    Trigger("ohdearquant/lattice#373", (-20000.0,)),
    Trigger("manassharma07/crysx_nn#7", (-700.0, -701.0), "repeated"),
    Trigger("pytorch/pytorch#100775", (-1.7197e14, 3.5e13, 1.7197e14, 1.1e13), "repeated"),
    Trigger("pytorch/pytorch#105190", (-1e4, 2.5e3, 9.9e3, -3e4), "repeated"),
    Trigger("flashinfer-ai/flashinfer#5088", (42000.0, -20000.0), "last"),
    Trigger("torch/nn#804", (-5.204, 7.8325)),
    Trigger("torch/nn#804", (7.8325, -5.204), "last"),
    Trigger("pytorch/pytorch#195680", (37.43, 0.0)),
    Trigger("pytorch/pytorch#113708", (17.0, 0.0), "last"),
    Trigger("pytorch/pytorch#113708", (37.0, 0.0), "last"),
    Trigger("tinygrad/tinygrad#17822", (1.0, 2.0)),
    Trigger("tinygrad/tinygrad#17822; rmcgibbo/logsumexp#2; tensorflow/tensorflow#11692", (-INF, -INF)),
    Trigger("tensorflow/tensorflow#40606", (-INF, 0.0, 0.0)),
    Trigger("google-deepmind/optax#896", (-INF, 0.0)),
    Trigger("tinygrad/tinygrad#17853", (-INF,) * 16 + (0.5, 1.0, -2.0)),
    Trigger("pytorch/pytorch#52213", (2.0, -INF, -INF, 1.0, -INF, -INF, 3.0)),
    Trigger("pytorch/pytorch#161150", (-INF, INF, INF, INF)),
    Trigger("scipy/scipy#23548; cupy/cupy#5716", (INF, INF)),
    Trigger("scipy/scipy#23548", (INF, 0.0), "last"),
    Trigger("bdusell/semiring-einsum#13", (2e38, 2e38)),
    Trigger("pytorch/pytorch#109517", (LOWEST,) * 16 + (-1.0, -2.5, 0.5), "last"),
    Trigger("pytorch/pytorch#110213", (LOWEST / 2,), "repeated"),
    Trigger("huggingface/transformers#31035", (-0.5, LOWEST, 2.0, LOWEST), "repeated"),
    Trigger("pytorch/pytorch#1546", (0.0, 1e-3, -1e-3), "repeated"),
    Trigger("pytorch/pytorch#187053", (11.0, -11.0, 0.0, -3.0, 5.0), "repeated"),
    Trigger("pytorch/pytorch#141128; ohdearquant/lattice#375", (0.5, float("nan"), 0.1), "repeated"),
)


@family
def known_bugs(rows: int, n: int, format: Format, draw: Draw) -> Array:
    """The numbers of public bug reports, one a row; fewer rows than reports hold a run of them that
    the seed chooses.

    A row of the table is met by every case of 64 rows. Longer rows continue as each Trigger says.
    """
    start = int(draw.integers(len(TRIGGERS), 1)[0])
    x = np.empty((rows, n))
    for row in range(rows):
        x[row] = TRIGGERS[(start + row) % len(TRIGGERS)].row(n)
    lowest = np.isfinite(x) & (x <= LOWEST / 2)
    x[lowest] = x[lowest] / -LOWEST * format.largest
    return x
