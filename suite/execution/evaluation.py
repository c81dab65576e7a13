"""The engine: evaluate(case, kernel) -> Record. pytest items, check, run and reproduce all call it."""

from __future__ import annotations

import datetime
import functools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from suite.case import Case, setting_text
from suite.execution.adapters import adapted_call
from suite.execution.host import LOST, Call, DiedError, Host, InProcess, Outcome
from suite.execution.isolation import TIMEOUT_SECONDS
from suite.execution.memory import Memory
from suite.formats import Array, Format, get_format
from suite.inputs.layouts import arrange
from suite.kernels import Domain, Kernel
from suite.laws import IN_PART, Finding, Trial, get_law
from suite.laws import Call as LawCall
from suite.numerics import BEST_PRACTICE, CONTRACT
from suite.ops import AnyOp, get_op
from suite.oracle import Oracle, Reference
from suite.records.known_failures import KnownFailure, apply
from suite.records.record import Record, by_precedence
from suite.records.store import Store
from suite.tensors import to_float64, to_torch
from suite.verdict.judge import default_oracle, failing, judge_outputs
from suite.verdict.judgement import Judgement
from suite.verdict.statistics import ulp_errors
from suite.verdict.tensors import as_tuple

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
    timeout: float | None = TIMEOUT_SECONDS,
) -> Record:
    """Runs a kernel on a case and judges it: never raises for the kernel's fault, and the record is
    stored on return.

    dtype: a format's name. oracle: the one that judge() uses, by default. known: failures that are
    known, which strict ignores. strict: judge by best practice, whatever the kernel declares.
    inputs: in place of the case's own, from `input_file`. timeout: seconds that the kernel may take
    in all its calls of this case, where the host can end them; None for no limit. Raises ValueError
    for misuse: an unknown dtype, a kernel of another op.
    """
    if kernel.op != case.op:
        raise ValueError(f"kernel {kernel.id} is a kernel of {kernel.op}, case {case.id} is one of {case.op}")
    format = get_format(dtype)
    host = host or InProcess()
    evaluation = _Evaluation(
        case, kernel, format, device, host, oracle or default_oracle(), strict, inputs, timeout
    )
    record = replace(evaluation.run(), env_id=env_id)
    host.note(record)
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
        timeout: float | None,
    ) -> None:
        self.case, self.kernel, self.format, self.device = case, kernel, format, device
        self.host, self.oracle, self.strict = host, oracle, strict
        self.op: AnyOp = get_op(case.op)
        """Of the call that is judged: the backward, once there are inputs with the gradient of an output."""
        self.options = case.resolved_options()
        self.numerics = BEST_PRACTICE if strict else kernel.numerics
        self.semantics = CONTRACT if strict else kernel.semantics
        self._inputs = inputs
        self._seconds_left = timeout

    def run(self) -> Record:
        reason = self._supports(self._inputs or self.case.shapes(), self.options)
        if reason is not None:
            return self._record("unsupported", message=reason)
        inputs = self._inputs if self._inputs is not None else _inputs(self.case.id, self.format.name)
        self.op = self.op.of(inputs)
        outcomes = self._calls([(inputs, self.options, "plain")])
        references = self._references(
            inputs, self.options
        )  # while the kernel is at work, if it is so in another process
        [outcome] = outcomes
        if outcome.status == "unsupported" and not self._declines_benign_input(inputs):
            outcome = replace(
                outcome, status="raised", message=f"{outcome.message} (only on this case's input)"
            )
        if outcome.status is not None:
            return self._record(outcome.status, message=outcome.message, outcome=outcome)
        return self._judged(inputs, outcome, references)

    def _supports(self, names: Iterable[str], options: Mapping[str, Any]) -> str | None:
        """None, or why the kernel takes no call with inputs of these names and these options."""
        op = get_op(self.case.op)
        further = [name for name in names if name in (*op.optional, *op.upstreams)]
        return self.kernel.supports(options, self.format, self.device, further=further)

    def _calls(self, wanted: Iterable[tuple[Inputs, Mapping[str, Any], Memory]]) -> Iterator[Outcome]:
        """The outcomes of calls of the kernel, within what is left of the case's time; the last one
        where it is lost.
        """
        calls = (Call(self._tensors(inputs), options, memory) for inputs, options, memory in wanted)
        return self._timed(self.host.submit(self.kernel, calls, limit_seconds=self._seconds_left))

    def _timed(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        for outcome in outcomes:
            if self._seconds_left is not None:
                self._seconds_left = max(self._seconds_left - outcome.elapsed_seconds, 0.0)
            yield outcome

    def _tensors(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        """The inputs as the kernel gets them: in their format, on their device, in the case's
        layout where they allow it.
        """
        tensors = {
            name: to_torch(values, self.op.input_format(name, self.format), self.device)
            for name, values in inputs.items()
        }
        return {
            name: (
                arrange(t, self.case.layout)
                if name in self.op.arguments and t.ndim and self._may_be_arranged(t)
                else t
            )
            for name, t in tensors.items()
        }

    def _may_be_arranged(self, tensor: torch.Tensor) -> bool:
        """A tensor may be expanded only where its slices are equal."""
        return self.case.layout != "expanded" or torch.equal(
            tensor.nan_to_num(), tensor[:1].expand_as(tensor).nan_to_num()
        )

    def _judged(self, inputs: Inputs, outcome: Outcome, references: tuple[Reference, ...]) -> Record:
        outputs = tuple(to_float64(value) for value in as_tuple(outcome.value))
        reference = references[0]
        judgement = judge_outputs(
            self.op, references, outputs, _shapes(inputs), self.options, self.format, self.numerics
        )
        broken = set(judgement.broken)
        notes = [
            (
                judgement.message
                if broken
                else f"{self.op.name} {self.format.name} {list(judgement.shape)}: law_broken"
            )
        ]
        known = ""
        if self.kernel.domain is not None and not self.strict:
            judgement, broken, notes, known = self._in_domain(judgement, reference, broken, notes)
        if outcome.modified:
            broken.add("law_broken")
            notes.append("  law       input untouched: the kernel changed its input tensor")
        if outcome.state_changes:
            broken.add("law_broken")
            notes.append(
                f"  law       global state untouched: the kernel changed {'; '.join(outcome.state_changes)}"
                " (put back)"
            )
        bitwise: dict[str, bool] = {}
        if not broken and not known:
            for name, finding in self._laws(inputs, outputs).items():
                if finding.bitwise is not None:
                    bitwise[name] = finding.bitwise
                if not finding.held:
                    broken.add(finding.status)
                    notes.append(f"  law       {name}: {finding.note}")
        if judgement.broken == ("unjudged",) and self.case.unjudged:
            broken, known = set(), self.case.unjudged
            notes = [known, *notes]
        if judgement.failed and not known and (where := self._where(inputs, outputs[0], reference)):
            notes.append(f"  in keys   {where}")
            judgement = replace(judgement, tiles={**judgement.tiles, "key": where})
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

    def _where(self, inputs: Inputs, output: Array, reference: Reference) -> str:
        """Where in its inputs a kernel that failed goes wrong, by one more call; nothing where the
        op has no such call.
        """
        marking = self.op.marking(inputs)
        if (
            marking is None
            or not failing(self.op, reference, output, self.options, self.format, self.numerics).any()
        ):
            return ""  # or it is another output that is wrong
        marked, describe = marking
        [outcome] = self._calls([(marked, self.options, "plain")])
        if outcome.status is not None:
            return ""
        output = to_float64(as_tuple(outcome.value)[0])
        reference = self._references(marked, self.options)[0]
        rows = self.op.output_rows(output, reference.problem, self.options)
        return describe(
            failing(self.op, reference, output, self.options, self.format, self.numerics), rows, reference.hi
        )

    def _in_domain(
        self, judgement: Judgement, reference: Reference, broken: set[str], notes: list[str]
    ) -> tuple[Judgement, set[str], list[str], str]:
        """Checks the declared domain both ways: failing outside it is a known failure, passing
        there breaks a law.
        """
        domain = self._domain(reference)
        if isinstance(domain, tuple):
            status, why = domain
            return judgement, broken | {status}, [*notes, f"  law       domain: {why}"], ""
        largest = reference.problem.x.max(axis=1, initial=-np.inf)
        ordinary = np.isfinite(largest)
        failed = _failed_rows(judgement)
        fails = domain.fails if self.case.direction == "forward" else np.zeros_like(failed)
        surprising = np.flatnonzero(ordinary & fails & ~failed)
        if len(surprising):
            note = (
                f"  law       domain: row {surprising[0]} passes although {domain.why} there; the declared"
                " domain is wrong"
            )
            return judgement, broken | {"law_broken"}, [*notes, note], ""
        unexpected = failed & np.where(ordinary, domain.works, largest != np.inf)
        if not failed.any() or unexpected.any():
            return judgement, broken, notes, ""
        rows = int(failed.sum())
        known = f"outside its declared domain: {domain.why} ({rows} of {len(failed)} rows)"
        return judgement, set(), [known, *notes], known

    def _domain(self, reference: Reference) -> Domain | tuple[str, str]:
        """The kernel's declared domain for these rows, or a status and what is wrong with the declaration."""
        assert self.kernel.domain is not None
        try:
            facts = self.op.scores(reference.facts)
            domain = self.kernel.domain(facts, self.format)
            shapes = {np.shape(domain.works), np.shape(domain.fails)}
        except DiedError as error:
            return error.status, f"{error.status}: {error}"
        except Exception as error:  # it is the kernel author's code
            return "law_broken", f"the declared domain raises {type(error).__name__}: {str(error)[:200]}"
        expected = (len(facts.x),)
        wrong = f"the declared domain has masks of shapes {shapes}; expected {expected}"
        return domain if shapes == {expected} else ("law_broken", wrong)

    def _laws(self, inputs: Inputs, outputs: tuple[Array, ...]) -> dict[str, Any]:
        trial = Trial(
            inputs=inputs,
            options=self.options,
            output=outputs if len(outputs) > 1 else outputs[0],
            dim=self.op.axis(self.options, next(iter(inputs.values())).shape),
            keeps_length=self.op.keeps_length,
            targeted="target" in self.op.arguments,
            format=self.format,
            judge_call=lambda call, output: self._judge_again(*self._changed(inputs, call), output),
            supports=lambda call: self._supports(*self._changed(inputs, call)),
        )
        findings: dict[str, Finding] = {}
        inquiries = {name: get_law(name)(trial) for name in self.case.laws}
        wanted: dict[str, list[LawCall]] = {}
        for name, inquiry in inquiries.items():
            try:
                wanted[name] = next(inquiry)
            except StopIteration as end:
                findings[name] = end.value
        outcomes = self._calls(
            (*self._changed(inputs, call), call.memory) for calls in wanted.values() for call in calls
        )
        for name, calls in wanted.items():
            failed = None
            found: list[Any] = []
            for call, outcome in zip(calls, outcomes, strict=False):
                if outcome.status == "unsupported" and self._is_another_kind(inputs, call):
                    found.append(None)
                    continue
                failed = failed or _failed_call(outcome)
                if failed is None:  # copied at once: a kernel may write its next output where this one is
                    values = tuple(to_float64(value) for value in as_tuple(outcome.value))
                    found.append(values if len(values) > 1 else values[0])
            if failed is not None:
                findings[name] = failed
                if failed.status != "law_broken":
                    break
                continue
            if any(output is None for output in found) and (
                name not in IN_PART or all(output is None for output in found)
            ):
                findings[name] = Finding(held=True, note="the kernel takes no such call")
                continue
            try:
                inquiries[name].send(found)
            except StopIteration as end:
                findings[name] = end.value
        return findings

    def _changed(self, inputs: Inputs, call: LawCall) -> tuple[Inputs, Mapping[str, Any]]:
        """The inputs and options of a law's call."""
        changed = {name: values for name, values in {**inputs, **call.inputs}.items() if values is not None}
        return changed, {**self.options, **call.options}

    def _is_another_kind(self, inputs: Inputs, call: LawCall) -> bool:
        """Whether a law's call has other options, tensors or shapes than the case's, so that the
        kernel may decline it.
        """
        changed, options = self._changed(inputs, call)
        return _shapes(changed) != _shapes(inputs) or options != self.options

    def _judge_again(self, inputs: Inputs, options: Mapping[str, Any], output: Any) -> Judgement:
        references = self._references(inputs, options)
        judgement = judge_outputs(
            get_op(self.case.op).of(inputs),
            references,
            as_tuple(output),
            _shapes(inputs),
            options,
            self.format,
            self.numerics,
            statistics=False,
        )
        if judgement.broken and self.kernel.domain is not None and not self.strict:
            failed, domain = _failed_rows(judgement), self._domain(references[0])
            if isinstance(domain, Domain) and not (failed & domain.works).any():
                return replace(judgement, status="passed", broken=())
        return judgement

    def _references(self, inputs: Inputs, options: Mapping[str, Any]) -> tuple[Reference, ...]:
        op = get_op(self.case.op).of(inputs)
        return self.oracle.references(op, inputs, options, self.format, semantics=self.semantics)

    def _declines_benign_input(self, inputs: Inputs) -> bool:
        benign = {name: np.zeros_like(values) for name, values in inputs.items()}
        [outcome] = self._calls([(benign, self.options, "plain")])
        return outcome.status == "unsupported"

    def _torch_ratio(self, inputs: Inputs, reference: Reference, judgement: Judgement) -> float | None:
        """The kernel's largest error in ulps over that of torch's own kernel on the same input;
        None where torch has none.
        """
        if reference not in _TORCH_ULP:
            _TORCH_ULP[reference] = self._torch_ulp(inputs, reference)
        own = _TORCH_ULP[reference]
        return judgement.max_ulp / own if own and judgement.max_ulp is not None else None

    def _torch_ulp(self, inputs: Inputs, reference: Reference) -> float | None:
        kernel = _torch_kernel(self.case.op)
        further = [name for name in inputs if name in (*self.op.optional, *self.op.upstreams)]
        if (
            kernel is None
            or kernel.supports(self.options, self.format, self.device, further=further) is not None
        ):
            return None
        try:
            output = as_tuple(adapted_call(kernel, self._tensors(inputs), self.options)[0])[0]
        except (RuntimeError, IndexError, TypeError):
            return None  # torch has no such option, or not for this format
        errors = ulp_errors(
            reference, self.format, self.op.output_rows(to_float64(output), reference.problem, self.options)
        )
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
                "false_zeros": judgement.false_zeros,
                "dead_rows": judgement.dead_rows,
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
            options={
                name: setting_text(value) if isinstance(value, tuple) else value
                for name, value in case.options.items()
            },
            laws=case.laws,
            profile=case.profile,
            seed=case.seed,
            dtype=self.format.name,
            device=self.device,
            direction=case.direction,
            strict=self.strict,
            status=status,
            broken=broken or ((status,) if status not in ("passed", "known_failure", "unsupported") else ()),
            message=message,
            known=known,
            reproduce=self._command(),
            bitwise=bitwise or {},
            torch_ratio=torch_ratio,
            numerics=str(self.numerics)
            + (", domain" if kernel.domain is not None and not self.strict else ""),
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


@functools.cache
def _torch_kernel(op: str) -> Kernel | None:
    """torch's own function for the op, whichever backend it takes."""
    name, parameters = (op, None)
    if op == "attention":
        name, parameters = (
            "scaled_dot_product_attention",
            frozenset({"attn_mask", "is_causal", "scale", "enable_gqa"}),
        )
    function: Callable[..., torch.Tensor] | None = getattr(torch, name, None) or getattr(
        functional, name, None
    )
    return None if function is None else Kernel(id="torch", op=op, call=function, parameters=parameters)


@functools.lru_cache(maxsize=4)
def _inputs(case_id: str, dtype: str) -> Inputs:
    """A case's inputs, which all kernels share in turn; none gets these arrays themselves."""
    return Case.from_id(case_id).inputs(get_format(dtype))


def _failed_rows(judgement: Judgement) -> NDArray[np.bool_]:
    return np.array([status != "passed" for status in judgement.row_status], dtype=np.bool_)


def _shapes(inputs: Inputs) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in inputs.items()}


def _failed_call(outcome: Outcome) -> Finding | None:
    """What a law finds where one of its calls returned nothing that can be judged."""
    if outcome.status in LOST:
        return Finding(held=False, note=f"{outcome.status}: {outcome.message}", status=outcome.status)
    if outcome.status is not None:
        return Finding(held=False, note=f"{outcome.status}: {outcome.message}")
    if outcome.modified or outcome.state_changes:
        changed = "its input tensor" if outcome.modified else "; ".join(outcome.state_changes)
        return Finding(held=False, note=f"a further call changed {changed}")
    return Finding(held=False, note=outcome.overrun) if outcome.overrun else None
