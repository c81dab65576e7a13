"""Prints the tables of docs/depth.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from suite.formats import DTYPES
from suite.studies.depth import CHECKED, DEPTHS, EXACT_LAYERS, LENGTHS, SCALES, measure

ByFormat = dict[str, dict[str, Any]]
"""The data by dtype, of one module."""


def tables() -> str:
    """What measure() finds, as Markdown."""
    found: dict[str, dict[str, ByFormat]] = {}
    for m in measure():
        found.setdefault(m.op, {}).setdefault(m.kernel, {})[m.dtype] = m.data
    exact = found["rank_collapse_exact"]["attention"]["float64"]["log10"]
    norms = found["lipschitz"]["softmax"]
    parts = [
        *_of_stacks(found["transformer_stack"]),
        *(
            _table(
                f"median relative residual after layer, {f}",
                range(9),
                {name: v[:9] for name, v in _of(found["rank_collapse"], f, "median").items()},
            )
            for f in DTYPES
        ),
        _table(
            "log10 of the residual after layer, exact, 8 tokens",
            range(1, EXACT_LAYERS + 1),
            {"attention": exact},
        ),
        _table(
            "largest norm of the Jacobian, n =",
            LENGTHS,
            {f"{f}, {q}": norms[f][q] for f in DTYPES for q in ("infinity", "two")},
            digits=6,
        ),
        *_of_contenders(found["attention_softmax"]),
    ]
    return "\n\n".join(parts)


def _of_stacks(stacks: dict[str, ByFormat]) -> Iterator[str]:
    yield _table(
        "gradient of the input over that of the output, float64", DEPTHS, _of(stacks, "float64", "gain")
    )
    yield _table(
        "float64 against the exact gradient",
        [f"{CHECKED} layers"],
        {name: [of["float64"]["check"]] for name, of in stacks.items()},
    )
    yield _table(
        "the first layer whose output is not finite, 0 = none",
        DTYPES,
        {name: [of[f]["overflow"] or 0 for f in DTYPES] for name, of in stacks.items()},
    )
    yield _table(
        "share of the last layer's softmaxes that are one-hot",
        DTYPES,
        {name: [of[f]["one_hot"] for f in DTYPES] for name, of in stacks.items()},
    )
    for f in DTYPES[1:]:
        yield _table(f"relative error of the input's gradient, {f}", DEPTHS, _of(stacks, f, "error"))
    layers = (0, 3, 7, 15, 31, 63)
    for f in DTYPES:
        chosen = {name: [v[layer] for layer in layers] for name, v in _of(stacks, f, "query").items()}
        yield _table(
            f"gradient of W_q over that of W_v at layer, {f}", [layer + 1 for layer in layers], chosen
        )


def _of_contenders(contenders: dict[str, ByFormat]) -> Iterator[str]:
    columns = [f"{scale:g}" for scale in SCALES]
    for quantity in ("zeros", "false_zeros", "tiny", "dead", "lost", "saturated"):
        rows = {f"{name}, {f}": of[f][quantity] for name, of in contenders.items() for f in DTYPES}
        yield _table(f"{quantity}, logits times", columns, rows)
    for quantity in ("gain", "order", "order_below_zero"):
        rows = {name: of["float64"][quantity] for name, of in contenders.items() if quantity in of["float64"]}
        yield _table(f"{quantity}, logits times", columns, rows)


def _of(kernels: dict[str, ByFormat], format: str, quantity: str) -> dict[str, list[float | None]]:
    return {kernel: of_format[format][quantity] for kernel, of_format in kernels.items()}


def _table(
    title: str, columns: Sequence[object], rows: dict[str, list[float | None]], *, digits: int = 3
) -> str:
    lines = [
        f"| {title} | " + " | ".join(str(column) for column in columns) + " |",
        "| --- " * (1 + len(columns)) + "|",
    ]
    for name, values in rows.items():
        lines.append(
            f"| {name} | "
            + " | ".join("not finite" if v is None else f"{v:.{digits}g}" for v in values)
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
