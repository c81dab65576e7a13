"""matplotlib figures as inline SVG for report.html: the same bytes every time, readable on a light
and on a dark page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec

from markupsafe import Markup

from suite.report.words import shortened, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#000000"
"""What a figure draws in black (text, axes, lines of color "black") takes the colour of the page's text."""
STYLE = "fill: currentColor; stroke-linejoin: round; stroke-linecap: butt"


COLORS = ("#3b82c4", "#d9822b", "#2e9e6b", "#b5559a", "#7a6fd0", "#c2564b")
GRAY = "#888888"
"""What has no colour of its own, and what theory says."""

P = ParamSpec("P")


def figure_of(
    width: float, height: float, *, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of so many inches, and its panels by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [list(row) for row in figure.subplots(rows, columns, squeeze=False)]


def dress(axes: Axes, x: str = "", y: str = "", *, title: str = "", letters: float = 8) -> None:
    """Labels, their size, and no frame but the two axes."""
    axes.set_xlabel(x, fontsize=letters)
    axes.set_ylabel(y, fontsize=letters)
    if title:
        axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=letters)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(
    figure: Figure, entries: Sequence[tuple[str, dict[str, Any]]], *, columns: int, letters: float = 8
) -> None:
    """A legend of (label, how its line looks) below all panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **look, label=literal(label)) for label, look in entries]
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, fontsize=letters, frameon=False)


def names_in_legend(names: Sequence[str]) -> str:
    """The ends of some names and the number of the others: the table lists all."""
    return literal(some([shortened(name) for name in names]))


def drawn(draw: Callable[P, Markup | None], *arguments: P.args, **named: P.kwargs) -> Markup | None:
    """The figure, or None where its numbers cannot be drawn: measurements come from strangers, and
    axes have their limits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # numpy's, of an overflow
        try:
            return draw(*arguments, **named)
        except (ValueError, ArithmeticError, RuntimeWarning):
            return None


def literal(text: str) -> str:
    """A text that matplotlib draws as it stands: no mathematics between dollars, and in the legend
    whatever it begins with.
    """
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def inline_svg(figure: Figure, *, title: str) -> Markup:
    """The figure as one <svg> element to stand in HTML: no header, no date, a transparent
    background, text as text.

    figure: made as matplotlib.figure.Figure(figsize=..., layout="constrained"), never by pyplot,
    which keeps global state.
    title: what the figure shows, for readers who cannot see it; figures on one page need different
    titles, for their ids.
    """
    import matplotlib

    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
        legend = axes.get_legend()
        if legend is not None:
            legend.get_frame().set_visible(False)
    text = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.sans-serif": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's own font draws the text
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=metadata)
    return Markup(_inline(text.getvalue(), title))


def _inline(svg: str, title: str) -> str:
    """A stand-alone SVG file's text as an element: only ids that something refers to, since a page
    holds several.
    """
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace("xlink:href", "href")
    svg = svg.replace("font-family: 'DejaVu Sans', sans-serif; ", "")  # the page's own font
    svg = re.sub(r' transform="rotate\(-0 [^"]*"|<!--.*?-->|<style.*?</style>', "", svg, flags=re.DOTALL)
    used = set(re.findall(r'#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    head, _, body = svg.partition(">")
    width, height = (float(n) for n in re.findall(r'\b(?:width|height)="([\d.]+)pt"', head))
    box = (
        f'viewBox="0 0 {width:g} {height:g}" style="width: {width:g}pt; max-width: 100%; height: auto;'
        f' {STYLE}"'
    )
    opening = f'<svg role="img" {box}>\n<title>{escape(title)}</title>'
    return opening + re.sub(r"\s*\n\s*", "\n", body).strip()
