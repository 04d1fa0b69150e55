"""The page and the server together, as a person uses them: a network is trained in the browser, and kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_fixtures import Server, wait_for
from test_playground import FLAGS, browser, give, settle, state

import pointdiffusion as ptd

if FLAGS:  # only where there is a browser; otherwise this module is skipped with the other
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]

STATE = "shape=moons&n=80&samples=80&a.steps=6&t=1&train.steps=60&train.hidden_dim=16&train.num_layers=1"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


@pytest.fixture
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    """A page of the server; nobody else may be asked for anything, and no error be written."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.on("request", lambda request: own(request.url, server) or wrong.append(request.url))
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}/#{STATE}")
    settle(page)
    yield page
    context.close()
    assert wrong == []


def own(url: str, server: Server) -> bool:
    return url.startswith((f"http://127.0.0.1:{server.port}/", "blob:", "data:"))


def phase(tab: Page) -> str:
    return str(tab.evaluate("playground.app.trainer.phase"))


def wait(tab: Page, wanted: str) -> None:
    for _ in range(1200):
        if phase(tab) == wanted:
            return
        tab.wait_for_timeout(50)
    raise TimeoutError(f"training is {phase(tab)}, not {wanted}")


def test_what_is_trained_in_the_page_is_what_its_script_trains(
    tab: Page, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples come while it learns; at the end the network stands beside the optimum, and is kept as a model."""
    tab.evaluate("window.seen = new Set(); playground.app.on('step', () => seen.add(playground.app.trainer.step))")
    tab.click("#train-main")
    wait(tab, "finished")
    settle(tab)
    assert tab.evaluate("seen.size") >= 3
    assert [state(tab, name) for name in ("compare", "a.denoiser", "b.denoiser")] == [True, "network", "exact"]
    with tab.expect_download() as waiting:
        tab.click("#train-save")
    waiting.value.save_as(tmp_path / "model.pt")
    model = ptd.load(tmp_path / "model.pt")
    tab.click("summary:has-text('Share')")
    tab.click("#share-python")
    names: dict[str, Any] = {}
    exec(compile(tab.input_value("#script"), "script.py", "exec"), names)  # noqa: S102
    capsys.readouterr()
    drawn, again = (each.sample(200, seed=0, nfe=20) for each in (model, names["model"]))
    assert abs(drawn - again).max() < 1e-3  # another number of threads adds in another order
    assert re.match(r"step 60 of 60", tab.text_content("#train-step") or "")


def test_the_network_walks_in_the_library(tab: Page) -> None:
    """The points of a panel are those that the server sent, and the page's own walk comes to the same."""
    tab.evaluate("""() => {
      const { trainer } = playground.app, walk = trainer.walk.bind(trainer);
      window.walks = [];
      trainer.walk = (order) => walk(order).then((walked) => { walks.push(walked); return walked; });
    }""")
    tab.click("#train-main")
    wait(tab, "finished")
    for solver in ("heun", "auto", "sde-dpmpp-2m"):
        tab.select_option("[id='c-a.solver']", solver)
        settle(tab)
        sent = np.array(tab.evaluate("[...walks.at(-1).points]"))
        there = np.array(tab.evaluate("[...playground.app.walked.a.points]"))
        np.testing.assert_array_equal(sent, there)
        tab.evaluate("playground.app.store.set({ grid: true })")  # with a grid to carry the page walks itself
        settle(tab)
        here = np.array(tab.evaluate("[...playground.app.walked.a.points]"))
        assert here.shape == there.shape
        np.testing.assert_allclose(here, there, atol=2e-3)
        tab.evaluate("playground.app.store.set({ grid: false })")
        settle(tab)


def test_closing_the_tab_stops_its_training(tab: Page, server: Server) -> None:
    tab.evaluate("playground.app.store.set({ 'train.steps': 100000 })")
    tab.click("#train-main")
    wait(tab, "running")
    assert server.children()
    tab.context.close()
    wait_for(lambda: len(server.children()) <= 1)


def test_a_table_goes_through_the_server(tab: Page, tmp_path: Path) -> None:
    """Parquet, which the page cannot read itself."""
    import pandas as pd

    points = ptd.DATASETS["pinwheel"](50, random_state=0)
    pd.DataFrame(points, columns=["east", "north"]).to_parquet(tmp_path / "places.parquet")
    give(tab, "places.parquet", (tmp_path / "places.parquet").read_bytes())
    tab.click("#use")
    settle(tab)
    assert tab.evaluate("playground.app.data.labels.length") == 50
    assert tab.evaluate("playground.app.data.units.columns") == ["east", "north"]
