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
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from suite.records import schema as json_schema
from suite.records.flat import flat
from suite.records.found import Effects, Judged
from suite.records.schema import Count, Size, Whole

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


Version = Annotated[int, ("minimum", 1), ("maximum", SCHEMA)]
Option = Annotated[Any, ("type", ("boolean", "number", "string", "null"))]
Verdict = Annotated[str, ("enum", (*STATUSES, "known_failure"))]
Failure = Annotated[str, ("enum", STATUSES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One evaluation of one kernel on one case. In files it is one flat object: the fields of
    `judgement` and `outcome` stand beside the others.
    """

    schema: Version = SCHEMA
    """The version of this row's fields."""
    suite_version: str
    """What judged it."""
    env_id: str = ""
    """Where it ran: the environment of that id in the run's env.json."""
    started: str = ""
    """When, in UTC, ISO 8601."""
    kernel: str
    """The kernel's id."""
    kernel_version: str = ""
    """A hash of its source, or its package's version."""
    outside: bool = False
    """The kernel is not one of this suite's own."""
    op: str
    """The case's op."""
    case: str
    """The case's id, which rebuilds its inputs."""
    family: str
    """The family of the case's inputs."""
    shape: tuple[Count, ...]
    """Of the case's logits."""
    options: dict[str, Option] = field(default_factory=dict)
    """The case's, without defaults."""
    laws: tuple[str, ...] = ()
    """The laws that the case asks about."""
    profile: str = "smoke"
    """The smallest profile that the case belongs to."""
    seed: Whole = 0
    """Of the case's inputs."""
    dtype: str
    """The format."""
    device: str = "cpu"
    """Where the kernel ran."""
    direction: str = "forward"
    """forward or backward."""
    strict: bool = False
    """The kernel's declarations were ignored."""
    status: Verdict
    """The verdict: the first of `broken`, known_failure or passed."""
    broken: tuple[Failure, ...] = ()
    """Every status that holds, in order of precedence."""
    message: str = ""
    """The verdict in words."""
    known: str = ""
    """Why a failure counts as a known failure."""
    reproduce: str = ""
    """The command that evaluates the same again."""
    numerics: str = "best practice"
    """What the kernel declares and was judged by."""
    torch_ratio: Size | None = None
    """The largest error in ulps divided by that of torch's own kernel on this input."""
    bitwise: dict[str, bool] = field(default_factory=dict)
    """Law -> whether its two sides had the same bits."""
    judgement: Judged = field(default_factory=Judged)
    """What was found in the output."""
    outcome: Effects = field(default_factory=Effects)
    """What the call did beside its output."""

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
        return {"id": self.id, **{name: plain(value) for name, value in flat(self).items()}}

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
    """

    schema: Version = SCHEMA
    """The version of this row's fields."""
    kind: str
    """The chapter."""
    kernel: str
    """The kernel's id."""
    op: str
    """The kernel's op."""
    dtype: str
    """The format."""
    device: str = "cpu"
    """Where the kernel ran."""
    case: str = ""
    """The id of the case, empty where it was measured apart from any."""
    suite_version: str = ""
    """What measured it."""
    env_id: str = ""
    """Where: the environment of that id in the run's env.json."""
    data: dict[str, Any]
    """JSON-ready numbers, as the module suite/studies/<kind>.py documents them; docs/bench.md for
    those of throughput.
    """

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
    if value is None or isinstance(value, int):  # most of a record, so first
        return value
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
        "$defs": {
            "record": json_schema.described(Record, _RECORD),
            "measurement": json_schema.described(Measurement, _MEASUREMENT),
            "result": result,
        },
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
