"""How the time of each kernel grows with length, of the measurements of a page or a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from suite.inputs.draws import Draw
from suite.records.record import Measurement
from suite.timing.statistics import Scaling, scaling


def of_length(measurements: Iterable[Measurement]) -> Iterable[tuple[Measurement, Scaling]]:
    """How the time of a row (attention: of a head) grows with length, for each kernel, format and
    setting that has three.
    """
    series: dict[tuple[str, ...], dict[int, list[float]]] = {}
    first: dict[tuple[str, ...], Measurement] = {}
    for one in measurements:
        data = one.data
        if not data["samples_seconds"]:
            continue
        parts = 1 if len(data["shape"]) == 4 else data["shape"][0]
        heads_and_size = str(data["shape"][:2] + data["shape"][3:]) if len(data["shape"]) == 4 else ""
        others = one.case.split("/")[3:-1]
        key = (one.op, one.kernel, one.dtype, data["direction"], heads_and_size, *others)
        series.setdefault(key, {})[data["length"]] = [seconds / parts for seconds in data["samples_seconds"]]
        first.setdefault(key, one)
    for key, samples in series.items():
        draw = Draw("scaling|" + "|".join(key))
        found = scaling(samples, lambda limit, count, draw=draw: draw.integers(limit, count))  # type: ignore[misc]
        if found is not None:
            yield first[key], found
