r"""records.csv: one row a record, one column a field, nested fields as JSON text.

A spreadsheet runs a cell that begins with = + - @ TAB CR as a formula. A cell of text that begins
so, or with an apostrophe, gets an apostrophe in front, which spreadsheets hide. Numbers stay
numbers: the columns of numbers, and `got` and `expected` where they hold one. Read it back with
pandas.read_csv(path, keep_default_na=False, na_values=[""]), and take one leading apostrophe from
text: str.removeprefix("'").
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from suite.records.flat import columns
from suite.records.record import Record

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")
"""OWASP, "CSV Injection"; the wide forms are taken for the narrow ones in some locales. The
apostrophe keeps reading exact.
"""
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?([eE][-+]?\d+)?|inf|nan)")
COLUMNS = ("id", *columns(Record))
NOT_TEXT = {name for name, one in columns(Record).items() if one.type is not str and one.type != (str | None)}
"""Fields that are no text: where they hold one, it is "inf", "-inf" or "nan"."""


def write_csv(records: Iterable[Record], path: Path) -> None:
    """Writes them as RFC 4180 says, a NUL in text as its escape. Raises OSError where the file
    cannot be written.
    """
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for record in records:
            data = record.to_dict()
            writer.writerow([_cell(name, data[name]) for name in COLUMNS])


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value)
    if not isinstance(value, str) or (
        (name in NOT_TEXT or name in ("got", "expected")) and NUMBER.fullmatch(value)
    ):
        return value
    value = value.replace("\0", "\\0")
    return f"'{value}" if value.startswith(FORMULA) else value
