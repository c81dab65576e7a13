"""Where gradients vanish, counted entry by entry against the exact gradient: docs/vanishing.md.

Every op is asked about rows of logits x whose exact gradient is closed, g being the upstream
gradient, p the softmax of x:

softmax         p (g - sum p g)                 attention   the same: q = 1, keys x, values g, so that dk = dS
log_softmax     g_t (onehot - p), of a target   cross_entropy   g (p - onehot)
                logsumexp   g p

An entry that is exactly 0 while the exact gradient is not is one of three:

false zero   the exact gradient is a normal number of the format: the kernel lost it
flushed      it rounds to a subnormal number: a device or kernel that flushes lost it
underflow    it rounds to 0: no kernel of this format can keep it, only a larger one or a scaled loss

data of the measurement, JSON-ready:
    reason      why nothing was measured; then it is the only key
    note        why less was measured than of other kernels, else ""
    scale, length, gap   curves. at: logit scales (standard deviations), row lengths, gaps between the
                         largest logit and the
                others; n or scale: what stays the same; a list for each name of COLUMNS; theory:
                the closed places of "underflow" (typical entries are 0), "rounded" and "absorbed"
                (p is 1, rounded once or summed in the format)
    saturation, lost   as the thresholds of thresholds.py, a list with an object for each row length:
                       the smallest gap g of
                (0, -g, ..., -g) at which the gradient of the first entry is 0, and that of the
                others. saturation is [] for logsumexp, whose gradient p never saturates to 0
    mitigations a list of objects: name, and the names of COUNTS, on rows of logit scale MITIGATED_SCALE
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import Array, Format, get_format
from suite.kernels import Kernel
from suite.ops import UPSTREAM, Result
from suite.records.record import Measurement
from suite.studies.grid import Formulas, threshold
from suite.studies.probing import Probe, refuse_other_ops
from suite.studies.vanishing.mitigations import mitigated
from suite.studies.vanishing.question import (
    COUNTS,
    FLOORS,
    HEAD_SIZE,
    NORMALISED,
    SCALE_LENGTH,
    Question,
    counts,
    normal_rows,
    unit_logits,
)
from suite.studies.vanishing.theory import (
    LENGTH_SCALE,
    losses,
    saturations,
    theory_of_gap,
    theory_of_length,
    theory_of_scale,
)
from suite.tensors import to_float64, to_torch

if TYPE_CHECKING:
    from suite.execution.host import Host

COLUMNS = (*COUNTS, *FLOORS, "top_error", "entropy", "entropy_bound")
"""top_error: relative error of the gradient of the largest logit, the median over rows. entropy,
entropy_bound: of the exact row and its lower bound, means over rows, in nats.
"""

SCALES: tuple[float, ...] = tuple(2.0**k for k in range(-2, 7))
SCALES_IF_SLOW = SCALES[::2]

LENGTHS: tuple[int, ...] = (2, 8, 32, 128, 512, 2048, 8192, 32768, 131072)
LENGTHS_IF_SLOW = (2, 8, 32, 128, 512)
LENGTHS_IF_DECLARED_SLOW = (2, 32)
LENGTH_ENTRIES = 2**17
LENGTH_ROWS = 64

GAPS = 36
THRESHOLD_LENGTHS = (2, 4096)
THRESHOLD_LENGTHS_IF_SLOW = (2, 33)
CANDIDATES = 64

SLOW_SECONDS = 0.004
"""A kernel whose gradient of one row of 1,024 takes longer is measured at fewer points."""

LAST_SECONDS = 0.1
"""A kernel that takes so long for a length gets no longer ones."""

SMALL_HEAD = 16
"""Entries of q, k and v that attention is asked with: all but the first are 0. Some kernels take no
smaller head.
"""


def measure(kernel: Kernel, dtype: str, *, device: str = "cpu", host: Host | None = None) -> Measurement:
    """The vanishing of a kernel's gradients, by its own backward; no verdict.

    dtype: a format's name. host: where its calls run, this process by default. What the kernel does
    wrong is a reason in the data. Raises ValueError for an unknown dtype or another op.
    """
    refuse_other_ops(kernel, "vanishing", "is")
    return VanishingProbe(kernel, get_format(dtype), device, host).measurement()


class VanishingProbe(Probe):
    """A kernel whose gradient is taken on rows of logits."""

    chapter = "vanishing"
    further = (UPSTREAM,)

    def __init__(self, kernel: Kernel, format: Format, device: str = "cpu", host: Host | None = None) -> None:
        super().__init__(kernel, format, device, host)
        if self.has_keys:
            self.options["scale"] = 1.0  # a score is its logit

    def data(self) -> dict[str, Any]:
        seconds = min(
            self.gradient(self.question(np.zeros((1, n)), "upstream"))[1] for n in (1024, 1023, 1022)
        )
        scales, lengths, threshold_lengths = SCALES, LENGTHS, THRESHOLD_LENGTHS
        note = self.slowness(seconds, SLOW_SECONDS, "the gradient of 1,024")
        if note:
            scales, threshold_lengths = SCALES_IF_SLOW, THRESHOLD_LENGTHS_IF_SLOW
            lengths = LENGTHS_IF_DECLARED_SLOW if self.kernel.slow else LENGTHS_IF_SLOW
        return {
            "note": note,
            "scale": {
                "n": SCALE_LENGTH,
                **self.curve(scales, self.scaled),
                "theory": theory_of_scale(self.format),
            },
            "length": {
                "scale": LENGTH_SCALE,
                **self.curve(lengths, self.of_length),
                "theory": theory_of_length(self.format),
            },
            "gap": {"n": 2, **self.gaps(), "theory": theory_of_gap(self.format)},
            "saturation": (
                []
                if self.op.result is Result.LOG_SUM
                else [self.threshold(n, 0, saturations) for n in threshold_lengths]
            ),
            "lost": [
                self.threshold(n, -1, functools.partial(losses, self.op.result)) for n in threshold_lengths
            ],
            "mitigations": [{"name": name, **_short(found)} for name, found in mitigated(self).items()],
        }

    # Questions, and how an op is asked.

    def question(self, logits: Array, key: str, *, upstream: Array | None = None) -> Question:
        """These logits rounded to the format. The upstream gradient of softmax and attention is
        normal times sqrt(HEAD_SIZE), as dO.v_j is; that of the others is 1 at a target, the largest
        logit, as a confident and right model has it.
        """
        x = self.format.round(logits)
        if upstream is None:
            whole = self.op.result in NORMALISED
            upstream = (
                self.format.round(math.sqrt(HEAD_SIZE) * normal_rows(*x.shape, key))
                if whole
                else np.ones((len(x), 1))
            )
        return Question(x, upstream, x.argmax(1))

    def two_valued(self, gaps: Array, n: int) -> Question:
        """Rows (0, -g, ..., -g); softmax and attention have the upstream gradient (1, 0, ..., 0)."""
        x = np.repeat(-gaps[:, None], n, axis=1)
        x[:, 0] = 0.0
        if self.op.result not in NORMALISED:
            return self.question(x, "upstream")
        upstream = np.zeros_like(x)
        upstream[:, 0] = 1.0
        return self.question(x, "upstream", upstream=upstream)

    def scaled(self, scale: float) -> Question:
        return self.question(scale * unit_logits()[0], "upstream")

    def of_length(self, n: float) -> Question:
        rows = max(1, min(LENGTH_ROWS, LENGTH_ENTRIES // int(n)))
        return self.question(LENGTH_SCALE * normal_rows(rows, int(n), "logits"), "upstream")

    def gradient(self, question: Question, format: Format | None = None) -> tuple[Array, float]:
        """(gradient [rows, n] of the logits as float64, seconds) of one call in `format`, the
        probe's by default.
        """
        from suite.verdict.tensors import as_tuple

        tensors = {
            name: to_torch(values, format or self.format, self.device)
            for name, values in self.inputs(question).items()
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name != "upstream"}
        rows, n = question.logits.shape
        options = self.op.resolve_options(self.options, shapes)
        outcome = self.call_kernel(tensors, options, f" on {rows} rows of {n}")
        gradients = as_tuple(outcome.value)
        values = to_float64(gradients[1])[:, 0, :, 0] if self.has_keys else to_float64(gradients[0])
        return values, outcome.seconds or 0.0

    @property
    def has_keys(self) -> bool:
        """Whether the logits are scores of keys, whose gradient is that of the keys."""
        return self.op.result is Result.AVERAGE

    def inputs(self, question: Question) -> dict[str, NDArray[Any]]:
        x, g = question.logits, question.upstream
        if self.has_keys:
            return {
                "q": _headed(np.ones((len(x), 1))),
                "k": _headed(x),
                "v": _headed(g),
                UPSTREAM: _headed(np.ones((len(x), 1))),
            }
        if self.op.result is Result.LOSS:
            return {"logits": x, "target": question.target, UPSTREAM: g[:, 0]}
        if self.op.result is Result.LOG_PROBABILITY:
            chosen = np.zeros_like(x)
            np.put_along_axis(chosen, question.target[:, None], g, 1)
            return {"x": x, UPSTREAM: chosen}
        return {"x": x, UPSTREAM: g if self.op.result is Result.PROBABILITY else g[:, 0]}

    # Curves.

    def curve(self, at: Sequence[float], question: Callable[[float], Question]) -> dict[str, Any]:
        points: list[dict[str, float | None]] = []
        for place in at:
            asked = question(place)
            got, seconds = self.gradient(asked)
            points.append(self.compared(asked, got))
            if seconds > LAST_SECONDS:
                break
        return _columns(at, points)

    def point(self, question: Question) -> dict[str, float | None]:
        return self.compared(question, self.gradient(question)[0])

    def compared(self, question: Question, got: Array) -> dict[str, float | None]:
        exact = question.exact(self.op.result)
        top, top_exact = (np.take_along_axis(values, question.top, 1) for values in (got, exact))
        known = np.abs(top_exact) >= self.format.smallest_normal
        error = np.abs(top - top_exact)[known] / np.abs(top_exact)[known]
        entropy, bound = question.entropy()
        return counts(got, exact, question, self.format, total=self.total(question)) | {
            "top_error": float(np.median(error)) if len(error) and np.isfinite(error).all() else None,
            "entropy": entropy,
            "entropy_bound": bound,
        }

    def gaps(self) -> dict[str, Any]:
        """The curve over the gap of rows of two, asked in one call."""
        at = np.unique(self.format.round(np.geomspace(0.5, 1.15 * self.format.exp_underflow, GAPS)))
        whole = self.two_valued(at, 2)
        got, _ = self.gradient(whole)
        points = [
            self.compared(Question(whole.logits[[i]], whole.upstream[[i]], whole.target[[i]]), got[[i]])
            for i in range(len(at))
        ]
        return _columns(at.tolist(), points)

    def threshold(self, n: int, entry: int, formulas: Callable[[Format, int], Formulas]) -> dict[str, Any]:
        """The smallest gap at which the gradient of this entry of (0, -g, ..., -g) is exactly 0."""

        def gone(gaps: Array) -> NDArray[np.bool_]:
            return np.asarray(self.gradient(self.two_valued(gaps, n))[0][:, entry] == 0)

        width = SMALL_HEAD if self.has_keys else 1
        expected = formulas(self.format, n)
        return threshold(self.format, n, gone, expected, candidates=CANDIDATES, width=width)

    def total(self, question: Question) -> Array | float:
        """What the gradient of a row adds up to."""
        return question.upstream[:, 0] if self.op.result is Result.LOG_SUM else 0.0


def _columns(at: Sequence[float], points: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    columns = {name: [_four_digits(point[name]) for point in points] for name in COLUMNS}
    return {"at": list(at[: len(points)]), **columns}


def _short(counted: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: _four_digits(counted[name]) for name in (*COUNTS, *FLOORS)}


def _four_digits(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _headed(values: Array) -> Array:
    """[rows, n] as [rows, 1, n, SMALL_HEAD], zero but for the first entry of each head."""
    headed = np.zeros((*values.shape, SMALL_HEAD))
    headed[..., 0] = values
    return headed[:, None]
