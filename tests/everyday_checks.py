"""What everyday checks let through: `make everyday` prints the table of the README.

Wrong softmax kernels on 32 rows of 8,192 normal logits in bfloat16, compared with the float32
result by torch.allclose at 1e-2 and by torch.testing.assert_close at its defaults; and by the smoke
cases of this suite.
"""

import torch

from suite import inputs
from suite.formats import bfloat16
from suite.kernels import Kernel
from suite.tensors import to_torch
from tests.mutants import MUTANTS
from tests.mutants.search import catches

SHOWN = {
    "all results are 0": "zeros",
    "every result is 1/n": "uniform",
    "no max subtraction": "no_shift",
    "the last entry is left out of the sum": "last_entry_dropped",
    "sum of exponentials in bfloat16": "denominator_in_bfloat16",
    "2 % too large": "two_percent",
    "NaN replaced by 0": "nan_swallowed",
}


def assert_close_passes(output: torch.Tensor, expected: torch.Tensor) -> bool:
    try:
        torch.testing.assert_close(output, expected)
    except AssertionError:
        return False
    return True


def main() -> None:
    x = to_torch(inputs.build("normal", 32, 8192, bfloat16, 0), bfloat16)
    expected = torch.softmax(x.float(), -1).to(torch.bfloat16)
    print(
        "| wrong softmax, bfloat16 | allclose, 1e-2 | assert_close | this suite |\n| --- | --- | --- | --- |"
    )
    for label, name in SHOWN.items():
        mutant = MUTANTS[f"softmax: {name}"]
        kernel: Kernel = mutant.kernel()
        output = kernel({"x": x}, options={"dim": -1})
        allclose = torch.allclose(output, expected, atol=1e-2, rtol=1e-2)
        caught = catches(mutant, "bfloat16", all_cases=True)
        families = len({record.family for record in caught})
        passes = (allclose, assert_close_passes(output, expected))
        row = ["**passes**" if passed else "caught" for passed in passes]
        row.append(f"{caught[0].status}, on {families} of {len(inputs.all_families())} input families")
        print(f"| {label} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
