"""The page in a real browser: from disk, with the network off, every feature by clicks and keys."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from test_web_export import POINTS, make_model

import pointdiffusion as ptd
from pointdiffusion.model.conditions import Conditions
from pointdiffusion.networks import default_network
from pointdiffusion.web.export import export_page
from pointdiffusion.web.export import page as page_text

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
REQUIRED = os.environ.get("PLAYGROUND_BROWSER") == "required"
if not CHROMIUM and not REQUIRED:
    pytest.skip("NO CHROMIUM HERE: THE PAGE IS NOT TESTED; install the package chromium", allow_module_level=True)
if not REQUIRED:
    pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT HERE: THE PAGE IS NOT TESTED; run `make test`")

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "src" / "pointdiffusion" / "web" / "playground.html"
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SMALL = "n=60&samples=80&a.steps=6&t=1"

VIEWS = [
    {"viewport": {"width": width, "height": height}, "color_scheme": theme}
    for width, height in ((1280, 860), (360, 780), (3840, 2160)) for theme in ("light", "dark")
]  # fmt: skip
"""Sizes and themes that tests take in turn; PLAYGROUND_VIEW=0 to 5 pins one for all of them."""

ORDINARY: dict[str, Any] = VIEWS[0]
"""For what depends on how fast pictures are drawn: without a GPU, 4K is not."""

Open = Callable[..., Page]


def view_of(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return size and theme of a test."""
    pinned = os.environ.get("PLAYGROUND_VIEW")
    return VIEWS[zlib.crc32(request.node.name.encode()) % len(VIEWS) if pinned is None else int(pinned)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open the page from disk; afterwards nothing may have been asked of a network, and no error written."""
    contexts, wrong = [], []

    def start(state: str = SMALL, file: Path = FILE, **options: Any) -> Page:
        context = browser.new_context(**{**view_of(request), "offline": True, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("request", lambda request: local(request.url) or wrong.append(request.url))
        tab.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(file.as_uri() + (f"#{state}" if state else ""))
        settle(tab)
        return tab

    yield start
    for context in contexts:
        context.close()
    assert wrong == []


def local(url: str) -> bool:
    return url.split(":")[0] in ("file", "blob", "data")


def settle(tab: Page, limit: float = 120.0) -> None:
    """Wait until all is computed and drawn."""
    until = time.monotonic() + limit
    tab.wait_for_timeout(80)  # changes of a moment are gathered for 40 ms
    while tab.evaluate("!window.playground || playground.app.busy"):
        assert time.monotonic() < until, "the page computes without end"
        tab.wait_for_timeout(40)
    tab.wait_for_timeout(60)


def state(tab: Page, name: str) -> Any:
    return tab.evaluate("name => playground.app.state[name]", name)


def points(tab: Page, panel: str = "a", step: int = -1) -> NDArray[np.float64]:
    """Return the points of a panel at a step of its walk, (B, D)."""
    found = tab.evaluate(
        """([panel, step]) => {
        const w = playground.app.walked[panel], k = step < 0 ? w.sigmas.length + step : step, n = w.count * w.dims;
        return [w.dims, [...w.points.slice(k * n, (k + 1) * n)]]; }""",
        [panel, step],
    )
    return np.array(found[1]).reshape(-1, found[0])


def data(tab: Page) -> NDArray[np.float64]:
    return np.array(tab.evaluate("[...playground.app.data.values]")).reshape(-1, 2)


def picture(tab: Page, panel: str = "a") -> NDArray[np.uint8]:
    """Return what is to be seen of a panel."""
    tab.mouse.move(2, 2)
    image = Image.open(io.BytesIO(tab.locator(f"#panel-{panel} .picture").screenshot()))
    return np.asarray(image.convert("RGB")).astype(int)


def slide(tab: Page, name: str, *keys: str) -> None:
    tab.focus(f"[id='c-{name}']")
    for key in keys:
        tab.keyboard.press(key)


def drag(tab: Page, start: tuple[float, float], end: tuple[float, float], panel: str = "a") -> None:
    """Drag the mouse over a picture, by shares of its width and height."""
    tab.locator(f"#canvas-{panel}").evaluate("canvas => canvas.scrollIntoView({ block: 'start' })")
    box = tab.locator(f"#canvas-{panel}").bounding_box()
    assert box is not None
    at = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end)]
    tab.mouse.move(*at[0])
    tab.mouse.down()
    tab.mouse.move(*at[1], steps=12)
    tab.mouse.up()


# --------------------------------------------------------------------------------------------------------- the opening


def test_it_opens_with_something_moving(open_page: Open) -> None:
    tab = open_page("", **ORDINARY)
    before, first = state(tab, "t"), picture(tab)
    tab.wait_for_function("before => playground.app.state.t > before + 0.05", arg=before)
    assert state(tab, "t") <= 1
    assert (np.abs(picture(tab) - first) > 30).any(axis=2).sum() > 200


def test_reduced_motion_shows_the_end_and_stands_still(open_page: Open) -> None:
    tab = open_page("", reduced_motion="reduce")
    assert state(tab, "t") == 1
    tab.wait_for_timeout(200)
    assert tab.get_attribute("#play", "aria-pressed") == "false"


@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 860), (3840, 2160)])
def test_every_size_and_theme(open_page: Open, width: int, height: int) -> None:
    """Nothing sticks out, the picture is whole, colours differ by theme, and axe finds nothing to complain of."""
    tab = open_page(SMALL + "&compare=1&b.steps=4", viewport={"width": width, "height": height}, color_scheme="light")
    box = tab.locator("#canvas-a").bounding_box()
    assert box is not None
    assert min(width - 60, 400) <= box["width"] <= height
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)
        tab.wait_for_timeout(100)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == {
            "light": "rgb(244, 242, 236)", "dark": "rgb(12, 16, 21)"}[theme]  # fmt: skip
        assert (picture(tab).mean() < 100) == (theme == "dark")
        if AXE.exists():
            assert axe(tab) == []
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run `npm ci` in web/")


def axe(tab: Page) -> list[Any]:
    # The page forbids scripts that are not its own, so axe is brought in by the debugger.
    session = tab.context.new_cdp_session(tab)
    session.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    call = "axe.run(document).then(found => JSON.stringify(found.violations))"
    asked = {"expression": call, "awaitPromise": True, "returnByValue": True}
    found = json.loads(session.send("Runtime.evaluate", asked)["result"]["value"])
    return [(each["id"], [node["html"][:90] for node in each["nodes"]]) for each in found]


# ---------------------------------------------------------------------------------------------------------------- data


def test_a_dozen_shapes_with_noise_count_and_seed(open_page: Open) -> None:
    tab = open_page()
    buttons = tab.locator(".shapes button")
    assert buttons.count() == 12
    seen = set()
    for i in range(12):
        buttons.nth(i).click()
        settle(tab)
        assert tab.evaluate("playground.app.walked.a.count") == 80
        seen.add(data(tab).tobytes())
    assert len(seen) == 12
    tab.keyboard.press("ArrowRight")  # from the last around to the first
    assert state(tab, "shape") == "swiss-roll"
    before = data(tab)
    slide(tab, "noise", "ArrowRight", "ArrowRight")
    assert 0 < np.abs(data(tab) - before).max() < 0.1
    tab.click("[data-name=seed] .dice")
    assert np.abs(data(tab) - before).max() > 0.5
    slide(tab, "n", "ArrowRight")
    assert len(data(tab)) > 60


def test_drawing_by_mouse_with_undo_redo_and_a_link(open_page: Open) -> None:
    tab = open_page()
    tab.click(".edit .plain")
    assert len(data(tab)) == 0
    assert "no points" in tab.inner_text(".banner")
    tab.click(".chip[data-tool=spray]")
    drag(tab, (0.2, 0.2), (0.3, 0.2))
    sprayed = len(data(tab))
    assert sprayed > 20
    assert (data(tab)[:, 0] < 0).all()
    tab.click(".brush-1")
    tab.click(".chip[data-tool=line]")
    drag(tab, (0.6, 0.8), (0.9, 0.8))
    line = data(tab)[sprayed:]
    assert len(line) > 10
    assert np.ptp(line[:, 1]) < 0.05
    drawn = len(data(tab))
    tab.click(".chip[data-tool=erase]")
    drag(tab, (0.25, 0.2), (0.26, 0.2))
    assert len(data(tab)) < drawn
    tab.click("[aria-label=Undo]")
    assert len(data(tab)) == drawn
    tab.click("[aria-label=Redo]")
    assert len(data(tab)) < drawn
    tab.click("[aria-label=Undo]")
    settle(tab)
    tab.click("summary:has-text('Share')")
    tab.click("#share-link")
    link = tab.input_value("#link")
    again = open_page(link.partition("#")[2])
    assert np.abs(data(again) - data(tab)).max() < 8 / 4095
    assert again.evaluate("[...playground.app.data.labels]") == tab.evaluate("[...playground.app.data.labels]")
    assert len(points(again)) == 80


def test_drawing_by_keys(open_page: Open) -> None:
    tab = open_page(SMALL + "&shape=twenty-five-gaussians")  # one of them in the middle
    tab.click(".chip[data-tool=erase]")
    tab.focus("#canvas-a")
    for key in ("ArrowLeft", "ArrowRight", " "):
        tab.keyboard.press(key)
    assert len(data(tab)) < 60
    assert (np.linalg.norm(data(tab), axis=1) > 0.3).all()
    tab.click(".chip[data-tool=spray]")
    before = len(data(tab))
    tab.focus("#canvas-a")
    tab.keyboard.press("Enter")
    assert len(data(tab)) == before + 6
    tab.evaluate("playground.app.drawing.add(Array.from({ length: 6000 }, (_, i) => (i % 100) / 50 - 1))")
    settle(tab)
    assert "2000 points, the most there can be" in tab.inner_text("#data")


HOSTILE = "<img src=x onerror=document.title='run'>"


def test_a_table_is_looked_at_and_its_columns_are_picked(open_page: Open) -> None:
    tab = open_page()
    rng = np.random.default_rng(0)
    rows = "\n".join(f"{a:.4f};{b:.4f};{'yes' if a > 0 else 'no'}" for a, b in rng.normal(size=(90, 2)) * [3, 40])
    give(tab, "table.csv", f"{HOSTILE};weight;smokes\n{rows}\n".encode())
    assert "90 rows, 3 columns" in tab.inner_text(".upload-body")
    assert HOSTILE in tab.inner_text(".preview")  # shown, not run
    tab.select_option("#column-x", label="weight")
    tab.select_option("#column-y", label=HOSTILE)
    tab.select_option("#column-class", label="smokes")
    tab.click("#use")
    settle(tab)
    np.testing.assert_allclose([data(tab).mean(), data(tab).std()], [0, 1], atol=1e-6)
    assert tab.evaluate("new Set(playground.app.data.labels).size") == 2
    assert "Your own 90" in tab.inner_text("#data")
    assert tab.title() != "run"


def test_an_array_of_numpy_is_read(open_page: Open) -> None:
    tab = open_page()
    table = np.asfortranarray(np.random.default_rng(1).normal(size=(70, 3)).astype(">f4"))
    buffer = io.BytesIO()
    np.save(buffer, table)
    give(tab, "points.npy", buffer.getvalue())
    tab.click("#use")
    expected = (table[:, :2].astype(float) - table[:, :2].mean(axis=0)) / table[:, :2].astype(float).std(axis=0)
    np.testing.assert_allclose(data(tab), expected, atol=1e-5)


NO_TABLES = [
    ("a.csv", b"", "is empty"),
    ("a.csv", b"x,y\n", "no rows"),
    ("a.csv", b"x,y\n1,2\n3\n", "Line 3 has 1 cells, the first line 2"),
    ("a.csv", b"x\n1\n2\n", "two columns"),
    ("a.csv", b"\xff\xfe\x00\x01" * 20, "neither text"),
    ("a.npy", b"no array", "whole .npy"),
    ("a.csv", b",".join(b"x%d" % i for i in range(65)) + b"\n", "more than 64 columns"),
]


def test_what_is_no_table_is_told_in_one_sentence(open_page: Open) -> None:
    tab = open_page()
    tab.click("#upload")
    for name, content, said in NO_TABLES:
        tab.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": content})
        tab.wait_for_timeout(80)
        assert said in tab.inner_text(".error")
        assert tab.locator("#use").count() == 0


def test_a_cell_that_is_no_number_is_named(open_page: Open) -> None:
    tab = open_page()
    give(tab, "a.csv", b"x,y\n1,2\n3,oops\n5,6\n")
    tab.click("#use")
    assert tab.inner_text(".error") == (
        "Column “y” holds “oops” in row 2, which is no number; choose another column or mend the row."
    )


def give(tab: Page, name: str, content: bytes) -> None:
    tab.click("#upload")
    tab.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": content})
    tab.wait_for_timeout(150)


# ---------------------------------------------------------------------------------------------------------------- time


RATE = """async () => {
  const now = () => [playground.app.state.t, performance.now()], start = now();
  let last = start;
  while (last[0] <= start[0] || last[1] < start[1] + 300) {
    await new Promise(requestAnimationFrame);
    last = now();
  }
  document.getElementById('play').click();
  return (last[0] - start[0]) / (last[1] - start[1]);
}"""
"""Let time move for a third of a second, stop it, and return by how much it moved in a millisecond of the page."""


def test_time_by_keys_buttons_and_speed(open_page: Open) -> None:
    tab = open_page(**ORDINARY)
    stops = tab.evaluate("playground.app.stops()")
    tab.keyboard.press("Home")
    assert state(tab, "t") == 0
    tab.keyboard.press("ArrowRight")
    assert state(tab, "t") == pytest.approx(stops[1])
    tab.keyboard.press("ArrowLeft")
    assert state(tab, "t") == 0
    tab.keyboard.press("End")
    assert state(tab, "t") == 1
    tab.click("#time-first")
    assert state(tab, "t") == 0
    moved = {}
    for speed in ("0.25", "4"):
        tab.click("#time-first")
        tab.select_option("#speed", speed)
        tab.click("#play")
        moved[speed] = tab.evaluate(RATE)
    assert moved["4"] > 5 * moved["0.25"] > 0
    tab.focus("#time")
    tab.keyboard.press(" ")
    assert tab.get_attribute("#play", "aria-pressed") == "true"


# -------------------------------------------------------------------------------------------------------------- layers


def test_each_layer_is_drawn_when_switched_on(open_page: Open) -> None:
    tab = open_page(f"{SMALL.replace('t=1', 't=0.6')}&shape=moons&data=0&points=0&contours=0")
    empty = picture(tab)
    for layer in ("data", "points", "trails", "contours", "field", "grid", "nearest"):
        tab.click(f"#c-{layer}")
        settle(tab)
        tab.wait_for_timeout(150)
        assert (np.abs(picture(tab) - empty) > 12).any(axis=2).sum() > 60, layer
        assert tab.get_attribute(f"#c-{layer}", "aria-pressed") == "true"
        tab.click(f"#c-{layer}")
        settle(tab)
        assert (np.abs(picture(tab) - empty) > 12).any(axis=2).sum() == 0, layer
    tab.click("#c-points")
    tab.wait_for_timeout(60)
    plain = picture(tab)
    tab.click("#c-classes")
    tab.wait_for_timeout(60)
    assert (np.abs(picture(tab) - plain) > 60).any(axis=2).sum() > 60


def test_what_cannot_be_shown_cannot_be_switched_on(open_page: Open) -> None:
    """One class has no colours to tell."""
    tab = open_page("shape=heart&" + SMALL)
    assert tab.is_disabled("#c-classes")
    assert tab.is_hidden("#conditions")


# ------------------------------------------------------------------------------------------------------------- compare


def test_two_panels_walk_from_the_same_noise(open_page: Open) -> None:
    tab = open_page(SMALL)
    tab.click("#c-compare")
    tab.select_option("[id='c-b.solver']", "auto")
    slide(tab, "b.steps", "ArrowRight")
    settle(tab)
    np.testing.assert_array_equal(points(tab, "a", 0), points(tab, "b", 0))
    assert figure(tab, "a", "nfe") == "11"  # Heun, six steps, the last of one evaluation
    assert figure(tab, "b", "nfe") == "9"
    assert abs(points(tab, "a") - points(tab, "b")).max() > 1e-3
    for panel in "ab":
        assert float(figure(tab, panel, "w2")) > 0
        assert float(figure(tab, panel, "error")) > 0
        assert "fresh points" in tab.inner_text(f"#panel-{panel} [data-figure=w2] .beside")
    tried = tab.locator("#plot .series path").count()
    assert tried >= 2
    tab.select_option("[id='c-b.solver']", "angular-3")
    settle(tab)
    assert tab.locator("#plot .series path").count() == tried + 1  # it grows


def figure(tab: Page, panel: str, name: str) -> str:
    return tab.inner_text(f"#panel-{panel} [data-figure={name}] .value")


def test_figures_are_what_the_library_says(open_page: Open) -> None:
    """W2 of the same points by SciPy's assignment; the share of copies by its tree."""
    tab = open_page("shape=moons&n=120&samples=120&a.steps=5&t=1")
    found, known = tab.evaluate("playground.app.figures.a"), data(tab)
    assert found["w2"] == pytest.approx(ptd.wasserstein2(points(tab), known), rel=1e-4)
    spacing = np.array([np.sort(np.linalg.norm(known - row, axis=1))[1] for row in known]).mean()
    assert found["copies"] == pytest.approx(ptd.copy_share(points(tab), known, 0.1 * spacing), abs=1e-9)


def test_every_solver_and_schedule_walks(open_page: Open) -> None:
    tab = open_page("n=30&samples=20&a.steps=8&t=1&contours=0")
    solvers = tab.evaluate("[...document.getElementById('c-a.solver').options].map(option => option.value)")
    assert set(solvers) == {"auto", *ptd.SOLVERS}
    ends = {}
    for kind, names in (("solver", solvers), ("schedule", list(ptd.SCHEDULES))):
        for name in names:
            tab.select_option(f"[id='c-a.{kind}']", name)
            until = time.monotonic() + 60
            key = f"playground.app.busy || !playground.app.walked.a || playground.app.state['a.{kind}'] !== '{name}'"
            tab.wait_for_timeout(60)
            while tab.evaluate(key):
                assert time.monotonic() < until, f"{name} computes without end"
                tab.wait_for_timeout(15)
            ends[name] = points(tab)
            assert np.isfinite(ends[name]).all()
            assert np.abs(ends[name]).max() < 4, name
        tab.select_option("[id='c-a.solver']", "euler")
    assert len({end.tobytes() for end in ends.values()}) > 0.8 * len(ends)  # some differ by rounding alone


# ---------------------------------------------------------------------------------------------------------------- drag


def test_a_dragged_point_shows_its_path(open_page: Open) -> None:
    tab = open_page(SMALL.replace("t=1", "t=0.5"))
    before = picture(tab)
    drag(tab, (0.3, 0.3), (0.8, 0.7))
    tab.wait_for_timeout(200)
    x, y = map(float, state(tab, "probe").split(","))
    assert x == pytest.approx(0.6 * 2.8, abs=0.03)
    assert y == pytest.approx(-0.4 * 2.8, abs=0.03)
    path = np.array(tab.evaluate("[...playground.app.paths.a.points]")).reshape(-1, 2)
    np.testing.assert_allclose(path[0], np.array([x, y]) * np.sqrt(101), rtol=1e-5)
    assert np.linalg.norm(data(tab) - path[-1], axis=1).min() < 0.5
    assert "dx/dσ" in tab.inner_text("#panel-a .readout")
    assert (np.abs(picture(tab) - before) > 30).any(axis=2).sum() > 100
    tab.focus("#canvas-a")
    tab.keyboard.press("ArrowUp")
    assert float(state(tab, "probe").split(",")[1]) == pytest.approx(y + 0.1, abs=0.01)
    tab.keyboard.press("Escape")
    assert state(tab, "probe") == ""


# ------------------------------------------------------------------------------------------------- classes and guidance


def test_classes_and_guidance(open_page: Open) -> None:
    tab = open_page("shape=moons&a.steps=12&n=100&samples=80&t=1")
    tab.select_option("#c-class", "1")
    settle(tab)
    labels = np.array(tab.evaluate("[...playground.app.data.labels]"))
    own = data(tab)[labels == 1]
    assert max(np.linalg.norm(own - row, axis=1).min() for row in points(tab)) < 0.2
    assert figure(tab, "a", "nfe") == "23"
    before = points(tab)
    slide(tab, "guidance", *["ArrowRight"] * 10)
    settle(tab)
    assert state(tab, "guidance") == 2
    assert figure(tab, "a", "nfe") == "46"  # two denoisers a call
    assert np.abs(points(tab) - before).max() > 1e-3


def test_guided_samples_stand_beside_what_guidance_is_said_to_draw(open_page: Open) -> None:
    """Rings and a distance with its floor, where a class is guided; rings only as long as they are wanted."""
    tab = open_page("shape=eight-gaussians&noise=0.35&smin=0.2&class=1&guidance=4&a.steps=12&n=300&samples=200&t=1")
    floor = tab.locator('#panel-a [data-figure="guided"] .beside').text_content() or ""
    assert float(figure(tab, "a", "guided")) > float(floor.split()[-1]) > 0
    target = np.array(tab.evaluate("[...playground.app.targets.a]")).reshape(-1, 2)
    labels = np.array(tab.evaluate("[...playground.app.data.labels]"))
    own, others = data(tab)[labels == 1], data(tab)[labels != 1]
    nearer = [np.linalg.norm(own - row, axis=1).min() < np.linalg.norm(others - row, axis=1).min() for row in target]
    assert np.mean(nearer) > 0.9
    rings = picture(tab)
    tab.click("button:has-text('Guided target')")
    assert (picture(tab) != rings).any()
    slide(tab, "guidance", "Home", *["ArrowRight"] * 10)
    settle(tab)
    assert state(tab, "guidance") == 1
    assert tab.locator('#panel-a [data-figure="guided"]').is_hidden()


# --------------------------------------------------------------------------------------------------------------- share


def saved(tab: Page, item: str) -> bytes:
    tab.click("summary:has-text('Share')")
    with tab.expect_download(timeout=40_000) as waiting:
        tab.click(item)
    return Path(waiting.value.path()).read_bytes()


def test_png_gif_and_html_are_saved(open_page: Open, tmp_path: Path) -> None:
    tab = open_page(SMALL + "&shape=heart&compare=1&b.steps=3&field=1")
    with Image.open(io.BytesIO(saved(tab, "#share-png"))) as picture_:
        assert picture_.size[0] == 2000
        assert len(set(picture_.convert("RGB").resize((80, 40)).get_flattened_data())) > 20
    with Image.open(io.BytesIO(saved(tab, "#share-gif"))) as film:
        assert film.n_frames == 48
        first, frames = np.asarray(film.convert("RGB")).astype(int), []
        for k in range(48):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB")).astype(int))
        assert (np.abs(frames[-1] - first) > 60).any(axis=2).sum() > 200
    file = tmp_path / "mine.html"
    file.write_bytes(saved(tab, "#share-html"))
    again = open_page("", file=file)
    assert state(again, "shape") == "heart"
    np.testing.assert_array_equal(points(again), points(tab))


SCRIPT_STATES = [
    SMALL + "&shape=spirals&compare=1&b.solver=ddim&b.schedule=cosine&b.steps=9",
    "n=60&samples=80&t=1&shape=moons&class=1&guidance=2&a.solver=auto&a.steps=7",
]


@pytest.mark.parametrize("given", SCRIPT_STATES)
def test_the_script_makes_the_same_points(open_page: Open, capsys: pytest.CaptureFixture[str], given: str) -> None:
    """What "Show Python" shows makes the points of the page when run, number for number."""
    tab = open_page(given)
    tab.click("summary:has-text('Share')")
    tab.click("#share-python")
    names: dict[str, Any] = {}
    exec(compile(tab.input_value("#script"), "script.py", "exec"), names)  # noqa: S102
    printed = capsys.readouterr().out
    for name in "ab"[: 1 + ("compare" in given)]:
        np.testing.assert_allclose(points(tab, name), names["samples"][name.upper()].numpy(), atol=2e-5)
        error = tab.evaluate("name => playground.app.figures[name].error", name)
        told = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith(name.upper())]
        assert told == [pytest.approx(error, abs=2e-5)]


def test_an_address_of_nonsense_opens_the_page(open_page: Open) -> None:
    tab = open_page(
        "n=-5&samples=1e9&shape=%3Cscript%3E&a.steps=x&t=NaN&drawn=%00%00&probe=a,b&axes=7,9&lang=xx&samples=60"
    )
    assert state(tab, "n") == 20
    assert len(points(tab)) > 0
    for shape in ("run", "toString", "square"):  # of another file, of JavaScript, of nowhere
        assert state(open_page(f"{SMALL}&shape={shape}"), "shape") == "swiss-roll"


# ------------------------------------------------------------------------------------------------ words, tour, language


def test_every_control_explains_itself(open_page: Open) -> None:
    tab = open_page()
    buttons = tab.locator(".what:visible")
    assert buttons.count() > 12
    for i in range(buttons.count()):
        buttons.nth(i).click()
        text = tab.locator(f"[id='{buttons.nth(i).get_attribute('aria-controls')}']")
        assert text.is_visible()
        assert len(text.inner_text()) > 30
    assert tab.locator(".formula:visible").count() > 8


def test_the_tour_has_six_steps(open_page: Open) -> None:
    tab = open_page("n=70&samples=80&a.steps=6&t=1")
    tab.click("#tour-start")
    titles = set()
    for _ in range(6):
        titles.add(tab.inner_text("#tour h2"))
        assert tab.locator(".spot").count() == 1
        tab.click("#tour .primary")
    assert len(titles) == 6
    assert tab.locator("#tour").count() == 0
    assert [state(tab, name) for name in ("n", "a.steps", "nearest")] == [70, 6, False]  # all as it was before


def test_english_and_chinese(open_page: Open) -> None:
    tab = open_page()
    english = tab.inner_text("body")
    tab.click("#language")
    chinese = tab.inner_text("body")
    assert tab.get_attribute("html", "lang") == "zh-CN"
    assert "数据" in chinese
    assert "Samples" not in chinese
    assert "Samples" in english
    tab.click("#time-first")  # the new controls work
    assert state(tab, "t") == 0
    tab.click("#language")
    assert tab.inner_text("#layers h2") == "Layers"
    assert open_page(SMALL, locale="zh-CN").get_attribute("html", "lang") == "zh-CN"


def test_light_and_dark(open_page: Open) -> None:
    tab = open_page(color_scheme="light")
    light = picture(tab).mean()
    tab.click("#theme")
    tab.wait_for_timeout(100)
    assert picture(tab).mean() < light / 2


# ------------------------------------------------------------------------------------------------------- exported runs


@pytest.fixture(scope="module")
def model() -> ptd.DiffusionModel:
    return make_model(default_network(2, 48, 1, num_classes=2))


def test_an_exported_run_shows_network_and_optimum_from_the_same_noise(
    open_page: Open, tmp_path: Path, model: ptd.DiffusionModel
) -> None:
    evil = "<img src=x onerror=document.title='run'>"
    labels = [0, 1] * 150
    model.conditions = Conditions.fit(torch.from_numpy(model.standardiser.transform(POINTS)), labels)
    export_page(
        model, tmp_path / "run.html", num_points=150, num_steps=8, seed=4, precision="float32", data=POINTS,
        labels=labels, embed_data=True, title=evil, figures={evil: 1.25, "by": evil},
    )  # fmt: skip
    tab = open_page("", file=tmp_path / "run.html", reduced_motion="reduce")
    assert tab.evaluate("playground.app.denoiser('a')") == "recorded"
    assert "300 training rows are inside" in tab.inner_text(".banner")
    np.testing.assert_array_equal(points(tab, "a", 0).astype(np.float32), points(tab, "b", 0).astype(np.float32))
    *_, last = model.trajectory(150, num_steps=8, seed=4)
    np.testing.assert_allclose(points(tab, "a"), model.standardiser.transform(last.x), atol=1e-3)
    assert np.linalg.norm(data(tab)[None] - points(tab, "b")[:, None], axis=2).min(axis=1).max() < 0.3
    assert float(figure(tab, "a", "w2")) > 0
    # The network itself, asked in the page, walks the same way from the recorded noise.
    tab.select_option("[id='c-a.denoiser']", "network")
    tab.select_option("[id='c-a.solver']", "euler")
    tab.evaluate("playground.app.store.set({ 'a.steps': 8 })")
    settle(tab)
    np.testing.assert_allclose(points(tab, "a"), model.standardiser.transform(last.x), atol=3e-3)
    assert float(figure(tab, "a", "error")) > 0
    tab.select_option("#c-class", "1")
    settle(tab)
    assert figure(tab, "a", "nfe") == "8"
    # Names with markup are shown, not run.
    assert evil in tab.inner_text("#run-figures")
    assert evil in tab.inner_text(".banner")
    assert tab.title() != "run"
    assert tab.locator("#app img").count() == 0


def test_an_average_beside_bases_is_asked_in_the_page(open_page: Open, tmp_path: Path) -> None:
    """What `fit_table` makes walks in the page as it does in the library, from the same noise."""
    config = ptd.TableConfig(num_steps=10, num_members=2, base="mixture", hidden_dim=16, companion=False)
    found = ptd.fit_table(POINTS, config=config, seed=0).points
    settings: dict[str, Any] = {"num_steps": 8, "solver": "euler", "schedule": "karras", "final_zero": True}
    export_page(found, tmp_path / "run.html", num_points=100, seed=4, precision="float32", **settings)
    *_, last = found.trajectory(100, seed=4, **settings)
    tab = open_page("", file=tmp_path / "run.html", reduced_motion="reduce")
    tab.select_option("[id='c-a.denoiser']", "network")
    tab.select_option("[id='c-a.solver']", "euler")
    tab.evaluate("smin => playground.app.store.set({ 'a.steps': 8, smin })", found.inference.sigma_min)
    settle(tab)
    np.testing.assert_allclose(points(tab, "a"), found.standardiser.transform(last.x), atol=3e-3)


def test_an_exported_run_says_that_no_rows_are_inside(
    open_page: Open, tmp_path: Path, model: ptd.DiffusionModel
) -> None:
    many = np.tile(POINTS, (7, 1))
    export_page(model, tmp_path / "part.html", num_points=20, num_steps=2, data=many, embed_data=True)
    tab = open_page("", file=tmp_path / "part.html")
    assert "2000 of 2100 training rows are inside" in tab.inner_text(".banner")
    export_page(model, tmp_path / "run.html", num_points=60, num_steps=5, data=POINTS)
    tab = open_page("", file=tmp_path / "run.html")
    assert "no training rows are inside" in tab.inner_text(".banner")
    assert len(data(tab)) == 0
    assert tab.is_disabled("#c-contours")
    tab.locator(".shapes button").nth(1).click()  # a built-in shape may be set beside it
    settle(tab)
    assert len(data(tab)) > 0
    assert "exact" in tab.evaluate("playground.app.denoisers()")


def test_three_columns_and_a_trajectory_without_a_model(open_page: Open, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(70, 3))
    walk = np.stack([ends + sigma * rng.normal(size=(70, 3)) for sigma in (10.0, 1.0, 0.0)])
    export_page(walk, tmp_path / "a.html", sigmas=[10.0, 1.0, 0.0], data=ends, embed_data=True)
    tab = open_page("", file=tmp_path / "a.html", reduced_motion="reduce")
    assert points(tab).shape == (70, 3)
    assert tab.evaluate("playground.app.denoisers()") == ["recorded", "exact"]
    assert np.linalg.norm(points(tab, "b")[:, None] - points(tab)[None], axis=2).min(axis=1).max() < 0.4
    before = picture(tab)
    tab.select_option("#c-axes", "1,2")
    tab.wait_for_timeout(100)
    assert (np.abs(picture(tab) - before) > 30).any(axis=2).sum() > 60
    tab.locator(".shapes button").nth(0).click()  # points of the plane: the recording is of another kind
    settle(tab)
    assert tab.evaluate("playground.app.denoisers()") == ["exact"]
    assert points(tab).shape[1] == 2


# ---------------------------------------------------------------------------------------------------------------- size


def test_a_walk_of_5000_points_and_100_steps_is_kept_whole(open_page: Open) -> None:
    """How long it takes to draw is a figure of `benchmarks/playground.py`, since it depends on the machine."""
    tab = open_page("n=20&samples=5000&a.steps=100&a.solver=euler&contours=0&metric=sliced&t=0", **ORDINARY)
    assert tab.evaluate("playground.app.walked.a.points.length") == 101 * 5000 * 2


def test_the_page_is_small_and_asks_nobody() -> None:
    text = page_text()
    assert len(text.encode()) <= 150_000
    policy = text.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "connect-src 'none'" in policy
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text
