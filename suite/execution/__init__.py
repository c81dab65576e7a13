"""The engine: evaluate(case, kernel) -> Record. pytest items, check, run and reproduce all call it."""

from __future__ import annotations

import datetime
import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from suite.case import Case
from suite.execution.host import Host, InProcess, Outcome
from suite.execution.memory import Memory
from suite.formats import Array, Format, get_format
from suite.inputs.layouts import arrange
from suite.judge import Judgement, check_output, default_oracle, judge_values, ulp_errors
from suite.kernels import Kernel
from suite.known_failures import KnownFailure, apply
from suite.laws import Trial, get_law
from suite.numerics import BEST_PRACTICE, CONTRACT
from suite.ops import Op, get_op
from suite.oracle import Oracle, Reference
from suite.records import Record, by_precedence
from suite.store import Store
from suite.tensors import to_float64, to_torch

Inputs = Mapping[str, NDArray[Any]]
"""The inputs of a call, by argument: float64, or integers for class indices."""

_TORCH_ULP: WeakKeyDictionary[Reference, float | None] = WeakKeyDictionary()
"""The largest error of torch's own kernel, for each reference in use."""


def evaluate(
    case: Case,
    kernel: Kernel,
    *,
    dtype: str = "float32",
    oracle: Oracle | None = None,
    device: str = "cpu",
    host: Host | None = None,
    store: Store | None = None,
    known: Sequence[KnownFailure] = (),
    strict: bool = False,
    env_id: str = "",
    inputs: Inputs | None = None,
    input_file: str = "",
) -> Record:
    """Runs a kernel on a case and judges it: never raises for the kernel's fault, and the record is stored on return.

    dtype: a format's name. oracle: the one that judge() uses, by default. known: failures that are known, which strict
    ignores. strict: judge by best practice, whatever the kernel declares. inputs: in place of the case's own, from
    `input_file`. Raises ValueError for misuse: an unknown dtype, a kernel of another op.
    """
    if kernel.op != case.op:
        raise ValueError(f"kernel {kernel.id} is a kernel of {kernel.op}, case {case.id} is one of {case.op}")
    format = get_format(dtype)
    evaluation = _Evaluation(case, kernel, format, device, host or InProcess(), oracle or default_oracle(), strict, inputs)
    record = replace(evaluation.run(), env_id=env_id)
    if input_file:
        options = "".join(f" --option {name}={value}" for name, value in case.options.items())
        given = f"--input {shlex.quote(input_file)}{options}"
        record = replace(record, reproduce=record.reproduce.replace(f"--case {case.id}", given))
    if not strict:
        record = apply(record, known)
    if store is not None:
        store.append(record)
    return record


class _Evaluation:
    """One evaluation: the steps in order, each of which may end it with a record."""

    def __init__(
        self,
        case: Case,
        kernel: Kernel,
        format: Format,
        device: str,
        host: Host,
        oracle: Oracle,
        strict: bool,
        inputs: Inputs | None,
    ) -> None:
        self.case, self.kernel, self.format, self.device = case, kernel, format, device
        self.host, self.oracle, self.strict = host, oracle, strict
        self.op: Op = get_op(case.op)
        self.options = case.resolved_options()
        self.numerics = BEST_PRACTICE if strict else kernel.numerics
        self.semantics = CONTRACT if strict else kernel.semantics
        self._inputs = inputs

    def run(self) -> Record:
        reason = self.kernel.supports(self.options, self.format, self.device)
        if reason is not None:
            return self._record("unsupported", message=reason)
        inputs = self._inputs if self._inputs is not None else _inputs(self.case.id, self.format.name)
        outcome = self.host.call(self.kernel, self._tensors(inputs), self.options)
        if outcome.status == "unsupported" and not self._declines_benign_input(inputs):
            outcome = replace(outcome, status="raised", message=f"{outcome.message} (only on this case's input)")
        if outcome.status is not None:
            return self._record(outcome.status, message=outcome.message, outcome=outcome)
        wrong = self._wrong_kind(outcome.value, inputs)
        if wrong is not None:
            return self._record(wrong[0], message=wrong[1], outcome=outcome)
        return self._judged(inputs, outcome)

    def _tensors(self, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        """The inputs as the kernel gets them: in their format, on their device, in the case's layout where they allow it."""
        tensors = [to_torch(values, self.format, self.device) for values in inputs.values()]
        return tuple(arrange(t, self.case.layout) if t.ndim and self._may_be_arranged(t) else t for t in tensors)

    def _may_be_arranged(self, tensor: torch.Tensor) -> bool:
        """A tensor may be expanded only where its slices are equal."""
        return self.case.layout != "expanded" or torch.equal(tensor.nan_to_num(), tensor[:1].expand_as(tensor).nan_to_num())

    def _judged(self, inputs: Inputs, outcome: Outcome) -> Record:
        y = to_float64(outcome.value)
        reference = self._reference(inputs)
        judgement = judge_values(self.op, reference, y, _shapes(inputs), self.options, self.format, self.numerics)
        broken = set(judgement.broken)
        notes = [judgement.message if broken else f"{self.op.name} {self.format.name} {list(judgement.shape)}: law_broken"]
        known = ""
        if self.kernel.domain is not None and not self.strict:
            judgement, broken, notes, known = self._in_domain(judgement, reference, broken, notes)
        if outcome.modified:
            broken.add("law_broken")
            notes.append("  law       input untouched: the kernel changed its input tensor")
        if outcome.state_changes:
            broken.add("law_broken")
            notes.append(
                f"  law       global state untouched: the kernel changed {'; '.join(outcome.state_changes)} (put back)"
            )
        bitwise: dict[str, bool] = {}
        if not broken and not known:
            for name, finding in self._laws(inputs, y).items():
                if finding.bitwise is not None:
                    bitwise[name] = finding.bitwise
                if not finding.held:
                    broken.add("law_broken")
                    notes.append(f"  law       {name}: {finding.note}")
        statuses = by_precedence(broken)
        status = statuses[0] if statuses else ("known_failure" if known else "passed")
        message = "\n".join(notes) if statuses or known else judgement.message
        return self._record(
            status,
            message=message,
            broken=statuses or judgement.broken,
            known=known if status == "known_failure" else "",
            outcome=outcome,
            judgement=judgement,
            bitwise=bitwise,
            torch_ratio=self._torch_ratio(inputs, reference, judgement),
        )

    def _in_domain(
        self, judgement: Judgement, reference: Reference, broken: set[str], notes: list[str]
    ) -> tuple[Judgement, set[str], list[str], str]:
        """Checks the declared domain both ways: failing outside it is a known failure, passing there breaks a law."""
        assert self.kernel.domain is not None
        domain = self.kernel.domain(reference.facts, self.format)
        largest = reference.problem.x.max(axis=1, initial=-np.inf)
        ordinary = np.isfinite(largest)
        failed = _failed_rows(judgement)
        surprising = np.flatnonzero(ordinary & domain.fails & ~failed)
        if len(surprising):
            note = f"  law       domain: row {surprising[0]} passes although {domain.why} there; the declared domain is wrong"
            return judgement, broken | {"law_broken"}, [*notes, note], ""
        unexpected = failed & np.where(ordinary, domain.works, largest != np.inf)
        if not failed.any() or unexpected.any():
            return judgement, broken, notes, ""
        rows = int(failed.sum())
        known = f"outside its declared domain: {domain.why} ({rows} of {len(failed)} rows)"
        return judgement, set(), [known, *notes], known

    def _laws(self, inputs: Inputs, y: Array) -> dict[str, Any]:
        logits = self.op.arguments[0]
        trial = Trial(
            x=inputs[logits],
            output=y,
            dim=self.op.axis(self.options, inputs[logits].shape),
            keeps_length=self.op.keeps_length,
            targeted="target" in self.op.arguments,
            format=self.format,
            call=lambda x, memory="plain": self._call_again({**inputs, logits: x}, memory),
            judge=lambda x, output: self._judge_again({**inputs, logits: x}, output),
        )
        findings = {}
        for name in self.case.laws:
            try:
                findings[name] = get_law(name)(trial)
            except _LawCallError as error:
                from suite.laws import Finding

                findings[name] = Finding(held=False, note=str(error))
        return findings

    def _call_again(self, inputs: Inputs, memory: Memory) -> Array:
        outcome = self.host.call(self.kernel, self._tensors(inputs), self.options, memory=memory)
        if outcome.status is not None:
            raise _LawCallError(f"{outcome.status}: {outcome.message}")
        if outcome.overrun:
            raise _LawCallError(outcome.overrun)
        wrong = self._wrong_kind(outcome.value, inputs)
        if wrong is not None:
            raise _LawCallError(f"{wrong[0]}: {wrong[1]}")
        return to_float64(outcome.value)

    def _wrong_kind(self, output: Any, inputs: Inputs) -> tuple[str, str] | None:
        if isinstance(output, np.ndarray | np.generic):
            return "wrong_type", "returned a numpy array; expected one tensor of torch (numpy kernels declare adapter='numpy')"
        device = str(torch.empty(0, device=self.device).device)
        return check_output(self.op, output, _shapes(inputs), self.format.name, device, self.options)

    def _judge_again(self, inputs: Inputs, y: Array) -> Judgement:
        reference, shapes = self._reference(inputs), _shapes(inputs)
        judgement = judge_values(self.op, reference, y, shapes, self.options, self.format, self.numerics, statistics=False)
        if judgement.broken and self.kernel.domain is not None and not self.strict:
            failed = _failed_rows(judgement)
            if not (failed & self.kernel.domain(reference.facts, self.format).works).any():
                return replace(judgement, status="passed", broken=())
        return judgement

    def _reference(self, inputs: Inputs) -> Reference:
        return self.oracle.reference(self.op, inputs, self.options, self.format, semantics=self.semantics)

    def _declines_benign_input(self, inputs: Inputs) -> bool:
        benign = self._tensors({name: np.zeros_like(values) for name, values in inputs.items()})
        return self.host.call(self.kernel, benign, self.options).status == "unsupported"

    def _torch_ratio(self, inputs: Inputs, reference: Reference, judgement: Judgement) -> float | None:
        """The kernel's largest error in ulps over that of torch's own kernel on the same input; None where torch has none."""
        if reference not in _TORCH_ULP:
            _TORCH_ULP[reference] = self._torch_ulp(inputs, reference)
        own = _TORCH_ULP[reference]
        return judgement.max_ulp / own if own and judgement.max_ulp is not None else None

    def _torch_ulp(self, inputs: Inputs, reference: Reference) -> float | None:
        torch_kernel: Callable[..., torch.Tensor] = getattr(torch, self.op.name, None) or getattr(functional, self.op.name)
        given = {name: value for name, value in self.options.items() if name == "dim" or value != self.op.options[name]}
        try:
            output = torch_kernel(*self._tensors(inputs), **given)
        except (RuntimeError, IndexError, TypeError):
            return None  # torch has no such option, or not for this format
        errors = ulp_errors(reference, self.format, self.op.output_rows(to_float64(output), self.options))
        return float(np.abs(errors).max()) if errors.size else None

    def _record(
        self,
        status: str,
        *,
        message: str = "",
        broken: tuple[str, ...] = (),
        known: str = "",
        outcome: Outcome | None = None,
        judgement: Judgement | None = None,
        bitwise: dict[str, bool] | None = None,
        torch_ratio: float | None = None,
    ) -> Record:
        from suite.version import __version__

        case, kernel = self.case, self.kernel
        found: dict[str, Any] = {}
        if judgement is not None:
            worst = judgement.worst
            found = {
                "judged": judgement.judged,
                "ratio": judgement.ratio,
                "failed": judgement.failed,
                "entries": judgement.entries,
                "overflow": judgement.overflow,
                "index": worst.index if worst else None,
                "got": worst.got if worst else None,
                "expected": worst.expected if worst else None,
                "worst_ulp": worst.ulp if worst else None,
                "max_ulp": judgement.max_ulp,
                "bias_ulp": judgement.bias_ulp,
                "bias_error_ulp": judgement.bias_error_ulp,
                "inversions": judgement.inversions,
                "saturated": judgement.saturated,
                "flushed": judgement.flushed,
                "tiles": dict(judgement.tiles),
                "first_failing_column": judgement.first_failing_column,
                "fits": judgement.fits,
                "tier": judgement.tier,
                "digest": judgement.digest,
            }
        return Record(
            suite_version=__version__,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            kernel=kernel.id,
            kernel_version=kernel.version,
            outside=kernel.outside,
            op=case.op,
            case=case.id,
            family=case.family,
            shape=case.shape,
            options=dict(case.options),
            laws=case.laws,
            profile=case.profile,
            seed=case.seed,
            dtype=self.format.name,
            device=self.device,
            strict=self.strict,
            status=status,
            broken=broken or ((status,) if status not in ("passed", "known_failure", "unsupported") else ()),
            message=message,
            known=known,
            reproduce=self._command(),
            bitwise=bitwise or {},
            torch_ratio=torch_ratio,
            numerics=str(self.numerics) + (", domain" if kernel.domain is not None and not self.strict else ""),
            seconds=outcome.seconds if outcome else None,
            warnings=outcome.warnings if outcome else (),
            output=outcome.output if outcome else "",
            **found,
        )

    def _command(self) -> str:
        words = [
            "softmax-suite",
            "check",
            "--op",
            self.case.op,
            "--kernel",
            self.kernel.id,
            "--dtype",
            self.format.name,
        ]
        words += ["--device", self.device] if self.device != "cpu" else []
        words += ["--strict"] if self.strict else []
        return shlex.join([*words, "--case", self.case.id])


@functools.lru_cache(maxsize=4)
def _inputs(case_id: str, dtype: str) -> Inputs:
    """A case's inputs, which all kernels share in turn; none gets these arrays themselves."""
    return Case.from_id(case_id).inputs(get_format(dtype))


def _failed_rows(judgement: Judgement) -> NDArray[np.bool_]:
    return np.array([status != "passed" for status in judgement.row_status], dtype=np.bool_)


def _shapes(inputs: Inputs) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in inputs.items()}


class _LawCallError(Exception):
    """A further call that a law made did not return a tensor that can be judged."""
