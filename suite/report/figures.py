"""matplotlib figures as inline SVG for report.html: the same bytes every time, readable on a light
and on a dark page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#000000"
"""What a figure draws in black (text, axes, lines of color "black") takes the colour of the page's text."""
STYLE = "fill: currentColor; stroke-linejoin: round; stroke-linecap: butt"


P = ParamSpec("P")


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
