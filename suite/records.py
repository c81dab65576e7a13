"""The record: one frozen row of what was run and what was found. Reports read nothing else.

Schema history (only ever add fields; readers keep unknown ones out and fill missing ones with defaults):
    1  first
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

SCHEMA = 1

STATUSES = (
    "not_run",
    "unsupported",
    "crashed",
    "timed_out",
    "out_of_memory",
    "raised",
    "wrong_type",
    "wrong_shape",
    "wrong_dtype",
    "nonfinite",
    "inaccurate",
    "law_broken",
    "unjudged",
    "passed",
)
"""In order of precedence: a record's status is the first that holds. known_failure stands outside: a declared failure."""

PASSING = ("passed", "known_failure", "unsupported")
"""The statuses that a run may end with and still exit 0."""


SUMMARY_CLASSES = ("passed", "failed", "known_failure", "unjudged", "unsupported")
"""What summaries count."""


def summary_class(status: str) -> str:
    """The one of SUMMARY_CLASSES that a status counts as."""
    return status if status in (*PASSING, "unjudged") else "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One evaluation of one kernel on one case.

    schema: of this row. suite_version, env_id: what judged it and where. started: UTC, ISO 8601. profile, seed: of the case.
    kernel, kernel_version, op, case, family, shape, options, laws, dtype, device, direction: what was run.
    outside: the kernel is not one of this suite's own. strict: declarations were ignored.
    status: the verdict. broken: every status that holds, by precedence. message: the verdict in words.
    known: why a failure counts as known_failure. reproduce: one self-contained command.
    judged: share of entries with a meaningful bound. ratio: largest error in times of bound, before output rounding.
    failed, entries, overflow: counts of entries. index, got, expected, worst_ulp: the worst entry; got as float64 text.
    max_ulp, bias_ulp, bias_error_ulp: errors of normal results in ulps. torch_ratio: max_ulp over torch's on this input.
    inversions, saturated, flushed: counts. bitwise: laws whose two sides had the same bits, and those that had not.
    tiles: where in the tile the failures sit. first_failing_column: the first column with a failure.
    numerics: as declared. fits: the tightest that the errors satisfy. tier: of the reference. digest: of the output.
    seconds: of the judged call, wall clock, one call, copies left out: a hint, no benchmark.
    warnings: what the kernel warned of, shortened. output: what it printed, shortened.
    """

    schema: int = SCHEMA
    suite_version: str
    env_id: str = ""
    started: str = ""
    kernel: str
    kernel_version: str = ""
    outside: bool = False
    op: str
    case: str
    family: str
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
    profile: str = "smoke"
    seed: int = 0
    dtype: str
    device: str = "cpu"
    direction: str = "forward"
    strict: bool = False
    status: str
    broken: tuple[str, ...] = ()
    judged: float = 0.0
    message: str = ""
    known: str = ""
    reproduce: str = ""
    ratio: float | None = None
    failed: int = 0
    entries: int = 0
    overflow: int = 0
    index: tuple[int, ...] | None = None
    got: str | None = None
    expected: str | None = None
    worst_ulp: float | None = None
    max_ulp: float | None = None
    bias_ulp: float | None = None
    bias_error_ulp: float | None = None
    torch_ratio: float | None = None
    inversions: int | None = None
    saturated: int = 0
    flushed: int = 0
    bitwise: dict[str, bool] = field(default_factory=dict)
    tiles: dict[str, str] = field(default_factory=dict)
    first_failing_column: int | None = None
    numerics: str = "best practice"
    fits: str | None = None
    tier: str = ""
    digest: str = ""
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    output: str = ""

    def __post_init__(self) -> None:
        if self.status not in (*STATUSES, "known_failure"):
            raise ValueError(f"status={self.status!r} is not one of {', '.join(STATUSES)}, known_failure")
        if self.status not in ("passed", "unsupported") and not self.message:
            raise ValueError(f"a record with status {self.status} needs a message")

    @property
    def id(self) -> str:
        """Names what was run: equal for two runs of the same kernel on the same case, dtype, device and direction.

        It begins with a letter, so that no reader of CSV takes it for a number.
        """
        parts = (self.kernel, self.op, self.case, self.dtype, self.device, self.direction)
        return "r" + hashlib.blake2b("|".join(parts).encode(), digest_size=6).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, `id` first; infinities and NaN as the strings "inf", "-inf" and "nan"."""
        data = plain({"id": self.id, **{f.name: getattr(self, f.name) for f in fields(self)}})
        assert isinstance(data, dict)
        return data

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Any) -> Record:
        """The record of a JSON object. Raises ValueError naming what is wrong with it."""
        if not isinstance(data, dict):
            raise ValueError(f"a record must be a JSON object, not a {type(data).__name__}")
        schema = data.get("schema")
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise ValueError(f"schema={schema!r} is not one that this version reads (1 to {SCHEMA})")
        known = {f.name: f for f in fields(cls)}
        given = {key: value for key, value in data.items() if key in known}
        for name in ("ratio", "judged", "worst_ulp", "max_ulp", "bias_ulp", "bias_error_ulp", "torch_ratio", "seconds"):
            if name in given and given[name] is not None:
                given[name] = _number(name, given[name])
        for name in ("shape", "laws", "broken", "index", "warnings"):
            if name in given and (given[name] is not None or name != "index"):
                if not isinstance(given[name], list | tuple):
                    raise ValueError(f"{name}={given[name]!r} must be a list")
                given[name] = tuple(given[name])
        for name in (
            "kernel",
            "op",
            "case",
            "family",
            "dtype",
            "status",
            "suite_version",
            "message",
            "reproduce",
            "env_id",
            "started",
            "kernel_version",
            "profile",
            "device",
            "direction",
            "known",
            "numerics",
            "tier",
            "digest",
            "output",
        ):
            if name in given and not isinstance(given[name], str):
                raise ValueError(f"{name}={given[name]!r} must be text")
        for name in ("options", "bitwise", "tiles"):
            if name in given and not isinstance(given[name], dict):
                raise ValueError(f"{name}={given[name]!r} must be an object")
        for name in ("failed", "entries", "overflow", "saturated", "flushed", "seed"):
            if name in given and not isinstance(given[name], int):
                raise ValueError(f"{name}={given[name]!r} must be an integer")
        try:
            return cls(**given)
        except TypeError as error:
            raise ValueError(f"incomplete record: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured of one kernel apart from any case: a curve or a threshold, for a chapter of the report; no verdict.

    kind: the chapter, "exponential" or "thresholds". kernel, op, dtype, device: what was measured. suite_version, env_id:
    by what and where. data: JSON-ready numbers, as the module suite/measure/<kind>.py documents them.
    """

    schema: int = SCHEMA
    kind: str
    kernel: str
    op: str
    dtype: str
    device: str = "cpu"
    suite_version: str = ""
    env_id: str = ""
    data: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(plain(asdict(self)), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Any) -> Measurement:
        """The measurement of a JSON object. Raises ValueError naming what is wrong with it."""
        if not isinstance(data, dict):
            raise ValueError(f"a measurement must be a JSON object, not a {type(data).__name__}")
        schema = data.get("schema")
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
            raise ValueError(f"schema={schema!r} is not one that this version reads (1 to {SCHEMA})")
        names = {f.name for f in fields(cls)}
        for name in names - {"schema", "data"}:
            if not isinstance(data.get(name, ""), str):
                raise ValueError(f"{name}={data[name]!r} must be text")
        if not isinstance(data.get("data"), dict):
            raise ValueError("data must be an object")
        try:
            return cls(**{key: value for key, value in data.items() if key in names})
        except TypeError as error:
            raise ValueError(f"incomplete measurement: {error}") from None


def by_precedence(statuses: set[str]) -> tuple[str, ...]:
    return tuple(status for status in STATUSES if status in statuses)


def plain(value: Any) -> Any:
    """The value as JSON has it: lists, objects, and infinities and NaN as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{name}={value!r} must be a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name}={value!r} must be a number") from None
