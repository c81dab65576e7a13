"""How the time of each kernel grows with length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from suite.inputs.draws import Draw
from suite.records.record import Measurement
from suite.report.tables import by
from suite.timing.statistics import Scaling, scaling


def of_length(measurements: Iterable[Measurement]) -> Iterator[tuple[Measurement, Scaling]]:
    """How the time of a row (attention: of a head) grows with length, for each kernel, format and
    setting that has three lengths.
    """
    for key, group in by((m for m in measurements if m.data["samples_seconds"]), _key).items():
        samples = {}
        for m in group:
            parts = 1 if len(m.data["shape"]) == 4 else m.data["shape"][0]
            samples[m.data["length"]] = [seconds / parts for seconds in m.data["samples_seconds"]]
        found = scaling(samples, Draw("scaling|" + "|".join(key)).integers)
        if found is not None:
            yield group[0], found


def _key(m: Measurement) -> tuple[str, ...]:
    shape = m.data["shape"]
    heads_and_size = str(shape[:2] + shape[3:]) if len(shape) == 4 else ""
    return m.op, m.kernel, m.dtype, m.data["direction"], heads_and_size, *m.case.split("/")[3:-1]
