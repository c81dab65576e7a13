"""The record: one frozen row of what was run and what was found. Reports read nothing else.

Records come from strangers. What a record may hold is said once, by the types of its fields: they
make the JSON Schema that `softmax-suite schema` prints (docs/records.schema.json), and from_dict()
refuses what that refuses.

Schema history (only ever add fields; readers keep unknown ones out and fill missing ones with defaults):
    1  first
    2  false_zeros, dead_rows
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from suite.records import schema as json_schema
from suite.records.schema import Size

SCHEMA = 2

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
"""In order of precedence: a record's status is the first that holds. known_failure stands outside:
a declared failure.
"""

PASSING = ("passed", "known_failure", "unsupported")
"""The statuses that a run may end with and still exit 0."""

SILENT = ("passed", "unsupported")
"""The statuses that need no message."""

SUMMARY_CLASSES = ("passed", "failed", "known_failure", "unjudged", "unsupported")
"""What summaries count."""


def summary_class(status: str) -> str:
    """The one of SUMMARY_CLASSES that a status counts as."""
    return status if status in (*PASSING, "unjudged") else "failed"


LARGEST_INTEGER = 2**63 - 1
Count = Annotated[int, ("minimum", 0), ("maximum", LARGEST_INTEGER)]
Whole = Annotated[int, ("minimum", -LARGEST_INTEGER), ("maximum", LARGEST_INTEGER)]
Version = Annotated[int, ("minimum", 1), ("maximum", SCHEMA)]
Option = Annotated[Any, ("type", ("boolean", "number", "string", "null"))]
Verdict = Annotated[str, ("enum", (*STATUSES, "known_failure"))]
Failure = Annotated[str, ("enum", STATUSES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One evaluation of one kernel on one case.

    schema: of this row. suite_version, env_id: what judged it and where. started: UTC, ISO 8601.
    profile, seed: of the case.
    kernel, kernel_version, op, case, family, shape, options, laws, dtype, device, direction: what was run.
    outside: the kernel is not one of this suite's own. strict: declarations were ignored.
    status: the verdict. broken: every status that holds, by precedence. message: the verdict in words.
    known: why a failure counts as known_failure. reproduce: one self-contained command.
    judged: share of entries with a meaningful bound. ratio: largest error in times of bound, before
    output rounding.
    failed, entries, overflow: counts of entries. index, got, expected, worst_ulp: the worst entry;
    got as float64 text.
    max_ulp, bias_ulp, bias_error_ulp: errors of normal results in ulps. torch_ratio: max_ulp over
    torch's on this input.
    inversions, saturated, flushed: counts. false_zeros, dead_rows: of a gradient, entries that are
    exactly 0 where the exact one is a normal number of the format, and rows of nothing but 0 where
    the exact ones are not.
    bitwise: laws whose two sides had the same bits, and those that had not.
    tiles: where in the tile the failures sit. first_failing_column: the first column with a failure.
    numerics: as declared. fits: the tightest that the errors satisfy. tier: of the reference.
    digest: of the output.
    seconds: of the judged call, wall clock, one call, copies left out: a hint, no benchmark.
    warnings: what the kernel warned of, shortened. output: what it printed, shortened.
    """

    schema: Version = SCHEMA
    suite_version: str
    env_id: str = ""
    started: str = ""
    kernel: str
    kernel_version: str = ""
    outside: bool = False
    op: str
    case: str
    family: str
    shape: tuple[Count, ...]
    options: dict[str, Option] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
    profile: str = "smoke"
    seed: Whole = 0
    dtype: str
    device: str = "cpu"
    direction: str = "forward"
    strict: bool = False
    status: Verdict
    broken: tuple[Failure, ...] = ()
    judged: Size = 0.0
    message: str = ""
    known: str = ""
    reproduce: str = ""
    ratio: Size | None = None
    failed: Count = 0
    entries: Count = 0
    overflow: Count = 0
    index: tuple[Count, ...] | None = None
    got: str | None = None
    expected: str | None = None
    worst_ulp: Size | None = None
    max_ulp: Size | None = None
    bias_ulp: float | None = None
    bias_error_ulp: Size | None = None
    torch_ratio: Size | None = None
    inversions: Count | None = None
    saturated: Count = 0
    flushed: Count = 0
    false_zeros: Count | None = None
    dead_rows: Count | None = None
    bitwise: dict[str, bool] = field(default_factory=dict)
    tiles: dict[str, str] = field(default_factory=dict)
    first_failing_column: Count | None = None
    numerics: str = "best practice"
    fits: str | None = None
    tier: str = ""
    digest: str = ""
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    output: str = ""

    def __post_init__(self) -> None:
        if self.status not in (*STATUSES, "known_failure"):
            raise ValueError(f"status={self.status!r:.80} is not one of {', '.join(STATUSES)}, known_failure")
        if self.status not in SILENT and not self.message:
            raise ValueError(f"a record with status {self.status} needs a message")

    @property
    def id(self) -> str:
        """Names what was run: equal for two runs of the same kernel on the same case, dtype, device
        and direction.

        It begins with a letter, so that no reader of CSV takes it for a number.
        """
        parts = (self.kernel, self.op, self.case, self.dtype, self.device, self.direction)
        return (
            "r"
            + hashlib.blake2b("|".join(parts).encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
        )

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
        _check_version(data)
        return json_schema.read(cls, data, noun="record", schema=_RECORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured of one kernel, for a chapter of the report: a curve or a threshold apart
    from any case, or, of kind "throughput", its speed on one.

    kind: the chapter. kernel, op, dtype, device: what was measured. case: on which case, empty
    where on none. suite_version, env_id: by what and where. data: JSON-ready numbers, as the module
    suite/measure/<kind>.py documents them, docs/bench.md those of throughput.
    """

    schema: Version = SCHEMA
    kind: str
    kernel: str
    op: str
    dtype: str
    device: str = "cpu"
    case: str = ""
    suite_version: str = ""
    env_id: str = ""
    data: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(plain(asdict(self)), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Any) -> Measurement:
        """The measurement of a JSON object. Raises ValueError naming what is wrong with it."""
        _check_version(data)
        return json_schema.read(cls, data, noun="measurement", schema=_MEASUREMENT)


def by_precedence(statuses: set[str]) -> tuple[str, ...]:
    return tuple(status for status in STATUSES if status in statuses)


def plain(value: Any) -> Any:
    """The value as JSON has it: lists, objects, infinities and NaN as text, and text without lone
    surrogates.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def published() -> dict[str, Any]:
    """The JSON Schema of what this suite writes: a line of records-*.jsonl, one of
    measurements-*.jsonl, check --json.
    """
    counts = {"type": "object", "additionalProperties": json_schema.of_type(Count)}
    result = {
        "type": "object",
        "properties": {
            "schema": json_schema.of_type(Version),
            "suite_version": {"type": "string"},
            "environment": {"type": "object"},
            "summary": {"type": "object", "additionalProperties": counts},
            "records": {"type": "array", "items": {"$ref": "#/$defs/record"}},
        },
        "required": ["schema", "suite_version", "environment", "summary", "records"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"softmax-suite, schema {SCHEMA}: a record, a measurement, or what check --json writes",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("record", "measurement", "result")],
        "$defs": {"record": _RECORD, "measurement": _MEASUREMENT, "result": result},
    }


def _definition(cls: type[Any]) -> Mapping[str, Any]:
    """The schema of a line of JSON: that of the dataclass, the version required, and what
    __post_init__ adds.
    """
    definition = json_schema.of_dataclass(cls)
    definition["required"] = ["schema", *definition["required"]]
    if cls is Record:
        definition["properties"] = {"id": {"type": "string"}, **definition["properties"]}
        silent = {"properties": {"status": {"enum": list(SILENT)}}}
        definition["anyOf"] = [silent, {"properties": {"message": {"minLength": 1}}, "required": ["message"]}]
    return definition


def _check_version(data: Any) -> None:
    """Before all else: fields of a later version may have other types."""
    if isinstance(data, dict):
        version = data.get("schema")
        known = (
            isinstance(version, int | float)
            and not isinstance(version, bool)
            and version in range(1, SCHEMA + 1)
        )
        if not known:
            shown = repr(version) if len(repr(version)) < json_schema.SHOWN else "…"
            raise ValueError(f"schema={shown} is not one that this version reads (1 to {SCHEMA})")


_RECORD, _MEASUREMENT = _definition(Record), _definition(Measurement)
