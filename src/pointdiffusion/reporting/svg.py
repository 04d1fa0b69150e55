"""Figures of matplotlib as SVG within HTML, in the colours and fonts of the page, with rasterised points.

Colours of a figure are replaced by variables of the style sheet, so that one figure suits light and dark backgrounds.
Rasterised artists keep their colour, which is therefore chosen to stand out from both.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Callable
from typing import Any

DATA_COLOUR, SAMPLES_COLOUR, OTHER_COLOUR = "#3f88c5", "#e4572e", "#8e5bbf"
"""Blue, red and violet that stand out from white and from black."""

VARIABLES = {
    "#000000": "--ink", "#1a1a1a": "--ink", "#333333": "--soft", "#595959": "--soft", "#808080": "--soft",
    "#b0b0b0": "--line", "#cccccc": "--line", "#e6e6e6": "--line", "#ebebeb": "--line", "#ffffff": "--paper",
    "#3f88c5": "--data", "#1f6fb4": "--data", "#e4572e": "--samples", "#d62728": "--samples", "#8e5bbf": "--other",
}  # fmt: skip
"""Variable of the style sheet by colour of a figure."""


def inline_svg(draw: Callable[[Any], None], *, size: tuple[float, float], label: str, dpi: int = 130) -> str:
    """Return a figure as an SVG element for a page, the same bytes for the same figure.

    Args:
        draw: Function that draws on an empty figure of matplotlib.
        size: Width and height in inches; the page scales it to the available width.
        label: Description for screen readers; text of it and of the figure is escaped.
        dpi: Resolution of rasterised artists.

    Returns:
        The element as HTML, which is safe to insert.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    style = {
        "svg.fonttype": "none", "svg.hashsalt": hashlib.sha256(label.encode()).hexdigest()[:12],
        "text.parse_math": False, "font.family": ["DejaVu Sans"], "font.size": 8.0, "axes.titlesize": 8.5,
        "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
        "ytick.major.size": 2.5, "axes.unicode_minus": True,
    }  # fmt: skip
    buffer = io.StringIO()
    with mpl.rc_context({**mpl.rcParamsDefault, **style}):
        figure = Figure(figsize=size, dpi=dpi, layout="constrained")
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        draw(figure)
        for ax in figure.axes:
            ax.patch.set_visible(False)
            for axis in (ax.xaxis, ax.yaxis):
                # Powers of ten would be set as formulas, which are off: no name is to be read as one.
                if axis.get_scale() == "log":
                    low, high = axis.get_view_interval()
                    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
                    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                    axis.set_minor_formatter(NullFormatter())
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _for_page(buffer.getvalue(), label)


def _for_page(text: str, label: str) -> str:
    """Return an SVG file as part of a page: no prolog, no metadata, no fixed size, variables for colours."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    name = html.escape(label, quote=True)
    body = body.replace("xlink:href=", "href=")
    used = set(re.findall(r"#([\w.-]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda match: _variable(match[0]), body)
    body = re.sub(r"font: (?:[0-9]+ )?([0-9.]+px)[^;\"]*", r"font-size: \1", body)
    return f'<svg role="img" aria-label="{name}" {box[0] if box else ""}>{body}'.rstrip()


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour
