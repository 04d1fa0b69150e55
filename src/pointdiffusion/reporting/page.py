"""One page of HTML that needs nothing but itself: no script, no request, light and dark, from a phone to paper."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --wash: #f5f6f8; --ink: #1c2330; --soft: #5b6575; --line: #d9dde3;
  --data: #2b74b3; --samples: #d5481f; --other: #7d48b0; --good: #2e7d4f; --bad: #b3402a; --dull: #8a94a3; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --wash: #1c222b; --ink: #e7eaef; --soft: #a3adbb;
  --line: #343c48; --data: #6fb1e6; --samples: #ff8763; --other: #b891e0; --good: #63c48b; --bad: #ff8f76;
  --dull: #7f8998; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.2rem clamp(0.9rem, 4vw, 2.5rem) 4rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: 0.6rem 0 0.2rem; letter-spacing: -0.01em; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 0.6rem; padding-top: 0.9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 0.4rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
a { color: var(--data); }
.soft, figcaption, .note { color: var(--soft); font-size: 0.88rem; }
.verdict { border-left: 0.35rem solid var(--dull); background: var(--wash); border-radius: 0 0.5rem 0.5rem 0;
  padding: 0.7rem 1.1rem; margin: 1rem 0; }
.verdict p { max-width: none; }
.verdict p:first-child { font-size: 1.12rem; font-weight: 600; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
nav ol { display: flex; flex-wrap: wrap; gap: 0.2rem 1.3rem; padding: 0; margin: 1rem 0 0; list-style: none;
  font-size: 0.95rem; }
.wide { overflow-x: auto; margin: 0.7rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.32rem 0.8rem 0.32rem 0; text-align: left; vertical-align: middle;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
td { max-width: 22rem; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.good, td.bad, td.dull { white-space: nowrap; }
td.good { color: var(--good); } td.bad { color: var(--bad); font-weight: 600; } td.dull { color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.2rem; }
.grid.large { grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.grid.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); }
figure { margin: 0; min-width: 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 9.5rem), 1fr)); gap: 0.4rem;
  max-width: 44rem; }
figure.one { max-width: 42rem; margin: 0.8rem 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
svg.sigma { width: 9rem; height: 1.1rem; }
.sigma .band { fill: var(--line); } .sigma .zero { stroke: var(--soft); } .sigma .good { fill: var(--good); }
.sigma .bad { fill: var(--bad); } .sigma .dull { fill: var(--dull); }
pre { background: var(--wash); border-radius: 0.5rem; padding: 0.8rem 1rem; overflow-x: auto; font-size: 0.84rem;
  line-height: 1.45; overflow-wrap: normal; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 0.9em; }
summary { cursor: pointer; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1rem; font-size: 0.9rem; margin: 0.6rem 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 0.4rem; } }
@media print { :root { --paper: #ffffff; --wash: #f5f6f8; --ink: #000000; --soft: #444444; --line: #cccccc;
  --data: #2b74b3; --samples: #d5481f; --other: #7d48b0; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  figure, tr, .verdict { break-inside: avoid; } h2, h3, p.soft { break-after: avoid; } a { color: inherit; }
  .wide { overflow: visible; } pre { white-space: pre-wrap; } }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Even if something slips in, a browser must not fetch it."""


def text(value: Any) -> str:
    """Return any value as text for a page: markup in it is shown, not obeyed."""
    return html.escape(str(value), quote=True)


def anchor(title: str) -> str:
    """Return the name by which a section is linked to."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def paragraph(sentence: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{kind}">{text(sentence)}</p>' if kind else f"<p>{text(sentence)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Iterable[int] = ()) -> str:
    """Return a table.

    Args:
        head: Names of the columns.
        rows: Cells, as texts; a pair (class, text) is a cell of that class, and `Markup` goes in as it is.
        numbers: Places of the columns that are set flush right.
    """
    right = set(numbers)

    def cell(place: int, value: Any) -> str:
        kind = "n" if place in right else ""
        if isinstance(value, tuple):
            kind, value = f"{kind} {value[0]}".strip(), value[1]
        inner = value if isinstance(value, Markup) else text(value)
        return f'<td class="{kind}">{inner}</td>' if kind else f"<td>{inner}</td>"

    top = "".join(f'<th scope="col"{" class=n" if k in right else ""}>{text(name)}</th>' for k, name in enumerate(head))
    body = "\n".join(f"<tr>{''.join(cell(k, value) for k, value in enumerate(row))}</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def picture(svg: str, caption: str = "", kind: str = "") -> str:
    """Return a picture with a caption."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f"<figure{f' class={kind}' if kind else ''}>{svg}{below}</figure>"


def grid(pictures: Iterable[str], kind: str = "") -> str:
    """Return pictures side by side, as many as there is room for."""
    return f'<div class="{f"grid {kind}".strip()}">\n' + "\n".join(pictures) + "\n</div>"


def sigma_bar(sigma: float, *, kind: str, most: float = 8.0) -> Markup:
    """Return a mark, of kind "good", "bad" or "dull", on a line of standard errors, the band within two shaded."""
    if sigma != sigma:  # not a number
        return Markup("")
    place = 60 + 50 * max(-1.0, min(1.0, sigma / most))
    shape = f'<circle cx="{place:.1f}" cy="6" r="4" class="{kind}"/>'
    band = 50 * 2 / most
    return Markup(
        f'<svg class="sigma" viewBox="0 0 120 12" role="img" aria-label="{sigma:.1f} standard errors">'
        f'<rect class="band" x="{60 - band:.1f}" y="1" width="{2 * band:.1f}" height="10" rx="2"/>'
        f'<line class="zero" x1="60" x2="60" y1="0" y2="12"/>{shape}</svg>'
    )


def page(title: str, lead: str, sections: Iterable[tuple[str, str]]) -> str:
    """Return the page.

    Args:
        title: What it is called.
        lead: HTML between title and table of contents.
        sections: Title and HTML of each.
    """
    kept = [(name, body) for name, body in sections if body]
    contents = "".join(f'<li><a href="#{anchor(name)}">{text(name)}</a></li>' for name, _ in kept)
    body = "\n".join(
        f'<section id="{anchor(name)}">\n<h2>{text(name)}</h2>\n{inner}\n</section>' for name, inner in kept
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{text(title)}</h1>\n{lead}\n"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>\n</header>\n<main>\n{body}\n</main>\n</body>\n</html>\n'
    )
