"""Rendering of the report: templates, and the few types that they know.

The page contains its style sheet and its plots, and loads nothing: no script, no request, light and dark, from a phone
to paper. Everything is escaped but the plots and the style sheet, which are marked `safe` in the templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jinja2 import Environment


class Cell(NamedTuple):
    """A cell of a table with a class of the style sheet: "good", "bad" or "dull"."""

    text: str
    kind: str


class SigmaBar(NamedTuple):
    """A cell of a table that draws a number of standard errors on a line, with the band within two shaded."""

    sigma: float
    kind: str

    @property
    def x(self) -> float:
        """Coordinate of the mark on a line from 10 to 110, which stand for -8 and 8 standard errors."""
        return 60 + 50 * max(-1.0, min(1.0, self.sigma / 8))


class Section(NamedTuple):
    """A section of the page.

    Args:
        title: Its title.
        template: Name of its template in `templates/sections`, without ending.
        context: Values for the template; None leaves the section out.
    """

    title: str
    template: str
    context: Mapping[str, Any] | None


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the environment of the templates, which escapes by default and refuses undefined names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("pointdiffusion.reporting")
    result = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    result.globals["style"] = loader.get_source(result, "style.css")[0]
    result.filters |= {"anchor": anchor, "fmt": format}
    result.tests |= {"cell": lambda x: isinstance(x, Cell), "sigma_bar": lambda x: isinstance(x, SigmaBar)}
    return result


def anchor(title: str) -> str:
    """Return the identifier that a section is linked by."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def render(title: str, lead: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
        title: Title of the page.
        lead: Values for the template of the summary at the top.
        sections: The sections in their order.

    Returns:
        HTML, a whole document.
    """
    templates = environment()
    shown = [
        (section.title, templates.get_template(f"sections/{section.template}.html").render(section.context))
        for section in sections
        if section.context is not None
    ]
    return templates.get_template("page.html").render(title=title, lead=lead, sections=shown)
