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
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suite.formats import DTYPES, FORMATS, Array, Format, compute_format, get_format
from suite.inputs.draws import Draw
from suite.kernels import Kernel
from suite.ops import UPSTREAM, Result, get_op, measured_by
from suite.records.record import Measurement
from suite.studies.thresholds import Formulas, Grid, arithmetics, explanations, saturation_formulas
from suite.tensors import to_float64, to_torch

if TYPE_CHECKING:
    import torch

    from suite.execution.host import Host


NORMALISED = (Result.PROBABILITY, Result.AVERAGE)
"""Results through whose weights every entry of an upstream gradient reaches every logit."""

COUNTS = ("zero", "false_zero", "flushed", "top_lost", "dead", "defect", "gain", "exact_gain", "not_finite")
"""zero: share of entries that are exactly 0; false_zero, flushed: shares of entries. top_lost:
share of rows in which the gradient of the largest logit, a normal number, is off by more than half,
0 included. dead: share of rows, all of whose entries are 0. defect: |sum dx - what it should be| /
sum |dx|, the mean over rows that are alive, None without one. gain, exact_gain: |dx| / |upstream|,
Euclidean norms over all rows. not_finite: share of entries.
"""
FLOORS = ("underflow", "dead_floor")
"""What no kernel of the format avoids: shares of entries, and of rows in all entries, whose exact
gradient rounds to 0.
"""
COLUMNS = (*COUNTS, *FLOORS, "top_error", "entropy", "entropy_bound")
"""top_error: relative error of the gradient of the largest logit, the median over rows. entropy,
entropy_bound: of the exact row and its lower bound, means over rows, in nats.
"""

SCALES = tuple(2.0**k for k in range(-2, 7))
SCALES_IF_SLOW = SCALES[::2]
SCALE_ROWS, SCALE_LENGTH, HEAD_SIZE = 64, 256, 64
LENGTHS = (2, 8, 32, 128, 512, 2048, 8192, 32768, 131072)
LENGTHS_IF_SLOW, LENGTHS_IF_DECLARED_SLOW = (2, 8, 32, 128, 512), (2, 32)
LENGTH_SCALE, LENGTH_ENTRIES, LENGTH_ROWS = 4.0, 2**17, 64
GAPS = 36
THRESHOLD_LENGTHS, THRESHOLD_LENGTHS_IF_SLOW = (2, 4096), (2, 33)
CANDIDATES, ENTRIES_PER_CALL = 64, 2**18
SLOW_SECONDS, LAST_SECONDS = 0.004, 0.1
"""A kernel whose gradient of one row of 1,024 takes longer is measured at fewer points; one that
takes so long for a length gets no longer ones.
"""

MITIGATED_SCALE = 16.0
SOFTCAP, TEMPERATURE, LOSS_SCALE = 50.0, 4.0, 2.0**10
SMALL_HEAD = 16
"""Entries of q, k and v that attention is asked with: all but the first are 0. Some kernels take no
smaller head.
"""


# The exact gradient, its counts and the closed thresholds.


@dataclass(frozen=True, eq=False)
class Question:
    """Rows of logits [rows, n] and an upstream gradient: [rows, n] for softmax and attention, else
    [rows, 1] with a target [rows], which logsumexp does not look at. Numbers of the format that is
    asked about.
    """

    logits: Array
    upstream: Array
    target: NDArray[np.int64]

    @functools.cached_property
    def top(self) -> NDArray[np.int64]:
        return np.asarray(self.logits.argmax(1)[:, None])

    @functools.cached_property
    def parts(self) -> tuple[Array, Array]:
        """(p, 1 - p), each without cancellation: 1 - p of the largest entry is the sum of the others."""
        e = np.exp(self.logits - np.take_along_axis(self.logits, self.top, 1))
        others = e.copy()
        np.put_along_axis(others, self.top, 0.0, 1)
        others_sum = others.sum(1, keepdims=True)
        p = e / (1.0 + others_sum)
        rest = 1.0 - p
        np.put_along_axis(rest, self.top, others_sum / (1.0 + others_sum), 1)
        return p, rest

    def exact(self, result: Result) -> Array:
        """The gradient [rows, n] in float64. g - sum p g is taken from the largest entry's g, where
        p is all but 1.
        """
        p, rest = self.parts
        if result in NORMALISED:
            centred = self.upstream - np.take_along_axis(self.upstream, self.top, 1)
            return np.asarray(p * (centred - (p * centred).sum(1, keepdims=True)))
        if result is Result.LOG_SUM:
            return np.asarray(self.upstream * p)
        gradient, target = -p, self.target[:, None]
        np.put_along_axis(gradient, target, np.take_along_axis(rest, target, 1), 1)
        return np.asarray(self.upstream * (gradient if result is Result.LOG_PROBABILITY else -gradient))

    def entropy(self) -> tuple[float, float]:
        """(mean, mean lower bound) of the rows' entropy, nats.

        ln(1 + (n - 1) b) + s sqrt(n (n - 1)) b / (1 + (n - 1) b), s the norm of the centred logits,
        b = exp(-s sqrt(n/(n-1))) (Zhai et al., arXiv 2303.06296, theorem 3.1, which has the
        spectral norm of the logits for s).
        """
        p, n = self.parts[0], self.logits.shape[1]
        entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(1)
        spread = np.linalg.norm(self.logits - self.logits.mean(1, keepdims=True), axis=1)
        share = np.exp(-spread * math.sqrt(n / (n - 1)))
        bound = np.log1p((n - 1) * share) + spread * math.sqrt(n * (n - 1)) * share / (1 + (n - 1) * share)
        return float(entropy.mean()), float(bound.mean())


def counts(
    got: Array, exact: Array, question: Question, format: Format, *, total: Array | float = 0.0
) -> dict[str, float | None]:
    """COUNTS and FLOORS of a gradient [rows, n] against the exact one. total: what the entries of a
    row add up to, exactly.
    """
    zero, rounded = got == 0, format.round(exact)
    normal = np.abs(exact) >= format.smallest_normal
    off = np.abs(got - exact) > np.abs(exact) / 2
    alive = np.isfinite(got).all(1) & ~zero.all(1)
    kept = got[alive]
    with np.errstate(over="ignore"):
        left = np.abs(kept.sum(1) - np.broadcast_to(total, (len(got),))[alive])
        defect = left / np.abs(kept).sum(1)
    finite = np.where(np.isfinite(got), got, 0.0)
    return {
        "zero": float(zero.mean()),
        "false_zero": float((zero & normal).mean()),
        "flushed": float((zero & ~normal & (rounded != 0)).mean()),
        "top_lost": float(np.take_along_axis(off & normal, question.top, 1).mean()),
        "dead": float(zero.all(1).mean()),
        "defect": float(defect.mean()) if len(defect) else None,
        "gain": float(np.linalg.norm(finite) / np.linalg.norm(question.upstream)),
        "exact_gain": float(np.linalg.norm(exact) / np.linalg.norm(question.upstream)),
        "not_finite": float((~np.isfinite(got)).mean()),
        "underflow": float((rounded == 0).mean()),
        "dead_floor": float((rounded == 0).all(1).mean()),
    }


def saturations(format: Format, n: int) -> Formulas:
    """Gaps g of (0, -g, ..., -g) at which the gradient of the first entry, (n - 1) e^-g or so, is
    0: where p is 1, and for a kernel that knows 1 - p itself where that underflows: "zero", or
    "others" where it is the sum of the others' gradients. Names as in thresholds.py, evaluated for
    every format inside.
    """
    found = saturation_formulas(Result.PROBABILITY, format, n)
    for f in arithmetics(format):
        found[f"rounded {f.name}"] = f.saturation_rounded(n)
        found[f"zero {f.name}"] = f.exp_underflow + math.log(n - 1)
        found[f"others {f.name}"] = losses(Result.PROBABILITY, f, n).get(f"zero {f.name}")
    return {name: value for name, value in found.items() if value is not None and value <= format.largest}


def losses(result: Result, format: Format, n: int) -> Formulas:
    """Gaps at which the gradient of the others, p or p times that of the first, is 0, or below the
    normal numbers.

    With m = n - 1, e = e^-g: e / (1 + m e) = t has the solution t / (1 - m t), e / (1 + m e)^2 = t
    the smaller root 2 t / (1 - 2 m t + sqrt(1 - 4 m t)).
    """
    found: Formulas = {}
    for f in arithmetics(format):
        for name, t in (
            (f"zero {f.name}", f.smallest_subnormal / 2),
            (f"flushed {f.name}", f.smallest_normal),
        ):
            share = (n - 1) * t
            if result in NORMALISED and share < 0.25:
                found[name] = -_log(t) - math.log(2 / (1 - 2 * share + math.sqrt(1 - 4 * share)))
            elif result not in NORMALISED and share < 1:
                found[name] = -_log(t) + math.log1p(-share)
    return {name: value for name, value in found.items() if value is not None and value <= format.largest}


def _log(t: float) -> float:
    """ln t; half the smallest subnormal of float64 is 0 in float64."""
    return math.log(t) if t > 0 else -FORMATS["float64"].exp_underflow


def median_maximum(n: int) -> float:
    """The median of the largest of n standard normal numbers: the gap of a typical logit, in
    standard deviations.
    """
    return statistics.NormalDist().inv_cdf(0.5 ** (1 / n))


def theory_of_scale(format: Format) -> dict[str, float]:
    """Logit scales: at which e^-g of the median entry rounds to 0, and at which p of the median row
    rounds to 1.

    The gap between the two largest of n normal numbers is all but exponential with mean 1/a, a the
    typical largest (spacings of extremes, Renyi 1953), so its median is ln 2 / a.
    """
    largest = median_maximum(SCALE_LENGTH)
    return {
        "underflow": format.exp_underflow / largest,
        "rounded": format.saturation_rounded(2) * largest / math.log(2),
        "absorbed": format.saturation_in_format * largest / math.log(2),
    }


def theory_of_length(format: Format) -> dict[str, float]:
    """The row length at which e^-g of the median entry rounds to 0: ln 2 / -ln Phi(c / scale), c
    the threshold; longer ones than 2^53 are left out. Longer rows saturate less, so there is no
    such length for that.
    """
    gap = format.exp_underflow / LENGTH_SCALE
    tail = math.erfc(gap / math.sqrt(2)) / 2
    n = math.log(2) / -math.log1p(-tail) if tail > 0 else math.inf
    return {"underflow": n} if n < 2**53 else {}


def theory_of_gap(format: Format) -> dict[str, float]:
    """Gaps of a row of two."""
    return {
        "underflow": format.exp_underflow,
        "rounded": format.saturation_rounded(2),
        "absorbed": format.saturation_in_format,
    }


# The measurement.


class _UnmeasuredError(Exception):
    """The kernel gave no gradient; the text says why."""


def measure(kernel: Kernel, dtype: str, *, device: str = "cpu", host: Host | None = None) -> Measurement:
    """The vanishing of a kernel's gradients, by its own backward; no verdict.

    dtype: a format's name. host: where its calls run, this process by default. What the kernel does
    wrong is a reason in the data. Raises ValueError for an unknown dtype or another op.
    """
    from suite.execution.in_process import InProcess
    from suite.version import __version__

    known = measured_by("vanishing")
    if kernel.op not in known:
        raise ValueError(
            f"kernel {kernel.id} is a kernel of {kernel.op}; vanishing is measured of {', '.join(known)}"
        )
    probe = _Probe(kernel, get_format(dtype), device, host or InProcess())
    reason = kernel.supports(probe.options, probe.format, device, further=(UPSTREAM,))
    try:
        data = {"reason": reason} if reason is not None else probe.data()
    except _UnmeasuredError as error:
        data = {"reason": str(error)}
    return Measurement(
        kind="vanishing",
        kernel=kernel.id,
        op=kernel.op,
        dtype=dtype,
        device=device,
        suite_version=__version__,
        data=data,
    )


class _Probe:
    """A kernel whose gradient is taken on rows of logits."""

    def __init__(self, kernel: Kernel, format: Format, device: str, host: Host) -> None:
        self.kernel, self.format, self.device, self.host = kernel, format, device, host
        self.op = get_op(kernel.op)
        self.options = {**self.op.options, **self.op.options_by_row}
        if self.has_keys:
            self.options["scale"] = 1.0  # a score is its logit

    def data(self) -> dict[str, Any]:
        seconds = min(
            self.gradient(self.question(np.zeros((1, n)), "upstream"))[1] for n in (1024, 1023, 1022)
        )
        slow = self.kernel.slow or seconds > SLOW_SECONDS
        note = ""
        scales, lengths, threshold_lengths = list(SCALES), list(LENGTHS), list(THRESHOLD_LENGTHS)
        if slow:
            note = (
                "declared slow"
                if self.kernel.slow
                else f"the gradient of 1,024 takes more than {1000 * SLOW_SECONDS:g} ms"
            )
            scales, threshold_lengths = list(SCALES_IF_SLOW), list(THRESHOLD_LENGTHS_IF_SLOW)
            lengths = list(LENGTHS_IF_DECLARED_SLOW if self.kernel.slow else LENGTHS_IF_SLOW)
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
            "mitigations": [{"name": name, **_short(self.mitigated(name))} for name in self.mitigations()],
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
        outcome = self.host.call(self.kernel, tensors, self.op.resolve_options(self.options, shapes))
        if outcome.status is not None:
            rows, n = question.logits.shape
            raise _UnmeasuredError(f"{outcome.status} on {rows} rows of {n}: {outcome.message}")
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

    # Thresholds.

    def threshold(self, n: int, entry: int, formulas: Callable[[Format, int], Formulas]) -> dict[str, Any]:
        """The smallest gap at which the gradient of this entry of (0, -g, ..., -g) is exactly 0."""

        def gone(gaps: Array) -> NDArray[np.bool_]:
            return np.asarray(self.gradient(self.two_valued(gaps, n))[0][:, entry] == 0)

        grid = Grid(self.format)
        wide = SMALL_HEAD if self.has_keys else 1
        try:
            measured = grid.first(gone, max(1, min(CANDIDATES, ENTRIES_PER_CALL // (n * wide))))
        except _UnmeasuredError as error:
            return {"n": n, "reason": str(error)}
        expected = formulas(self.format, n)
        spacing = grid.spacing(measured) if measured else 0.0
        agreeing = explanations(expected, measured, spacing)
        return {
            "n": n,
            "measured": measured,
            "spacing": spacing,
            "formulas": expected,
            "agrees_with": agreeing,
        }

    # Mitigations: what a model can do about it, around the same kernel and on the same logits.

    def mitigations(self) -> tuple[str, ...]:
        return (*MITIGATIONS, *(LOSSES if self.op.result is Result.PROBABILITY else ()))

    def mitigated(self, name: str) -> dict[str, float | None]:
        """The counts of the gradient of the logits, of the normalised logits with QK-norm, and of
        the loss -log p.
        """
        raw, normalised = unit_logits()
        plain = self.question(MITIGATED_SCALE * raw, "upstream")
        if name == "none":
            return self.point(plain)
        if name == "float32 inside":
            return self.compared(
                plain, self.format.round(self.gradient(plain, compute_format(self.format))[0])
            )
        if name == "softcap 50":
            return self.softcapped(plain)
        if name == "temperature 4":
            cooled = self.question(plain.logits / TEMPERATURE, "upstream")
            got, exact = (
                self.format.round(self.gradient(cooled)[0] / TEMPERATURE),
                cooled.exact(self.op.result) / TEMPERATURE,
            )
            return counts(got, exact, cooled, self.format, total=self.total(cooled) / TEMPERATURE)
        if name == "QK-norm":
            return self.point(self.question(normalised, "upstream"))
        if name == "loss scaled by 1024":
            scaled = Question(plain.logits, LOSS_SCALE * plain.upstream, plain.target)
            return self.point(scaled)
        return self.of_loss(plain.logits, name)

    def softcapped(self, plain: Question) -> dict[str, float | None]:
        """c tanh(x / c) before the kernel, in the format, by torch's own tanh and its gradient."""
        import torch

        x = to_torch(plain.logits, self.format).requires_grad_()
        capped = SOFTCAP * torch.tanh(x / SOFTCAP)
        question = Question(to_float64(capped), plain.upstream, plain.target)
        inner = to_torch(self.format.round(self.gradient(question)[0]), self.format)
        [got] = torch.autograd.grad(capped, x, inner)
        exactly = Question(SOFTCAP * np.tanh(plain.logits / SOFTCAP), plain.upstream, plain.target)
        slope = 1.0 / np.cosh(plain.logits / SOFTCAP) ** 2
        exact = exactly.exact(self.op.result) * slope
        return counts(to_float64(got), exact, plain, self.format, total=exact.sum(1))

    def of_loss(self, logits: Array, name: str) -> dict[str, float | None]:
        """The loss -log p of a drawn target: through softmax, whose upstream gradient is -1/p, or
        in the log domain.
        """
        import torch

        target = Draw("vanishing/target").integers(logits.shape[1], len(logits))
        loss = Question(logits, np.ones((len(logits), 1)), target)
        exact = loss.exact(Result.LOSS)
        x = to_torch(logits, self.format).requires_grad_()
        if name == "loss from logits":
            total = torch.nn.functional.cross_entropy(x, torch.from_numpy(target), reduction="none")
            got = to_float64(torch.autograd.grad(total, x, torch.ones_like(total))[0])
            return counts(got, exact, loss, self.format)
        p = to_float64(self.format.round(loss.parts[0]))
        with np.errstate(divide="ignore"):
            wanted = self.format.round(-1.0 / np.take_along_axis(p, target[:, None], 1))
        upstream = np.zeros_like(logits)
        np.put_along_axis(upstream, target[:, None], wanted, 1)
        return counts(self.gradient(Question(logits, upstream, target))[0], exact, loss, self.format)

    def total(self, question: Question) -> Array | float:
        """What the gradient of a row adds up to."""
        return question.upstream[:, 0] if self.op.result is Result.LOG_SUM else 0.0


MITIGATIONS = ("none", "float32 inside", "softcap 50", "temperature 4", "QK-norm", "loss scaled by 1024")
LOSSES = ("loss -log(p)", "loss from logits")


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


@functools.cache
def unit_logits() -> tuple[Array, Array]:
    """Logits q.k / sqrt(d) [rows, n] of standard normal q and k, a query a row; and those of q and
    k over their root mean squares, as QK-norm has them: at most sqrt(d) in magnitude, whatever q is
    multiplied by.
    """
    draw = Draw("vanishing/attention")
    query, key = draw.normal(SCALE_ROWS, HEAD_SIZE), draw.normal(SCALE_ROWS, SCALE_LENGTH, HEAD_SIZE)
    logits = np.einsum("re,rne->rn", query, key) / math.sqrt(HEAD_SIZE)
    sizes = np.sqrt((query**2).mean(-1))[:, None] * np.sqrt((key**2).mean(-1))
    return logits, logits / sizes


@functools.cache
def normal_rows(rows: int, n: int, key: str) -> Array:
    return Draw(f"vanishing/{key}/{rows}x{n}").normal(rows, n)


# The tables of docs/vanishing.md: the closed thresholds beside two models of arithmetic and torch's softmax.


def stepwise(*, wide: bool) -> Kernel:
    """A softmax that rounds as a model says, forward and backward. wide: p is rounded once, from 1
    - p without cancellation. Else every operation is rounded to the tensor's format, sums being
    taken one after another.
    """
    import torch

    class Stepwise(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
            if wide:
                question = Question(to_float64(x), np.zeros(0), np.zeros(0, dtype=np.int64))
                values, rest = question.parts
                np.put_along_axis(values, question.top, 1.0 - np.take_along_axis(rest, question.top, 1), 1)
                format = get_format(str(x.dtype).removeprefix("torch."))
                p: torch.Tensor = to_torch(format.round(values), format)
            else:
                e = torch.exp(x - x.amax(1, keepdim=True))
                p = e / _in_order(e)
            context.save_for_backward(p)
            return p

        @staticmethod
        def backward(context: Any, *upstream: torch.Tensor) -> torch.Tensor:
            p: torch.Tensor = context.saved_tensors[0]
            return p * (upstream[0] - _in_order(p * upstream[0]))

    def softmax(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
        output: torch.Tensor = Stepwise.apply(x)  # type: ignore[no-untyped-call]
        return output

    return Kernel(id="rounded once" if wide else "step by step", op="softmax", call=softmax)


def _in_order(terms: torch.Tensor) -> torch.Tensor:
    """The sums [rows, 1] of terms [rows, n], one after another, each rounded to their format."""
    total = terms[:, :1]
    for column in range(1, terms.shape[1]):
        total = total + terms[:, column : column + 1]
    return total


def measured_threshold(kernel: Kernel, dtype: str, n: int, *, entry: int = 0) -> dict[str, Any]:
    """The gap at which the gradient of the first entry (entry=0) or of the others (entry=-1) of a
    row of n is exactly 0.
    """
    from suite.execution.in_process import InProcess

    probe = _Probe(kernel, get_format(dtype), "cpu", InProcess())
    return probe.threshold(
        n, entry, saturations if entry == 0 else functools.partial(losses, probe.op.result)
    )


def attention_zeros(dtype: str) -> tuple[list[float], list[float]]:
    """(share of entries that are 0, share of rows with nothing else) of dS in attention, n = 256, d
    = 64, all of q, k, v and the upstream gradient standard normal, q times 1, 4, 16, 64; by torch,
    step by step in the format.
    """
    import torch

    draw, format = Draw("vanishing/theory"), get_format(dtype)
    q, k, v, upstream = (
        to_torch(format.round(draw.normal(SCALE_LENGTH, HEAD_SIZE)), format) for _ in range(4)
    )
    zeros, dead = [], []
    for scale in (1, 4, 16, 64):
        scores = ((scale * q) @ k.T / math.sqrt(HEAD_SIZE)).requires_grad_()
        [gradient] = torch.autograd.grad(torch.softmax(scores, -1) @ v, scores, upstream)
        zeros.append(float((gradient == 0).double().mean()))
        dead.append(float((gradient == 0).all(1).double().mean()))
    return zeros, dead


def tables() -> str:
    """The tables of docs/vanishing.md, as Markdown."""
    return "\n\n".join((threshold_table(), zeros_table(), mitigation_table()))


def threshold_table() -> str:
    """The closed thresholds of every format and what is measured of the two models and of torch.softmax."""
    import torch

    lines = _heading("gradient of softmax is 0", "n", *DTYPES)
    formats = [FORMATS[name] for name in DTYPES]

    def line(label: str, n: int, values: Sequence[float | None]) -> None:
        shown = ("never" if value is None else f"{value:.7g}" for value in values)
        lines.append(f"| {label} | {n:,} | " + " | ".join(shown) + " |")

    def measured(kernel: Kernel, n: int, entry: int = 0) -> list[float | None]:
        return [measured_threshold(kernel, name, n, entry=entry)["measured"] for name in DTYPES]

    own = Kernel(id="torch", op="softmax", call=torch.softmax)
    for n in (2, 33):
        line("first entry, absorbed: p ln 2", n, [f.saturation_in_format for f in formats])
        line("measured: step by step in the format", n, measured(stepwise(wide=False), n))
    for n in (2, 33, 4096):
        line(
            "first entry, rounded: ln(2^(p+1) − 1) + ln(n − 1)", n, [f.saturation_rounded(n) for f in formats]
        )
        if n < 4096:
            line("measured: p exact, rounded once", n, measured(stepwise(wide=True), n))
        line("measured: torch.softmax", n, measured(own, n))
    for n in (2, 4096):
        line(
            "the others, zero: e^−g / (1 + (n − 1) e^−g)² = η/2",
            n,
            [losses(Result.PROBABILITY, f, n)[f"zero {f.name}"] or 0.0 for f in formats],
        )
        line("measured: torch.softmax", n, measured(own, n, -1))
    return "\n".join(lines)


def zeros_table() -> str:
    """attention_zeros() of every format, and the closed logit scale at which half of the entries are gone."""
    lines = _heading(
        "entries of dS that are 0; dead rows", "q × 1", "q × 4", "q × 16", "q × 64", "theory: half of them at"
    )
    for dtype in DTYPES:
        zeros, dead = attention_zeros(dtype)
        cells = (f"{zero:.3f}; {row:.3f}" for zero, row in zip(zeros, dead, strict=True))
        lines.append(
            f"| {dtype} | "
            + " | ".join(cells)
            + f" | {theory_of_scale(get_format(dtype))['underflow']:.3g} |"
        )
    return "\n".join(lines)


def mitigation_table() -> str:
    """The mitigations around torch.softmax, in every format."""
    import torch

    names = ("zero", "underflow", "false_zero", "flushed", "top_lost", "dead", "gain", "defect", "not_finite")
    lines = _heading(
        "torch.softmax, logit scale 16", "mitigation", *(name.replace("_", " ") for name in names)
    )
    for dtype in DTYPES:
        for one in measure(Kernel(id="torch", op="softmax", call=torch.softmax), dtype).data["mitigations"]:
            cells = ("–" if one[name] is None else f"{one[name]:.2g}" for name in names)
            lines.append(f"| {dtype} | {one['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _heading(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]


if __name__ == "__main__":
    print(tables())
