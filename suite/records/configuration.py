"""What a run was asked and the code that did it: run.json, which guards --resume and merge.

Records may stand in one run if, and only if, the same code judged the same kernels by the same
request on the same kind of machine. `hash` says whether; differences() says in words what differs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from suite.records import strict_json

SCHEMA = 1
FILE = "run.json"
ALL = "1/1"
SHARD_SALT = b"25"
"""Of 300 tried the one whose halves, thirds and quarters of the profile quick take the most equal
times. Without it two halves differed by a quarter, as a few vocabularies take a tenth of a run.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What decides a run's records.

    asked: option -> value, JSON-ready. kernels: "op kernel" -> version. code: file -> digest, of
    this package and the cases.
    env_id: of the environment. shard: "i/n", or "i,j/n" where shards were merged. planned: how many
    records it will have.
    """

    asked: Mapping[str, Any]
    kernels: Mapping[str, str]
    code: Mapping[str, str]
    env_id: str
    shard: str = ALL
    planned: int = 0

    @property
    def hash(self) -> str:
        """Equal for runs whose records may stand together: of everything but shard and planned."""
        text = json.dumps([self.asked, self.kernels, self.code, self.env_id], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "hash": self.hash, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any) -> Configuration:
        """The configuration of a JSON object. Raises ValueError naming what is wrong with it."""
        if not isinstance(data, dict):
            raise ValueError(f"must be a JSON object, not a {type(data).__name__}")
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema={data.get('schema')!r} is not one that this version reads ({SCHEMA})")
        kinds = {"asked": dict, "kernels": dict, "code": dict, "env_id": str, "shard": str, "planned": int}
        for name, kind in kinds.items():
            if not isinstance(data.get(name), kind) or isinstance(data[name], bool):
                raise ValueError(
                    f"{name}={data.get(name)!r} must be {'an' if kind is int else 'a'} {kind.__name__}"
                )
        shards(data["shard"])
        found = cls(**{field.name: data[field.name] for field in fields(cls)})
        if found.hash != data.get("hash"):
            raise ValueError(
                f"its hash is {data.get('hash')!r}, but its content has {found.hash!r}: it was changed"
            )
        return found


def read_configuration(folder: Path) -> Configuration:
    """What run.json of a run folder holds. Raises ValueError, naming the file, where it is missing
    or unreadable.
    """
    path = folder / FILE
    if not path.exists():
        raise ValueError(f"{str(folder)!r} has no {FILE}: no run was begun there, or one of an older version")
    try:
        return Configuration.from_dict(strict_json.read(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def code_digests(folders: Mapping[str, Path]) -> dict[str, str]:
    """name/file -> digest, of every file below these folders that Python did not write."""
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": digest(path.read_bytes())
        for name, folder in folders.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def differences(
    then: Configuration, now: Configuration, *, names: tuple[str, str] = ("then", "now")
) -> list[str]:
    """What keeps the records of two configurations apart, one line each; shards are compared by
    those who may have several.

    names: what the two are called.
    """
    found = [f"--{line}" for line in _unlike(then.asked, now.asked, names)]
    found += [f"kernel {line}" for line in _unlike(then.kernels, now.kernels, names)]
    changed = [file for file in then.code.keys() & now.code.keys() if then.code[file] != now.code[file]]
    found += _files("differs", changed)
    found += _files(f"is there {names[0]} only", then.code.keys() - now.code.keys())
    found += _files(f"is there {names[1]} only", now.code.keys() - then.code.keys())
    return found


def unlike_facts(
    then: Mapping[str, Any], now: Mapping[str, Any], *, names: tuple[str, str] = ("then", "now")
) -> list[str]:
    """The facts of env.json that can change a result and differ, one line each."""
    without = ("cpu_count", "suite_version", "libm", "env_id", "merged")
    flat = [
        _flat({key: value for key, value in facts.items() if key not in without}) for facts in (then, now)
    ]
    return [f"environment, {line}" for line in _unlike(flat[0], flat[1], names)]


def shards(text: str) -> tuple[frozenset[int], int]:
    """(numbers, n) of "i/n" or "i,j/n". Raises ValueError unless all are from 1 to n."""
    match = re.fullmatch(r"([1-9]\d{0,5}(?:,[1-9]\d{0,5})*)/([1-9]\d{0,5})", text, re.ASCII)
    numbers = frozenset(int(number) for number in match[1].split(",")) if match else frozenset[int]()
    if match is None or not 1 <= min(numbers) <= max(numbers) <= int(match[2]):
        raise ValueError(f"shard {text!r} must be i/n with 1 <= i <= n, such as 2/3")
    return numbers, int(match[2])


def in_shard(case_id: str, shard: str) -> bool:
    """Whether a shard has a case: by its id alone, so a case's kernels and formats, which share a
    reference, stay together.
    """
    numbers, n = shards(shard)
    hashed = hashlib.blake2b(case_id.encode(), digest_size=8, salt=SHARD_SALT)
    return int.from_bytes(hashed.digest()) % n + 1 in numbers


def _unlike(then: Mapping[str, Any], now: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    absent = object()

    def shown(value: Any) -> str:
        return "absent" if value is absent else json.dumps(value)

    pairs = {
        key: (then.get(key, absent), now.get(key, absent))
        for key in [*then, *(key for key in now if key not in then)]
    }
    return [f"{key}: {shown(a)} {names[0]}, {shown(b)} {names[1]}" for key, (a, b) in pairs.items() if a != b]


def _files(what: str, files: Iterable[str]) -> list[str]:
    ordered = sorted(files)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return [f"code {', '.join(ordered[:5])}{more} {what}"] if ordered else []


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
