"""What can be compared in speed: measurements of one op, format, direction and setting, on one
machine, timed in one way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from suite.formats import DTYPES
from suite.ops import NAMES
from suite.records.record import Measurement
from suite.report.advice import Advice, Standing, Subject, advise
from suite.report.scalings import of_length
from suite.report.tables import by
from suite.report.words import options_of, shape_of
from suite.timing.statistics import Scaling


class Setting(NamedTuple):
    """What the measurements of a section share."""

    op: str
    dtype: str
    direction: str
    sizes: str
    """Of attention, its shape without the length."""
    options: str
    device: str
    env_id: str
    cache: str
    threads: int

    @classmethod
    def of(cls, m: Measurement) -> Setting:
        shape, data = m.data["shape"], m.data
        sizes = f"{shape[0]}x{shape[1]}xLENGTHx{shape[3]}" if len(shape) == 4 else ""
        options = " ".join(options_of(m.case))
        where = (m.device, m.env_id, data["cache"], data["threads"])
        return cls(m.op, m.dtype, data["direction"], sizes, options, *where)

    @property
    def order(self) -> tuple[Any, ...]:
        backward = self.direction == "backward"
        return (NAMES.index(self.op), DTYPES.index(self.dtype), backward, *self[3:])

    def where(self, several: bool) -> str:
        """The device; the environment where there are several; threads and cache, where unusual."""
        words = [self.device] if self.device != "cpu" else []
        words += [f"environment {self.env_id or 'unknown'}"] if several else []
        words += [f"{self.threads} threads"] if self.threads > 1 else []
        words += ["cache flushed"] if self.cache == "flushed" and self.device == "cpu" else []
        return ", ".join(words)


class Input(NamedTuple):
    """A column of a table: a case, shortest first."""

    length: int
    shape: tuple[int, ...]
    case: str

    @classmethod
    def of(cls, m: Measurement) -> Input:
        return cls(m.data["length"], tuple(m.data["shape"]), m.case)

    @property
    def seed(self) -> str:
        """The seed, unless it is 0."""
        seed = self.case.rpartition("/")[2]
        return f" {seed}" if seed not in ("s0", self.case) else ""

    @property
    def label(self) -> str:
        return shape_of(self.shape) + self.seed

    @property
    def column(self) -> tuple[int, tuple[int, ...], str]:
        """Where it stands in the table of an op, and its label there: the length alone, of attention,
        whose rows have the other sizes.
        """
        if len(self.shape) == 4:
            return self.length, (), f"length {self.length}{self.seed}"
        return self.length, self.shape, self.label


class Section(NamedTuple):
    """What is compared."""

    setting: Setting
    title: str
    label: str
    """The title without op and direction."""
    at: dict[tuple[str, Input], Measurement]
    inputs: list[Input]
    """Shortest first."""
    ranked: dict[Input, list[Measurement]]
    """At each input the measurements that pass, fastest first."""
    advice: dict[Input, Advice]
    scalings: dict[str, Scaling]

    @property
    def last(self) -> Input:
        return self.inputs[-1]

    @property
    def subject(self) -> tuple[str, str]:
        return self.setting.op, self.setting.direction


def passes(m: Measurement) -> bool:
    """Whether it has a time that counts: an incorrect kernel has none, whatever its samples say."""
    return m.data["status"] == "passed" and m.data["median_seconds"] is not None


def sections_of(
    measurements: Sequence[Measurement], standing: Mapping[Subject, Standing], *, most: int
) -> tuple[list[Section], int]:
    """(the first sections, how many others there are). Of two measurements of one kernel and case in
    one setting the later one counts.
    """
    groups = by(measurements, Setting.of)
    several = len({setting.env_id for setting in groups}) > 1
    settings = sorted(groups, key=lambda setting: setting.order)[:most]
    return [_section(one, groups[one], standing, several) for one in settings], len(groups) - len(settings)


def _section(
    setting: Setting, group: Sequence[Measurement], standing: Mapping[Subject, Standing], several: bool
) -> Section:
    """several: the page has several machines, so each section names its own."""
    at = {(m.kernel, Input.of(m)): m for m in group}
    inputs = sorted({one for _, one in at})
    timed = by(filter(passes, at.values()), Input.of)
    ranked = {
        one: sorted(timed.get(one, []), key=lambda m: (m.data["median_seconds"], m.kernel)) for one in inputs
    }
    label = _words(setting.dtype, setting.sizes, setting.options, setting.where(several))
    _, dtype, direction, *_ = setting
    title = _words(setting.op, dtype, direction, setting.sizes, setting.options, setting.where(several))
    advice = {one: advise(own, standing) for one, own in ranked.items()}
    scalings = {m.kernel: found for m, found in of_length(at.values())}
    return Section(setting, title, label, at, inputs, ranked, advice, scalings)


def _words(*words: str) -> str:
    return ", ".join(filter(None, words))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (error, throughput) no other beats: none has a throughput at least as
    high and an error at most as high, and one of them better.
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return sorted(front)


def charted(sections: Sequence[Section], most: int) -> set[int]:
    """The numbers of the sections with charts: the first of each op and direction, then the others."""
    first: dict[tuple[str, str], int] = {}
    for number, section in enumerate(sections):
        first.setdefault(section.subject, number)
    return set([*first.values(), *(n for n in range(len(sections)) if n not in first.values())][:most])


def remarks(group: Iterable[Measurement]) -> list[tuple[str, str]]:
    """(remark, its kernels) of what has times."""
    found = by(
        (m for m in group if passes(m) and m.data["note"]),
        lambda m: m.data["note"].strip().partition("\n")[0],
    )
    return [(note, ", ".join(sorted({m.kernel for m in own}))) for note, own in sorted(found.items())]
