"""Prints the digest of input families, as the tests hold it: python -m suite.inputs FAMILY [FAMILY ...]."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence

from suite.inputs import all_families, attention
from suite.inputs.digests import of_attention, of_logits

GROUPS: dict[str, tuple[Collection[str], Callable[[str], str]]] = {
    "tests/test_inputs.py": (all_families(), of_logits),
    "tests/test_attention_inputs.py": (attention.FAMILIES, of_attention),
}
"""The file whose GOLDEN holds the digests -> the families, and the function that takes one."""


def main(names: Sequence[str]) -> int:
    """2 for no name, or for one that no family has."""
    unknown = [name for name in names if not any(name in families for families, _ in GROUPS.values())]
    if unknown or not names:
        wrong = f"unknown input family {unknown[0]!r}" if unknown else "no input family is named"
        valid = "; ".join(
            f"of {op}: {', '.join(sorted(families))}"
            for op, (families, _) in zip(("logits", "attention"), GROUPS.values(), strict=True)
        )
        print(f"{wrong}; expected some of these, {valid}", file=sys.stderr)
        return 2
    for name in names:
        for place, (families, digest) in GROUPS.items():
            if name in families:
                print(f'    "{name}": "{digest(name)}",  # GOLDEN of {place}')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
