"""Layouts: the same values at other places in memory. A kernel reads what the strides say, or reads
something else.
"""

from __future__ import annotations

from typing import Any

from suite.settings import Kind, Part, Wording

LAYOUTS = ("contiguous", "transposed", "strided", "padded", "expanded", "channels_last")


class Layout(Kind):
    """The layout of an op's arguments."""

    name = "layout"
    part = Part.INPUT
    default = "contiguous"
    levels = LAYOUTS
    wordings = (Wording("layout", "strd", "other memory layout", "with tensors that are not contiguous"),)


LAYOUT = Layout()


def arrange(tensor: Any, layout: str) -> Any:
    """The tensor in this layout: equal values and shape, other strides or storage offset; NaN lies
    between the entries.

    transposed: the last dim varies slowest. strided: every second entry of a longer last dim.
    padded: a window of longer rows, which begin at odd places. channels_last: the second dim varies
    fastest. expanded: one slice of the first dim with stride 0, so all slices must be equal; NaN
    where the others would be. Raises ValueError for an unknown layout.
    """
    LAYOUT.check_level(layout)
    *others, n = tensor.shape
    if layout == "transposed":
        reverse = tuple(range(tensor.ndim - 1, -1, -1))
        return tensor.permute(reverse).contiguous().permute(reverse)
    if layout == "strided":
        return _inside(tensor, (*others, 2 * n + 1), slice(1, None, 2))
    if layout == "padded":
        return _inside(tensor, (*others, n + 5), slice(3, 3 + n))
    if layout == "channels_last":
        return tensor.movedim(min(1, tensor.ndim - 1), -1).contiguous().movedim(-1, min(1, tensor.ndim - 1))
    if layout == "expanded":
        window = tensor.new_full(tensor.shape, float("nan"))
        window[:1] = tensor[:1]
        return window[:1].expand(tensor.shape)
    return tensor


def _inside(tensor: Any, shape: tuple[int, ...], place: slice) -> Any:
    nothing = float("nan") if tensor.is_floating_point() else -(2**31)
    window = tensor.new_full(shape, nothing)[..., place]
    return window.copy_(tensor)
