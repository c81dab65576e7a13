"""report.html: the page of run folders. Its chapters are the modules of suite/report/chapters."""

from __future__ import annotations

from collections.abc import Sequence

from suite.records.store import Run
from suite.report.chapters import Found, chapters, sound
from suite.report.pages import fill
from suite.report.presentable import bounded, fit, presentable
from suite.report.summaries import ENDED, counts, labelled, verdict

EASY = {"normal", "alike"}
"""The families of what bench times: hard for no kernel."""


def render(runs: Sequence[Run], *, show_paths: bool = False, incomplete: Sequence[str] = ()) -> str:
    """The page of these runs, as text. show_paths: leave home directories, user and host names as
    they are. incomplete: what the page says before all else.
    """
    runs = [presentable(run, show_paths=show_paths) for run in runs]
    judged = [record for run in runs for record in run.records]
    every = labelled(judged)
    measurements, notes = sound([measurement for run in runs for measurement in run.measurements])
    timed = any(m.kind == "throughput" for m in measurements)
    sentence, worst = verdict(every)
    of_kernels, records, left_out = bounded(every)
    found = Found(
        runs=runs,
        records=records,
        of_kernels=of_kernels,
        judged=judged,
        measurements=measurements,
        timed_alone=timed and {r.family for r in every} <= EASY,
    )
    # A bench judges only the easy inputs that it times. Its page asks first what is fast.
    shown = sorted(chapters().values(), key=lambda one: not (found.timed_alone and one.name == "throughput"))
    return fill(
        "report.html",
        sentence=sentence,
        worst=worst,
        incomplete=[fit(line, show_paths=show_paths) for line in incomplete],
        notes=[*left_out, *notes],
        counts=counts(every),
        strict=any(r.strict for r in every),
        total=len(every),
        ended=ENDED,
        chapters=[chapter.render(found) for chapter in shown],
    )
