"""Records made by hand, for tests of what reads them."""

from typing import Any

from suite.records.flat import nested
from suite.records.record import Record


def make_record(**columns: Any) -> Record:
    """A record by the names of its flat row, as files have it: those of the judgement and of the
    outcome among them.
    """
    return nested(Record, columns)
