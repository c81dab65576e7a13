"""Shapes, dims and layouts: what is reduced, and where it lies in memory."""

from suite.case import case

ROW_OPS = ("softmax", "log_softmax", "logsumexp")
DIM = "JuliaGPU/CUDA.jl#599: dim ignored; onnx/onnx#3244: a negative axis"
STRIDES = "pytorch/pytorch#139740 and pytorch/pytorch#191937: strides ignored"


@case(*ROW_OPS, family="normal", shapes={"smoke": [(33,)], "quick": [(1,), (1000,)]}, source=DIM)
def test_one_row(evaluate):
    """A tensor of one dim is one row."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"smoke": [(33, 4)], "quick": [(257, 8)]},
    options={"dim": 0},
    source=DIM,
)
def test_first_dim(evaluate):
    """Reducing over the first dim gives what reducing its rows gives."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"smoke": [(5, 3, 7)], "quick": [(2, 65, 3)]},
    options={"dim": 1},
    source=DIM,
)
def test_inner_dim(evaluate):
    """Reducing over an inner dim gives what reducing its rows gives."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"quick": [(5, 3, 7)]},
    options=[{"dim": dim} for dim in (0, 2, -1, -2, -3)],
    source=DIM,
)
def test_every_dim_of_three(evaluate):
    """Each of three dims is reduced, counted from either end."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"standard": [(3, 2, 5, 4)]},
    options=[{"dim": dim} for dim in range(-4, 4)],
    source=DIM,
)
def test_every_dim_of_four(evaluate):
    """Each of four dims is reduced, counted from either end."""
    evaluate()


@case(*ROW_OPS, family="normal", shapes={"smoke": [(4, 1)], "quick": [(1, 1), (1, 33, 1)]}, source=DIM)
def test_rows_of_one_entry(evaluate):
    """A row of one entry has the probability 1, and itself as its logsumexp."""
    evaluate()


@case(*ROW_OPS, family="nan_and_infinity", shapes={"quick": [(8, 1)]}, source="docs/verdict.md, section 1")
def test_rows_of_one_special_value(evaluate):
    """A row of nothing but NaN, inf or -inf is what the definition says of it."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"quick": [(300, 33)], "standard": [(1025, 129)]},
    laws=("written",),
    source="gridDim",
)
def test_many_rows(evaluate):
    """The rows behind those that one launch covers are computed, too."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"standard": [(70000, 17)]},
    dtypes=("float32", "bfloat16"),
    source="gridDim.y ends at 65535",
)
def test_more_rows_than_a_grid_has(evaluate):
    """Neither the 65,536th row nor the next is the first again."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"quick": [(0, 33), (3, 0), (2, 0, 5)]},
    source="docs/verdict.md, section 1: empty rows",
)
def test_nothing(evaluate):
    """No rows give no results; rows without entries give no probabilities, and -inf as their logsumexp."""
    evaluate()


@case(
    *ROW_OPS,
    family="two_heavy_ends",
    shapes={"smoke": [(6, 33)], "quick": [(2, 3, 130)]},
    layout="transposed",
    source=STRIDES,
)
def test_transposed(evaluate):
    """Rows whose entries lie far apart in memory have the same result."""
    evaluate()


@case(*ROW_OPS, family="two_heavy_ends", shapes={"quick": [(6, 33)]}, layout="strided", source=STRIDES)
def test_strided(evaluate):
    """Of a tensor that takes every second entry, the others are not read."""
    evaluate()


@case(
    *ROW_OPS,
    family="two_heavy_ends",
    shapes={"smoke": [(6, 33)], "quick": [(2, 3, 257)]},
    layout="padded",
    source=STRIDES,
)
def test_padded(evaluate):
    """Of a window of longer rows, at odd places in memory, the rest is not read."""
    evaluate()


@case(*ROW_OPS, family="normal", shapes={"quick": [(6, 33), (3, 4, 7)]}, layout="expanded", source=STRIDES)
def test_expanded(evaluate):
    """Rows with stride 0 are one row, seen several times."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"quick": [(33, 6)]},
    options={"dim": 0},
    layout="transposed",
    source=STRIDES,
)
def test_transposed_first_dim(evaluate):
    """Reducing over the dim that lies contiguous though it is not the last gives the same result."""
    evaluate()


@case(
    *ROW_OPS,
    family="normal",
    shapes={"quick": [(2, 7, 3, 5)]},
    options={"dim": 1},
    layout="channels_last",
    source="channels_last",
)
def test_channels_last(evaluate):
    """An inner dim of four, in an order of memory that is not that of the dims, is reduced like any other."""
    evaluate()
