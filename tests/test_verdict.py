"""A verdict step by step, and laws that are answered by hand."""

import numpy as np
import pytest

from suite.formats import float32
from suite.laws import Finding, Trial
from suite.laws.runner import DECLINED, Answer, run_laws
from suite.verdict.judgement import Judgement
from suite.verdict.verdict import Verdict

RIGHT = Judgement(op="softmax", dtype="float32", shape=(1, 2), status="passed", message="right")
WRONG = Judgement(
    op="softmax", dtype="float32", shape=(1, 2), status="inaccurate", broken=("inaccurate",), message="wrong"
)


def test_a_verdict_without_findings_is_the_judgement():
    verdict = Verdict(RIGHT, "softmax float32 [1, 2]")

    assert verdict.clean
    assert (verdict.status, verdict.broken, verdict.message) == ("passed", (), "right")


def test_a_broken_law_is_added_to_the_judgement():
    verdict = Verdict(WRONG, "softmax float32 [1, 2]")
    verdict.breaks("input untouched", "the kernel changed its input tensor")

    assert verdict.broken == ("inaccurate", "law_broken")
    assert verdict.message == "wrong\n  law       input untouched: the kernel changed its input tensor"


def test_an_excuse_covers_what_the_judgement_found_and_nothing_else():
    verdict = Verdict(WRONG, "softmax float32 [1, 2]")
    verdict.excuse("outside its domain")

    assert not verdict.clean
    assert (verdict.status, verdict.known) == ("known_failure", "outside its domain")
    verdict.breaks("input untouched", "the kernel changed its input tensor")
    assert verdict.status == "law_broken"
    assert verdict.message.startswith("outside its domain\nwrong\n")


def trial_of(x):
    return Trial(
        inputs={"x": x},
        options={"dim": -1},
        output=x,
        dim=1,
        keeps_length=True,
        targeted=False,
        format=float32,
        judge_output=lambda inputs, options, output: RIGHT,
        unsupported=lambda inputs, options: None,
    )


X = np.zeros((3, 4))
CRASHED = Finding(held=False, note="crashed: killed by SIGKILL", status="crashed")


def test_every_law_gets_the_answers_to_its_own_calls():
    asked = []

    def answers(calls):
        for call in calls:
            asked.append(call.memory)
            yield Answer(output=X)

    findings = run_laws(("repeat", "written"), trial_of(X), answers)

    assert asked == ["plain", "filled"]
    assert findings == {
        "repeat": Finding(held=True, bitwise=True),
        "written": Finding(held=True, bitwise=True),
    }


@pytest.mark.parametrize("before", [0, 1])
def test_no_law_is_asked_after_the_kernel_is_lost(before):
    lost = Answer(failed=CRASHED, lost=True)

    def answers(calls):
        for _, answer in zip(calls, [*[Answer(output=X)] * before, lost], strict=False):
            yield answer

    findings = run_laws(("repeat", "written", "replay"), trial_of(X), answers)

    assert list(findings) == ["repeat", "written"][: before + 1]
    assert list(findings.values())[-1] == CRASHED


def test_a_law_whose_call_fails_before_the_kernel_is_lost_names_the_first_failure():
    raised = Finding(held=False, note="raised: IndexError")
    given = [Answer(failed=raised), Answer(failed=CRASHED, lost=True)]

    findings = run_laws(("replay", "repeat"), trial_of(X), lambda calls: iter(given))

    assert findings == {"replay": raised}


def test_a_kernel_may_decline_a_call_of_another_kind_only():
    declined = Answer(failed=Finding(held=False, note="unsupported: one row"), unsupported=True)

    def only_whole_batches(calls):
        return (Answer(output=X) if call.inputs["x"].shape == X.shape else declined for call in calls)

    assert run_laws(("batch",), trial_of(X), only_whole_batches) == {"batch": DECLINED}
    assert run_laws(("repeat",), trial_of(X), lambda calls: (declined for _ in calls)) == {
        "repeat": declined.failed
    }
