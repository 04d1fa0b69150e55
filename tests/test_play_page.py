"""The page's side of `pointdiffusion play` in a real browser, against a server of paper: training, samples, tables."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_playground import (
    AXE,
    FLAGS,
    axe,
    browser,
    data,
    give,
    open_page,
    picture,
    points,
    saved,
    settle,
    state,
    view_of,
)
from test_web_export import make_model, run_of

import pointdiffusion as ptd
from pointdiffusion.networks import default_network
from pointdiffusion.web.export import export_page
from pointdiffusion.web.export import page as page_text
from pointdiffusion.web.registry import as_json, registry

if FLAGS:  # only where there is a browser; otherwise this module is skipped with the other
    from playwright.sync_api import Browser, Page, WebSocketRoute

__all__ = ["browser", "open_page"]

LIMITS = {"upload_bytes": 2**20, "rows": 200_000, "columns": 64, "steps": 50_000, "batch_size": 1024,
          "hidden_dim": 256, "num_layers": 4, "sessions": 2}  # fmt: skip
TABLE: dict[str, Any] = {"columns": ["a", "b", "kind"], "rows": 9000,
         "values": [[float(k % 7), float(k * k % 11), "odd" if k % 2 else "even"] for k in range(40)]}  # fmt: skip
SMALL = "n=60&samples=80&a.steps=6&t=1"
ENTRY = "a/b?&"


def served_page(table: Any = None, token: str | None = None) -> str:
    """Return the page as a server hands it out."""
    text = page_text().replace("connect-src 'none'", "connect-src 'self'", 1)
    blocks = {
        "server": {"token": token, "limits": LIMITS, "table": table},
        "registry": registry(),
    }
    for name, value in blocks.items():
        start = f'<script type="application/json" id="{name}">'
        head, _, rest = text.partition(start)
        text = head + start + as_json(value) + rest[rest.index("<") :]
    return text


class Paper:
    """A server that says what a test wants it to say."""

    def __init__(self, table: Any = None, token: str | None = None) -> None:
        self.uploads: list[tuple[dict[str, str], bytes]] = []
        self.answer: tuple[int, Any] = (200, TABLE)
        self.asked: list[dict[str, Any]] = []
        self.sockets: list[WebSocketRoute] = []
        self.addresses: list[str] = []
        self.answers = True
        self.text = served_page(table, token)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def reply(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self.reply(200, "text/html; charset=utf-8", outer.text.encode())

            def do_POST(self) -> None:
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.uploads.append(({"path": urlsplit(self.path).path, **query}, body))
                self.reply(outer.answer[0], "application/json", json.dumps(outer.answer[1]).encode())

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}/"

    def connect(self, socket: WebSocketRoute) -> None:
        self.sockets.append(socket)
        self.addresses.append(socket.url)

        def hear(message: str | bytes) -> None:
            told = json.loads(message)
            if told["type"] != "walk":
                self.asked.append(told)
            elif self.answers:  # paper cannot walk: the page is to do it itself
                socket.send(json.dumps({"type": "refused", "id": told["id"], "message": "no"}))

        socket.on_message(hear)

    def say(self, **told: Any) -> None:
        self.sockets[-1].send(json.dumps(told))

    def state(self, name: str, step: int) -> None:
        self.say(type="state", state=name, step=step)

    def start(self, steps: int = 2000) -> None:
        """Say what is said when a training starts."""
        self.state("starting", 0)
        self.say(type="started", steps=steps, optimal_loss=0.125)
        self.state("running", 0)

    def live(self, step: int, samples: NDArray[np.float64]) -> None:
        low, high = samples.min(axis=0), samples.max(axis=0)
        head = struct.pack("<BBHIII", 1, 1, samples.shape[1], step, len(samples), 0)
        places = np.round((samples - low) / (high - low) * 65535).astype("<u2")
        self.sockets[-1].send(head + low.astype("<f4").tobytes() + high.astype("<f4").tobytes() + places.tobytes())

    def run(self, step: int, run: dict[str, Any]) -> None:
        self.say(type="run", step=step, run=run)


Serve = Callable[..., tuple["Page", Paper]]


@pytest.fixture
def serve(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Open the page from a server of paper; nobody else may be asked for anything, and no error be written."""
    contexts, papers, wrong = [], [], []

    def start(
        given: str = SMALL, table: Any = None, token: str | None = None, **options: Any
    ) -> tuple[Page, Paper]:  # fmt: skip
        paper = Paper(table, token)
        papers.append(paper)
        context = browser.new_context(**{**view_of(request), **options})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.route_web_socket(re.compile(".*"), paper.connect)
        known = (paper.address, "blob:", "data:")
        tab.on("request", lambda request: wrong.extend([] if request.url.startswith(known) else [request.url]))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(f"{paper.address}#{given}")
        settle(tab)
        return tab, paper

    yield start
    for context in contexts:
        context.close()
    for paper in papers:
        paper.http.shutdown()
        paper.http.server_close()
    assert wrong == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a server sends of a network with two classes, named as the page numbers them."""
    rows = ptd.DATASETS["moons"](100, random_state=0)
    model = make_model(default_network(2, 16, 1, num_classes=2), rows)
    path = tmp_path_factory.mktemp("run") / "run.html"
    export_page(model, path, num_points=5, num_steps=2, precision="float32")
    return {**run_of(path), "recorded": None, "data": None, "rows": 100, "classes": ["0", "1"]}


def hear(tab: Page) -> None:
    """Give messages their time, and the page two frames."""
    tab.wait_for_timeout(120)


def train(tab: Page, paper: Paper, steps: int = 2000) -> None:
    tab.click("#train-main")
    hear(tab)
    paper.start(steps)
    hear(tab)


def cloud(x: float, count: int = 300) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(size=(count, 2)) * 0.2 + [x, 0.0]


def finish(tab: Page, paper: Paper, run: dict[str, Any], name: str = "finished", step: int = 2000) -> None:
    paper.state(name, step)
    paper.run(step, run)
    hear(tab)
    settle(tab)


# ------------------------------------------------------------------------------------------------------------ training


def test_what_is_asked_for_is_what_is_set(serve: Serve) -> None:
    tab, paper = serve(SMALL + "&shape=moons&train.hidden_dim=9999&train.steps=1234.4&smin=0.02&smax=20&start=7")
    assert paper.sockets == []  # nobody is asked before there is something to ask
    assert state(tab, "train.hidden_dim") == 256  # the server's limit
    tab.select_option("[id='c-train.noise_sampler']", "log-normal")
    tab.focus("[id='c-train.learning_rate']")
    tab.keyboard.press("ArrowRight")
    tab.click("summary:has-text('More settings')")
    tab.focus("[id='c-train.weight_decay']")
    tab.keyboard.press("Home")
    tab.evaluate("playground.app.store.set({ 'train.seed': 5 })")
    train(tab, paper)
    (asked,) = paper.asked
    assert asked["type"] == "start"
    assert asked["seed"] == 5
    settings = asked["settings"]
    assert settings.pop("learning_rate") > registry()["training"]["learning_rate"]["value"]
    expected = {name: setting["value"] for name, setting in registry()["training"].items()}
    expected |= {"steps": 1234, "hidden_dim": 256, "noise_sampler": "log-normal", "weight_decay": 0}
    del expected["learning_rate"]
    assert settings == {**expected, "sigma_min": 0.02, "sigma_max": 20}
    assert asked["live"] == {"count": 80, "nfe": 10, "seed": 7}
    sent = np.frombuffer(base64.b64decode(asked["data"]["points"]), dtype="<f4").reshape(-1, 2)
    np.testing.assert_array_equal(sent, data(tab).astype(np.float32))
    assert asked["data"]["dims"] == 2
    assert asked["data"]["labels"] == tab.evaluate("[...playground.app.data.labels]")
    assert asked["data"]["columns"] == ["x", "y"]
    own = sent * asked["data"]["scale"] + asked["data"]["mean"]  # in the units of the library's moons
    assert np.abs(np.median(own, axis=0) - np.median(ptd.DATASETS["moons"](2000, random_state=0), axis=0)).max() < 0.3
    tab.wait_for_timeout(600)  # the address follows when all has come to rest
    link = tab.evaluate("location.hash")
    again, _ = serve(link[1:])
    assert [state(again, f"train.{name}") for name in ("noise_sampler", "steps", "seed")] == ["log-normal", 1234, 5]


def test_one_class_is_sent_without_labels(serve: Serve) -> None:
    tab, paper = serve(SMALL + "&shape=heart")
    train(tab, paper)
    assert paper.asked[0]["data"]["labels"] is None


def test_live_samples_are_drawn_as_they_arrive(serve: Serve) -> None:
    tab, paper = serve(SMALL + "&contours=0")
    tab.click("#time-first")
    train(tab, paper)
    assert state(tab, "t") == 1
    paper.live(1, cloud(-1.5))
    hear(tab)
    left = picture(tab)
    np.testing.assert_allclose(tab.evaluate("playground.app.live.values[0]"), cloud(-1.5)[0, 0], atol=1e-4)
    assert "step 1" in tab.inner_text("#panel-a .live")
    for step in range(2, 40):  # more than can be drawn
        paper.live(step, cloud(1.5))
    hear(tab)
    right = picture(tab)
    assert "step 39" in tab.inner_text("#panel-a .live")
    orange = [(image[..., 0] - image[..., 2] > 60).mean(axis=0) for image in (left, right)]
    half = len(orange[0]) // 2
    assert orange[0][:half].sum() > 20 * orange[0][half:].sum()
    assert orange[1][half:].sum() > 20 * orange[1][:half].sum()
    blue = right[..., 2] - right[..., 0] > 60
    assert blue.sum() > 100  # the data stay
    assert "300 samples of the network in training" in str(tab.get_attribute("#canvas-a", "aria-label"))


def test_progress_and_losses(serve: Serve) -> None:
    tab, paper = serve()
    assert tab.is_hidden("#losses")
    train(tab, paper)
    tab.locator("#losses").scroll_into_view_if_needed()
    paper.say(type="losses", steps=[1, 100, 200], train=[0.9, 0.4, 0.3])
    hear(tab)
    before = looks(tab)
    paper.say(type="losses", steps=[300, 340], train=[0.2, 0.15])
    tab.wait_for_timeout(600)
    paper.live(340, cloud(0))
    hear(tab)
    after = looks(tab)
    orange, blue = ((after[..., a] - after[..., b] > 60).any(axis=0) for a, b in ((0, 2), (2, 0)))
    assert 0.1 < orange.mean() < 0.25  # the curve has come 340 of 2000 steps
    assert 0.3 < blue.mean() < 0.95  # the line of the optimum goes all the way, in dashes
    assert (after != before).any()
    assert tab.inner_text("#train-step") == "step 340 of 2000"
    assert re.fullmatch(r"\d+ s left", tab.inner_text(".counts span:last-child"))
    assert tab.evaluate("document.querySelector('#training progress').value") == 340
    assert tab.get_attribute("#losses", "aria-label") == "Loss 0.150 at step 340. exact optimum 0.125"


def looks(tab: Page) -> NDArray[np.int64]:
    """Return the picture of the losses, (H, W, 3)."""
    image = Image.open(io.BytesIO(tab.locator("#losses").screenshot()))
    return np.asarray(image.convert("RGB")).astype(int)


def test_pause_step_resume_and_stop(serve: Serve, run: dict[str, Any]) -> None:
    tab, paper = serve()
    assert tab.is_hidden("#train-stop")
    train(tab, paper)
    paper.live(10, cloud(0))
    hear(tab)
    tab.focus("#train-main")
    tab.keyboard.press("Enter")  # by keys alone
    assert paper.asked[-1] == {"type": "pause"}
    finish(tab, paper, run, "paused", 12)
    assert tab.inner_text("#train-main") == "Resume"
    assert tab.is_hidden("#panel-a .live")
    assert state(tab, "a.denoiser") == "network"
    paper.live(12, cloud(0))  # was on its way
    hear(tab)
    assert tab.is_hidden("#panel-a .live")
    tab.click("#train-once")
    hear(tab)
    assert paper.asked[-1] == {"type": "step"}
    finish(tab, paper, run, "paused", 13)
    assert tab.inner_text("#train-step") == "step 13 of 2000"
    tab.click("#train-main")
    hear(tab)
    assert paper.asked[-1] == {"type": "resume"}
    paper.state("running", 13)
    paper.live(14, cloud(0))
    hear(tab)
    assert tab.is_visible("#panel-a .live")
    assert tab.inner_text("#train-main") == "Pause"
    tab.click("#train-stop")
    hear(tab)
    assert paper.asked[-1] == {"type": "stop"}
    finish(tab, paper, run, "stopped", 15)
    assert tab.inner_text("#train-main") == "Train again"
    assert tab.is_hidden("#train-stop")
    assert tab.evaluate("document.activeElement.id") == "train-main"  # where the pressed button was hidden


def test_the_network_stands_beside_the_exact_optimum(serve: Serve, run: dict[str, Any]) -> None:
    tab, paper = serve(SMALL + "&shape=moons&a.solver=midpoint")
    train(tab, paper)
    finish(tab, paper, run)
    assert tab.is_visible("#panel-b")
    assert tab.evaluate("['a', 'b'].map(name => playground.app.denoiser(name))") == ["network", "exact"]
    assert state(tab, "b.solver") == "midpoint"
    np.testing.assert_array_equal(points(tab, "a", 0), points(tab, "b", 0))
    assert np.abs(points(tab, "a") - points(tab, "b")).max() > 0.01
    for panel in "ab":
        options = tab.evaluate("name => [...document.getElementById(`c-${name}.denoiser`).options].length", panel)
        assert options == 2
    whole = points(tab, "a")
    tab.select_option("#c-class", "1")
    settle(tab)
    tab.evaluate("playground.app.store.set({ guidance: 2 })")
    settle(tab)
    assert tab.evaluate("playground.app.figures.a.nfe") == 2 * 11  # the class and all of it; the last step asks once
    assert np.abs(points(tab, "a") - whole).max() > 1e-3
    tab.select_option("#c-class", "-1")
    tab.click("#c-field")
    settle(tab)
    assert tab.evaluate("playground.app.layer('a', 'field').field.denoised[0]") != tab.evaluate(
        "playground.app.layer('b', 'field').field.denoised[0]"
    )


def test_who_compares_keeps_the_second_panel(serve: Serve, run: dict[str, Any]) -> None:
    tab, paper = serve(SMALL + "&compare=1&b.solver=rk4&b.steps=3")
    train(tab, paper)
    finish(tab, paper, run)
    assert [state(tab, name) for name in ("a.denoiser", "b.solver", "b.steps")] == ["network", "rk4", 3]


def test_a_second_network_replaces_the_first(serve: Serve, run: dict[str, Any]) -> None:
    tab, paper = serve()
    train(tab, paper)
    finish(tab, paper, run)
    first = points(tab, "a")
    other = json.loads(json.dumps(run))
    for weights in other["network"]["weights"].values():
        values = np.frombuffer(base64.b64decode(weights["values"]), dtype="<f4") * 1.3
        weights["values"] = base64.b64encode(values.astype("<f4").tobytes()).decode()
    tab.click("#train-main")
    hear(tab)
    paper.run(2000, run)  # of the one before: too late
    paper.start()
    finish(tab, paper, other)
    assert np.abs(points(tab, "a") - first).max() > 1e-3


def test_other_points_are_told_of(serve: Serve, run: dict[str, Any]) -> None:
    tab, paper = serve()
    train(tab, paper)
    finish(tab, paper, run)
    assert tab.is_hidden(".banner")
    tab.locator(".shapes button").nth(3).click()
    settle(tab)
    assert state(tab, "a.denoiser") == "network"
    assert "trained on other points" in tab.inner_text(".banner")
    assert "trained on other points" in tab.inner_text("#train-said")
    tab.locator(".shapes button").nth(0).click()
    settle(tab)
    assert tab.is_hidden(".banner")


def test_a_network_that_the_page_cannot_ask(serve: Serve, run: dict[str, Any]) -> None:
    tab, paper = serve()
    train(tab, paper)
    paper.live(9, cloud(0))
    finish(tab, paper, {**run, "network": None})
    assert "cannot ask" in tab.inner_text("#train-said")
    assert tab.is_visible("#panel-a .live")
    assert state(tab, "compare") is False


def test_the_model_is_handed_over(serve: Serve) -> None:
    tab, paper = serve()
    assert tab.is_hidden("#train-save")
    train(tab, paper)
    with tab.expect_download() as waiting:
        tab.click("#train-save")
        hear(tab)
        assert paper.asked[-1] == {"type": "save"}
        paper.sockets[-1].send(struct.pack("<BBHI", 2, 1, 0, 7) + b"the model")
    assert waiting.value.suggested_filename == "model.pt"
    assert Path(waiting.value.path()).read_bytes() == b"the model"


def test_errors_are_shown_as_texts(serve: Serve) -> None:
    tab, paper = serve()
    tab.click("#train-main")
    hear(tab)
    assert tab.is_disabled("#train-main")
    paper.say(type="error", message="<b>Too few rows</b>: give at least 10.")
    hear(tab)
    assert tab.inner_text("#train-error") == "<b>Too few rows</b>: give at least 10."
    assert tab.locator("#train-error b").count() == 0
    assert tab.is_enabled("#train-main")  # a refusal is no end
    train(tab, paper)
    assert tab.inner_text("#train-error") == ""
    paper.live(3, cloud(0))
    paper.say(type="error", message="CUDA ran out of memory.")
    paper.state("died", 3)
    hear(tab)
    assert tab.inner_text("#train-error").startswith("CUDA ran out of memory. The training has ended by an error")
    assert tab.inner_text("#train-main") == "Train again"
    assert tab.is_visible("#panel-a .live")


def test_a_lost_connection_is_told_and_made_again(serve: Serve) -> None:
    tab, paper = serve(token=ENTRY)
    train(tab, paper)
    assert parse_qs(urlsplit(paper.addresses[0]).query) == {"token": [ENTRY]}
    paper.live(3, cloud(0))
    hear(tab)
    paper.sockets[-1].close()
    hear(tab)
    assert "connection to the server is lost" in tab.inner_text("#train-error")
    assert tab.evaluate("playground.app.live.step") == 3  # the samples so far stay
    train(tab, paper)
    assert len(paper.sockets) == 2
    assert tab.inner_text("#train-error") == ""
    tab.wait_for_timeout(100)
    paper.sockets[-1].close()
    hear(tab)
    tab.locator(".shapes button").nth(3).click()
    settle(tab)
    assert tab.evaluate("playground.app.live") is None  # until something else is looked at


def test_without_points_there_is_nothing_to_learn(serve: Serve) -> None:
    tab, _ = serve()
    tab.click(".edit .plain")
    assert tab.is_disabled("#train-main")


def test_a_walk_that_the_server_never_answers_is_made_by_the_page(serve: Serve, run: dict[str, Any]) -> None:
    """As when the connection is lost while one waits for it."""
    tab, paper = serve(f"{SMALL}&shape=moons")
    train(tab, paper)
    finish(tab, paper, run)
    paper.answers = False
    tab.evaluate("playground.app.store.set({ 'a.steps': 9 })")
    tab.wait_for_timeout(600)
    assert tab.evaluate("playground.app.busy")
    paper.sockets[-1].close()
    settle(tab)
    assert tab.evaluate("playground.app.walked.a.sigmas.length") == 10


# -------------------------------------------------------------------------------------------------- files and scripts


def test_a_saved_page_holds_the_network_and_asks_nobody(
    serve: Serve, open_page: Callable[..., Page], run: dict[str, Any], tmp_path: Path
) -> None:
    tab, paper = serve(SMALL, token=ENTRY)
    tab.click("summary:has-text('Share')")
    tab.click("#share-link")
    assert "with the token" in tab.inner_text("#link-dialog")
    tab.keyboard.press("Escape")
    train(tab, paper)
    finish(tab, paper, run)
    content = saved(tab, "#share-html").decode()
    assert ENTRY not in content
    assert "connect-src 'none'" in content.split("<body")[0]
    (tmp_path / "mine.html").write_text(content, encoding="utf-8")
    again = open_page("", file=tmp_path / "mine.html")
    assert again.evaluate("playground.app.denoiser('a')") == "network"
    np.testing.assert_array_equal(points(again), points(tab))
    assert "draws the training points again" in again.inner_text(".banner")
    tab.click(".chip[data-tool=spray]")
    tab.focus("#canvas-a")
    tab.keyboard.press("Enter")
    settle(tab)
    train(tab, paper)
    finish(tab, paper, run)
    (tmp_path / "own.html").write_bytes(saved(tab, "#share-html"))
    own = open_page("", file=tmp_path / "own.html")
    assert "66 training rows are inside this file" in own.inner_text(".banner")
    tab.click("[aria-label=Undo]")
    settle(tab)
    (tmp_path / "other.html").write_bytes(saved(tab, "#share-html"))
    other = open_page("", file=tmp_path / "other.html")
    assert "trained on other points" in other.inner_text(".banner")


def test_the_script_trains_the_network(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script is run; the network that it makes is handed to the page, which then shows the points of the script."""
    settings = "train.steps=30&train.hidden_dim=16&train.num_layers=1&train.seed=3&smin=0.02"
    tab, paper = serve(f"{SMALL}&shape=moons&{settings}")
    train(tab, paper, 30)
    rows = ptd.DATASETS["moons"](100, random_state=0)
    stand_in = make_model(default_network(2, 16, 1, num_classes=2), rows)
    finish(tab, paper, sent(stand_in, tmp_path), step=30)
    tab.click("summary:has-text('Share')")
    tab.click("#share-python")
    script = tab.input_value("#script")
    assert "ptd.fit(" in script
    names: dict[str, Any] = {}
    exec(compile(script, "script.py", "exec"), names)  # noqa: S102
    model = names["model"]
    np.testing.assert_allclose(model.standardiser.scale, paper.asked[0]["data"]["scale"])
    tab.keyboard.press("Escape")
    train(tab, paper, 30)
    finish(tab, paper, sent(model, tmp_path), step=30)
    np.testing.assert_allclose(points(tab, "a"), names["samples"]["A"].numpy(), atol=2e-5)
    np.testing.assert_allclose(points(tab, "b"), names["samples"]["B"].numpy(), atol=2e-5)
    printed = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line[:2] in ("A:", "B:")]
    errors = tab.evaluate("['a', 'b'].map(name => playground.app.figures[name].error)")
    assert printed == [pytest.approx(errors[0], rel=1e-3), pytest.approx(errors[1], abs=2e-5)]


def sent(model: ptd.DiffusionModel, folder: Path) -> dict[str, Any]:
    """Return what a server sends of a model."""
    export_page(model, folder / "sent.html", num_points=5, num_steps=2, precision="float32")
    found = run_of(folder / "sent.html")
    return {**found, "recorded": None, "classes": found["classes"] or ["0", "1"]}


# -------------------------------------------------------------------------------------------------------------- tables


def test_parquet_goes_to_the_server_and_csv_does_not(serve: Serve) -> None:
    tab, paper = serve(token=ENTRY)
    for name, kind in (("a.parquet", "parquet"), ("a.npz", "npz"), ("a.tsv", "tsv"), ("a.tsv.gz", "tsv")):
        give(tab, name, b"PAR1")
        assert paper.uploads[-1] == ({"path": "/api/table", "kind": kind, "token": ENTRY}, b"PAR1")
        assert "9000 rows, 3 columns" in tab.inner_text(".upload-body")
        assert "takes 2000 of them" in tab.inner_text(".upload-body")
        tab.keyboard.press("Escape")
    give(tab, "a.csv", b"x,y\n1,2\n3,4\n")
    assert len(paper.uploads) == 4
    assert "2 rows, 2 columns" in tab.inner_text(".upload-body")
    tab.keyboard.press("Escape")
    give(tab, "a.parquet", b"PAR1")
    tab.select_option("#column-class", label="kind")
    tab.click("#use")
    settle(tab)
    assert len(data(tab)) == 40
    train(tab, paper)
    sent_data = paper.asked[-1]["data"]
    assert sent_data["columns"] == ["a", "b"]
    table = np.array([row[:2] for row in TABLE["values"]])
    own = np.frombuffer(base64.b64decode(sent_data["points"]), "<f4").reshape(-1, 2) * sent_data["scale"]
    np.testing.assert_allclose(np.sort(own + sent_data["mean"], axis=0), np.sort(table, axis=0), atol=1e-5)


def test_why_a_table_is_refused_is_shown_as_it_is(serve: Serve) -> None:
    tab, paper = serve()
    paper.answer = (422, {"detail": "The file <b>a</b> is no Parquet."})
    give(tab, "a.parquet", b"nonsense")
    assert tab.inner_text(".error:visible") == "The file <b>a</b> is no Parquet."
    assert tab.locator("#use").count() == 0
    tab.set_input_files("#file", {"name": "a.npz", "mimeType": "", "buffer": b"x" * (2**20 + 1)})
    hear(tab)
    assert "larger than 1 MB" in tab.inner_text(".error:visible")
    assert len(paper.uploads) == 1
    paper.http.shutdown()
    paper.http.server_close()
    tab.set_input_files("#file", {"name": "a.npz", "mimeType": "", "buffer": b"x"})
    hear(tab)
    assert "cannot be reached" in tab.inner_text(".error:visible")


def test_a_table_of_the_command_line_is_looked_at_first(serve: Serve) -> None:
    tab, _ = serve(table=TABLE)
    assert "9000 rows, 3 columns" in tab.inner_text("#upload-dialog")
    tab.select_option("#column-x", label="b")
    tab.click("#use")
    settle(tab)
    assert len(data(tab)) == 40
    assert tab.locator("#upload-dialog").count() == 0


# ---------------------------------------------------------------------------------------------------- looks, and words


def test_without_a_server_the_page_says_how_to_train(open_page: Callable[..., Page]) -> None:
    tab = open_page(SMALL)
    assert "pointdiffusion play" in tab.inner_text("#training")
    assert tab.locator("#training button, #training input").count() == 0
    tab.click("#upload")
    assert "parquet" not in tab.inner_text("#upload-dialog").lower()


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_every_size_and_theme_while_training(serve: Serve, run: dict[str, Any], width: int) -> None:
    tab, paper = serve(SMALL, viewport={"width": width, "height": 900}, color_scheme="light")
    train(tab, paper)
    box = tab.locator("#canvas-a").bounding_box()  # come into view, where the button lies below it
    assert box is not None
    assert 0 <= box["y"] <= 900 - box["height"]
    paper.live(50, cloud(0))
    paper.say(type="losses", steps=[1, 50], train=[0.9, 0.3])
    hear(tab)
    tab.click("#training .more summary")
    for theme in ("light", "dark"):
        for paused in (False, True):
            if paused:
                finish(tab, paper, run, "paused", 60)
            else:
                paper.state("running", 50)
            tab.emulate_media(color_scheme=theme)
            tab.wait_for_timeout(150)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            if AXE.exists():
                assert axe(tab) == []
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run `npm ci` in web/")


def test_every_setting_explains_itself_in_two_languages(serve: Serve) -> None:
    tab, paper = serve()
    for language, name in (("en", "Training"), ("zh-CN", "训练")):
        assert tab.inner_text("#training h2") == name
        buttons = tab.locator("#training .settings .what")
        assert buttons.count() == len(registry()["training"]) + 1
        tab.click("#training .more summary")
        for k in range(buttons.count()):
            buttons.nth(k).click()
            text = tab.locator(f"[id='{buttons.nth(k).get_attribute('aria-controls')}']").inner_text()
            assert text
            assert (re.search("[\u4e00-\u9fff]", text) is not None) == (language == "zh-CN")
        tab.click("#language")
    train(tab, paper)
    paper.live(7, cloud(0))
    hear(tab)
    tab.click("#language")  # the page is made anew while a network learns
    paper.live(8, cloud(0))
    hear(tab)
    assert "第 8 步" in tab.inner_text("#panel-a .live")
    assert tab.inner_text("#train-main") == "暂停"
