"""measure/thresholds.py: synthetic kernels whose thresholds are known, and faults that the
thresholds must tell apart.
"""

import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from suite.formats import DTYPES, get_format
from suite.kernels import Kernel
from suite.records.record import Measurement
from suite.studies import thresholds
from suite.studies.grid import GRID_BITS, SMALLEST, Grid, explanations
from suite.studies.thresholds import measure, tables

SHORT = (2, 33, 1024)
DOCUMENT = Path(__file__).parent.parent / "docs" / "thresholds.md"


@pytest.fixture(autouse=True)
def short_rows(monkeypatch):
    """The longest rows add time and no new branch."""
    monkeypatch.setattr(thresholds, "LENGTHS", SHORT)
    monkeypatch.setattr(thresholds, "LONGEST_SUM", 4096)
    monkeypatch.setattr(thresholds, "SLOW_SECONDS", 60.0)


def data(function, dtype, op="softmax", **declared):
    measured = measure(Kernel(id="mutant", op=op, call=function, **declared), dtype).data
    json.dumps(measured, allow_nan=False)
    return measured


def by_length(entries, key="measured"):
    return {entry["n"]: entry[key] for entry in entries}


def two_valued(op, arithmetic):
    """A kernel of rows (first, others, ..., others) from a function of the gap and n: p of the
    first and of the others.
    """

    def kernel(x, dim=-1):
        n = x.shape[-1]
        first, others = (x[:, i].double().numpy() for i in (0, -1))
        entries = arithmetic(first, others, n)
        format = get_format(str(x.dtype).removeprefix("torch."))
        head, tail = (torch.from_numpy(format.round(np.asarray(e))).to(x.dtype)[:, None] for e in entries)
        if op == "logsumexp":
            return head[:, 0]
        return torch.cat([head, tail.expand(len(x), n - 1)], dim=1)

    return kernel


def exact_softmax(first, others, n):
    top = np.maximum(first, others)
    a, b = np.exp(first - top), np.exp(others - top)
    return a / (a + (n - 1) * b), b / (a + (n - 1) * b)


def exact_log_softmax(first, others, n):
    gap = first - others  # never negative in these rows
    log_sum = np.log1p((n - 1) * np.exp(-gap))
    return -log_sum, -gap - log_sum


def exact_logsumexp(first, others, n):
    return first + np.log1p((n - 1) * np.exp(others - first)), others


def exact_float64_softmax(first, others, n):
    with mpmath.workprec(160):
        pairs = []
        for gap in first - others:
            e = mpmath.exp(-mpmath.mpf(float(gap))) if gap < 2000 else mpmath.mpf(0)
            pairs.append((float(1 / (1 + (n - 1) * e)), float(e / (1 + (n - 1) * e))))
    return tuple(np.array(pairs).T)


def in_bracket(entry, formula):
    """The closed value lies between the last number of the grid that works and the first that fails."""
    return entry["measured"] - entry["spacing"] < formula <= entry["measured"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_exactly_rounded_softmax_has_the_closed_thresholds(dtype):
    format = get_format(dtype)
    arithmetic = exact_float64_softmax if dtype == "float64" else exact_softmax

    found = data(two_valued("softmax", arithmetic), dtype)

    assert set(by_length(found["overflow"]).values()) == {None}
    assert all(entry["agrees_with"] == ["shifted"] for entry in found["overflow"])
    for entry in found["saturation"]:
        assert in_bracket(entry, format.saturation_rounded(entry["n"]))
        assert f"rounded {dtype}" in entry["agrees_with"]
    for entry in found["underflow"]:
        assert in_bracket(
            entry, format.exp_underflow + math.log1p(-(entry["n"] - 1) * format.smallest_subnormal / 2)
        )
        assert entry["agrees_with"][0] == f"zero {dtype}"
    assert found["stagnation"]["measured"] is None
    assert found["stagnation"]["beyond_rounding"] is None
    assert found["stagnation"]["agrees_with"] == ["wide"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("op", "arithmetic"), [("log_softmax", exact_log_softmax), ("logsumexp", exact_logsumexp)]
)
def test_exactly_rounded_logarithms_have_the_closed_thresholds(op, arithmetic, dtype):
    format = get_format(dtype)

    found = data(two_valued(op, arithmetic), dtype, op)

    assert set(by_length(found["overflow"]).values()) == {None}
    assert set(by_length(found["underflow"]).values()) == {None}
    for entry in found["saturation"]:
        assert in_bracket(entry, format.exp_underflow + math.log(entry["n"] - 1))
        assert f"zero {dtype}" in entry["agrees_with"]
    assert found["stagnation"]["agrees_with"] == ["wide"]


# Faults, each of which must show in a threshold.


def no_shift(x, dim=-1):
    e = torch.exp(x.float())
    return (e / e.sum(dim, keepdim=True)).to(x.dtype)


def in_format(x, dim=-1):
    e = torch.exp(x - x.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True)


def wide(x, dim=-1):
    return in_format(x.float()).to(x.dtype)


def flushing(x, dim=-1):
    p = wide(x)
    return torch.where(p.abs() < torch.finfo(x.dtype).tiny, torch.zeros_like(p), p)


def clamping(x, dim=-1):
    return wide(torch.clamp(x.float() - x.float().amax(dim, keepdim=True), min=-30.0)).to(x.dtype)


def accumulating_in(dtype):
    def kernel(x, dim=-1):
        e = torch.exp(x.float() - x.float().amax(dim, keepdim=True))
        total = torch.zeros(len(x), 1, dtype=dtype)
        for term in torch.split(e.to(dtype), 1, dim):
            total = total + term
        return (e / total.float()).to(x.dtype)

    return kernel


def test_a_kernel_without_shift_overflows_where_its_sum_does():
    found = data(no_shift, "float32")

    assert by_length(found["overflow"], "agrees_with") == {n: ["sum float32"] for n in (1, *SHORT)}
    assert by_length(found["overflow"])[1] == pytest.approx(88.72284, abs=2e-4)


def test_the_arithmetic_of_an_unshifted_float16_kernel_shows_in_its_overflow():
    exp = torch.exp
    in_half = data(lambda x, dim=-1: exp(x) / exp(x).sum(dim, keepdim=True), "float16")
    in_single = data(no_shift, "float16")

    assert by_length(in_half["overflow"], "agrees_with")[1024] == ["sum float16"]
    assert by_length(in_half["overflow"])[1] == 11.09375
    # 0.25 % apart.
    assert by_length(in_single["overflow"], "agrees_with")[1024] == [
        "sum float32",
        "sum bfloat16",
    ]


def test_wide_and_in_format_bfloat16_saturate_apart():
    assert by_length(data(wide, "bfloat16")["saturation"])[2] == 6.25
    assert by_length(data(wide, "bfloat16")["saturation"], "agrees_with")[1024] == ["rounded bfloat16"]
    assert by_length(data(in_format, "bfloat16")["saturation"])[2] == 5.5625
    assert by_length(data(in_format, "bfloat16")["saturation"], "agrees_with")[1024] == ["sum bfloat16"]


def test_the_rounding_of_stored_exponentials_is_part_of_the_formula():
    """Near 14.5 exp(-g) is a subnormal of float16: the plain p ln 2 + ln(n - 1) is four spacings off."""
    [entry] = [entry for entry in data(in_format, "float16")["saturation"] if entry["n"] == 1024]

    assert entry["measured"] == 14.5
    assert entry["agrees_with"] == ["sum float16"]
    assert (
        get_format("float16").saturation_in_format + math.log(1023) - entry["measured"] > 3 * entry["spacing"]
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_flushed_results_vanish_at_the_smallest_normal_number(dtype):
    assert by_length(data(wide, dtype)["underflow"], "agrees_with")[33][0] == f"zero {dtype}"
    assert by_length(data(flushing, dtype)["underflow"], "agrees_with")[33][0] == f"flushed {dtype}"


def test_a_kernel_that_clamps_its_gaps_never_reaches_zero_and_nothing_explains_that():
    found = data(clamping, "float32")

    assert set(by_length(found["underflow"]).values()) == {None}
    assert set(map(tuple, by_length(found["underflow"], "agrees_with").values())) == {()}


@pytest.mark.parametrize(
    ("dtype", "accumulator"), [("float32", "bfloat16"), ("bfloat16", "bfloat16"), ("float32", "float16")]
)
def test_a_narrow_accumulator_stops_growing_at_two_to_its_precision(monkeypatch, dtype, accumulator):
    monkeypatch.setattr(thresholds, "LENGTHS", (2, 33))

    found = data(accumulating_in(getattr(torch, accumulator)), dtype)

    assert found["stagnation"]["measured"] == get_format(accumulator).stagnation
    assert found["stagnation"]["agrees_with"] == [f"accumulator {accumulator}"]
    assert found["stagnation"]["largest_error"] == pytest.approx(0.5)


def test_one_entry_after_another_is_absorbed_by_a_sum_in_order(monkeypatch):
    monkeypatch.setattr(thresholds, "LENGTHS", (2, 33))

    found = data(accumulating_in(torch.float32), "float32")

    assert by_length(found["saturation"], "agrees_with") == {
        2: ["absorbed float32"],
        33: ["absorbed float32"],
    }


def test_a_rounded_log_sum_exp_is_lost_in_large_logits():
    def through_lse(x, dim=-1):
        return torch.exp(x - torch.logsumexp(x, dim, keepdim=True))

    found = data(through_lse, "float32")

    assert by_length(found["overflow"], "agrees_with") == {1: ["shifted"]} | {
        n: ["lse float32"] for n in SHORT
    }
    assert by_length(found["overflow"])[33] == 2.0**23


def test_log_of_softmax_loses_entries_where_softmax_underflows():
    found = data(lambda x, dim=-1: torch.log(torch.softmax(x, dim)), "float32", "log_softmax")
    own = data(torch.log_softmax, "float32", "log_softmax")

    assert by_length(found["underflow"], "agrees_with")[33] == ["zero float32"]
    assert by_length(own["underflow"], "agrees_with")[33] == ["log domain"]


def test_an_unshifted_logsumexp_fails_on_both_sides():
    found = data(lambda x, dim=-1: torch.log(torch.exp(x).sum(dim)), "float16", "logsumexp")

    assert by_length(found["overflow"], "agrees_with")[33] == ["sum float16"]
    assert by_length(found["underflow"], "agrees_with")[33] == ["zero float16"]
    assert by_length(found["underflow"])[33] == 17.34375


def test_a_row_that_fails_at_zero_is_measured_as_zero(monkeypatch):
    """The shifted sum of 70,000 ones is infinite in float16."""
    monkeypatch.setattr(thresholds, "LENGTHS", (70000,))
    monkeypatch.setattr(thresholds, "LONGEST_SUM", 2**16)

    found = data(in_format, "float16")

    assert by_length(found["overflow"])[70000] == 0.0
    assert by_length(found["underflow"], "agrees_with")[70000] == ["Ω float16"]
    assert found["stagnation"]["agrees_with"] == ["Ω float16"]


# What the kernel does wrong is a reason.


def test_a_raising_kernel_gives_a_reason():
    def broken(x, dim=-1):
        raise RuntimeError("no such device")

    assert data(broken, "float32")["reason"].startswith("raised on 1 rows of 2: RuntimeError: no such device")


def test_a_result_of_another_shape_is_a_reason():
    assert data(lambda x, dim=-1: x[:, :1], "float32")["reason"].startswith("wrong_shape on 1 rows of 2")


def test_an_undeclared_dtype_is_a_reason():
    assert data(in_format, "float64", dtypes=("float32",)) == {"reason": "declares dtypes float32"}


def test_a_length_that_cannot_be_measured_leaves_the_others():
    def short_only(x, dim=-1):
        if x.shape[-1] == 33:
            raise RuntimeError("33 is no multiple of 2")
        return torch.softmax(x, dim)

    found = data(short_only, "float32")

    assert [entry["n"] for entry in found["saturation"] if "reason" in entry] == [33]
    assert by_length([e for e in found["saturation"] if "reason" not in e], "agrees_with")[2] == [
        "absorbed float32"
    ]


def test_slow_kernels_get_fewer_lengths_and_say_so(monkeypatch):
    monkeypatch.setattr(thresholds, "SLOW_SECONDS", 0.0)

    declared = data(wide, "bfloat16", slow=True)
    found_slow = data(wide, "bfloat16")

    assert (list(by_length(declared["saturation"])), declared["note"]) == ([2, 33], "declared slow")
    assert list(by_length(found_slow["saturation"])) == [2, 33, 1024]
    assert found_slow["note"] == "a row of 1,024 takes more than 0 ms"
    assert by_length(declared["saturation"])[33] == by_length(found_slow["saturation"])[33]


def test_another_op_is_misuse():
    with pytest.raises(
        ValueError, match="kernel mutant is a kernel of attention; thresholds are measured of softmax, log"
    ):
        measure(Kernel(id="mutant", op="attention", call=in_format), "float32")


def test_a_measurement_comes_back_from_its_file():
    measured = measure(Kernel(id="no_shift", op="softmax", call=no_shift), "float16")

    assert Measurement.from_dict(json.loads(measured.to_json())) == measured


# The grid, the search and the comparison.


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_grid_holds_consecutive_numbers_of_the_format(dtype):
    format, grid = get_format(dtype), Grid(get_format(dtype))
    ends = np.arange(1, 4) * 2 ** (grid.bits - 1)
    places = np.unique([*range(300), *(end + step for end in ends for step in range(-50, 50))])

    numbers = grid.numbers(places)

    assert format.holds(numbers)
    assert numbers[0] == 2.0**SMALLEST
    below = grid.numbers(places[1:] - 1)
    assert np.array_equal([grid.spacing(float(v)) for v in numbers[1:]], numbers[1:] - below)
    last = float(grid.numbers(np.array([grid.size - 1]))[0])
    assert last == format.largest if format.precision <= GRID_BITS else 0 <= 1 - last / format.largest < 2e-6


@pytest.mark.parametrize("candidates", [1, 2, 16, 64])
@pytest.mark.parametrize("place", [0, 1, 777, 17151])
def test_the_search_finds_the_first_number_that_fails(candidates, place):
    grid = Grid(get_format("bfloat16"))
    threshold = float(grid.numbers(np.array([place]))[0])

    assert grid.first(lambda values: values >= threshold, candidates) == threshold
    assert grid.first(lambda values: values > grid.format.largest, candidates) is None


def test_every_batch_of_a_search_has_the_same_size():
    sizes = set()

    def fails(values):
        sizes.add(len(values))
        return values > 3

    Grid(get_format("float16")).first(fails, 7)

    assert sizes == {7}


@pytest.mark.parametrize(
    ("measured", "names"),
    [(4.0, ["inside"]), (3.5, ["below", "inside"]), (9.0, []), (None, ["never"]), (0.0, ["at once"])],
)
def test_a_formula_explains_what_lies_within_a_spacing(measured, names):
    formulas = {"below": 3.2, "inside": 3.9, "never": None, "at once": -2.0}
    spacing = 0.5

    assert explanations(formulas, measured, spacing) == (["below"] if measured == 3.5 else names)


def test_the_document_shows_what_the_command_prints():
    assert tables() in DOCUMENT.read_text(encoding="utf-8")
