"""records.csv: one row a record, one column a field, nested fields as JSON text.

Read it back with pandas.read_csv(path, keep_default_na=False, na_values=[""]).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from suite.records import Record


def write_csv(records: Iterable[Record], path: Path) -> None:
    import pandas

    rows = [
        {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in record.to_dict().items()}
        for record in records
    ]
    pandas.DataFrame(rows, columns=["id", *(f.name for f in fields(Record))]).to_csv(
        path, index=False, errors="backslashreplace"
    )
