"""Draw the rooms of the package and the imports between them: `python tools/rooms.py` writes `docs/rooms.svg`.

The rooms and the imports are read by `tests/test_rooms.py`, which also fails where the picture is out of date. An arrow
points from a room to one that it imports from. Of all the arrows only those are drawn that do not follow from the
others (the transitive reduction), and a room stands on the highest floor that is below all rooms which import from it.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterable
from html import escape
from itertools import accumulate, pairwise
from math import inf
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "rooms.svg"

ROOMS = {
    "version": ("base", "which version this is"),
    "config": ("base", "settings, YAML in and out"),
    "runtime": ("base", "files, randomness, progress"),
    "contract": ("core", "denoiser(x, sigma)"),
    "noise": ("core", "noise schedules"),
    "networks": ("core", "parts of networks"),
    "exact": ("core", "mixtures, exact denoisers"),
    "denoisers": ("core", "of networks, or guided"),
    "solvers": ("core", "one step down the noise"),
    "sampling": ("core", "the loop, plans, SMC"),
    "likelihood": ("core", "density by the flow, bound"),
    "data": ("data", "named point sets"),
    "tabular": ("data", "columns and files"),
    "metrics": ("results", "distances and tests"),
    "visuals": ("results", "figures, animations"),
    "model": ("models", "a trained model of points"),
    "training": ("models", "losses, Lightning, fit"),
    "table_model": ("models", "a trained model of a table"),
    "diagnostics": ("results", "where errors come from"),
    "reporting": ("results", "the page about a run"),
    "estimator": ("faces", "scikit-learn"),
    "web": ("faces", "the browser and its server"),
    "cli": ("faces", "the command line"),
}
"""Kind of each room, which is its colour, and what it holds."""
COLOURS = {
    "base": "#e8eaed", "core": "#d6e6fb", "data": "#fdebc8", "models": "#d8f0dd", "results": "#f3ddf5",
    "faces": "#fbdcd8",
}  # fmt: skip
WIDTH, HEIGHT, GAP, FLOOR, MARGIN = 196, 46, 22, 96, 24

Arrows = dict[str, set[str]]


def arrows_between_rooms() -> Arrows:
    """Return for each room those that it imports from; `__main__` is left out."""
    house = runpy.run_path(str(ROOT / "tests" / "test_rooms.py"))
    room_of, imported_modules = house["room_of"], house["imported_modules"]
    arrows: Arrows = {room: set() for room in ROOMS}
    for module in house["MODULES"]:
        room = room_of(module)
        if room != "__main__":
            arrows[room] |= {room_of(name) for name in imported_modules(module)} - {room}
    return arrows


def reduced(arrows: Arrows) -> Arrows:
    """Return the arrows without those that follow from others."""

    def reached(starts: Iterable[str]) -> set[str]:
        starts = set(starts)
        return starts.union(*(reached(arrows[start]) for start in starts))

    return {room: {end for end in ends if end not in reached(ends - {end})} for room, ends in arrows.items()}


def floors_of(arrows: Arrows) -> dict[str, int]:
    """Return the floor of each room, the ground is 0: as high as possible below the rooms that import from it."""
    users = {room: [user for user, ends in arrows.items() if room in ends] for room in arrows}

    def depth(room: str) -> int:
        return 1 + max((depth(user) for user in users[room]), default=-1)

    depths = {room: depth(room) for room in arrows}
    return {room: max(depths.values()) - below for room, below in depths.items()}


class Plan:
    """Rooms and the bends of long arrows, floor by floor, in an order that lets few arrows cross.

    Args:
        arrows: The arrows to draw.
        floors: Floor of each room.
    """

    def __init__(self, arrows: Arrows, floors: dict[str, int]) -> None:
        self.rows: list[list[str]] = [[] for _ in range(max(floors.values()) + 1)]
        for room in floors:
            self.rows[floors[room]].append(room)
        self.chains: list[list[str]] = []  # each arrow from its start over its bends to its end
        for start, ends in arrows.items():
            for end in sorted(ends):
                bends = [f"{start} {end} {floor}" for floor in range(floors[start] - 1, floors[end], -1)]
                for bend in bends:
                    self.rows[int(bend.split()[-1])].append(bend)
                self.chains.append([start, *bends, end])
        self.links = [(a, b) for chain in self.chains for a, b in pairwise(chain)]
        while self._improve():
            pass

    def _apart(self, left: str, right: str) -> float:
        """Return how far the middles of two neighbours on a floor must be apart; bends are narrow."""
        return GAP + sum(WIDTH / 2 for place in (left, right) if place in ROOMS)

    def _evenly(self) -> dict[str, float]:
        """Return the horizontal middle of each room and bend, as close as they may be, each floor centred about 0."""
        middles: dict[str, float] = {}
        for row in self.rows:
            x = [0.0, *accumulate(self._apart(*pair) for pair in pairwise(row))]
            middles |= {place: value - x[-1] / 2 for place, value in zip(row, x, strict=True)}
        return middles

    def middles(self) -> dict[str, float]:
        """Return the middles with arrows as straight as the order on each floor allows."""
        x = self._evenly()
        for _ in range(200):
            for row in self.rows:
                for k, place in enumerate(row):
                    low = x[row[k - 1]] + self._apart(row[k - 1], place) if k else -inf
                    high = x[row[k + 1]] - self._apart(place, row[k + 1]) if k + 1 < len(row) else inf
                    beside = [x[a if b == place else b] for a, b in self.links if place in (a, b)]
                    x[place] = min(max(sum(beside) / len(beside), low), high)
        return x

    def cost(self) -> float:
        """Return how hard the picture is to read: crossings of arrows, and how far they run sideways."""
        x = self._evenly()
        floor = {place: k for k, row in enumerate(self.rows) for place in row}
        crossings = sum(
            floor[a] == floor[c] and (x[a] - x[c]) * (x[b] - x[d]) < 0
            for k, (a, b) in enumerate(self.links)
            for c, d in self.links[:k]
        )
        return 300 * crossings + sum(abs(x[a] - x[b]) for a, b in self.links)

    def _improve(self) -> bool:
        """Move one room or bend along its floor, to where it lowers the cost most; return whether any did."""
        best, change = self.cost() - 1e-9, None
        for k, row in enumerate(self.rows):
            for i, place in enumerate(row):
                rest = row[:i] + row[i + 1 :]
                for j in range(len(row)):
                    self.rows[k] = [*rest[:j], place, *rest[j:]]
                    if (cost := self.cost()) < best:
                        best, change = cost, (k, self.rows[k])
            self.rows[k] = row
        if change:
            self.rows[change[0]] = change[1]
        return change is not None


def svg(arrows: Arrows) -> str:
    """Return the picture."""
    drawn, floors = reduced(arrows), floors_of(arrows)
    plan = Plan(drawn, floors)
    x = plan.middles()
    left = min(x.values()) - WIDTH / 2 - MARGIN
    width = max(x.values()) + WIDTH / 2 + MARGIN - left
    height = 2 * MARGIN + HEIGHT + FLOOR * (len(plan.rows) - 1)
    top = {place: MARGIN + FLOOR * (len(plan.rows) - 1 - k) for k, row in enumerate(plan.rows) for place in row}

    def arrow(chain: list[str]) -> str:
        """Return the path of an arrow: out of the bottom of a room, straight through the floors it passes."""
        path = f"M{x[chain[0]] - left:.0f} {top[chain[0]] + HEIGHT}"
        for above, place in pairwise(chain):
            start, end = top[above] + HEIGHT, top[place]
            middle = (start + end) // 2
            path += f"C{x[above] - left:.0f} {middle} {x[place] - left:.0f} {middle} {x[place] - left:.0f} {end}"
            path += "" if place in ROOMS else f"v{HEIGHT}"
        return f'<path d="{path}" marker-end="url(#tip)"/>'

    def box(room: str) -> str:
        kind, text = ROOMS[room]
        middle = x[room] - left
        return (
            f'<rect x="{middle - WIDTH / 2:.0f}" y="{top[room]}" width="{WIDTH}" height="{HEIGHT}" rx="7" '
            f'fill="{COLOURS[kind]}"/>'
            f'<text x="{middle:.0f}" y="{top[room] + 19}" font-weight="600">{escape(room)}</text>'
            f'<text x="{middle:.0f}" y="{top[room] + 36}" font-size="12" fill="#444">{escape(text)}</text>'
        )

    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" font-size="15">',
            "<style>text { font-family: system-ui, sans-serif; text-anchor: middle }</style>",
            "<title>The rooms of pointdiffusion; an arrow leads from a room to one that it imports from</title>",
            '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
            '<path d="M0 0L8 4L0 8z" fill="#777"/></marker>',
            '<rect width="100%" height="100%" rx="10" fill="#fff"/>',
            '<g fill="none" stroke="#777" stroke-width="1.3">',
            *(arrow(chain) for chain in plan.chains),
            "</g>",
            *(box(room) for room in ROOMS),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(arrows_between_rooms()), encoding="utf-8")
