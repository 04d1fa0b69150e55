"""One file that needs nothing else, is the same for the same seed, shows markup as text, and opens in a browser."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError
from PIL import Image

import pointdiffusion as ptd
from pointdiffusion.reporting.measurements import read_log
from pointdiffusion.reporting.rendering import Section, environment, render
from pointdiffusion.reporting.svg import inline_svg

QUICK: dict[str, Any] = {
    "num_samples": 120, "density_rows": 40, "max_rows": 40, "diagnosis": False, "times": False, "num_steps": 8,
}  # fmt: skip
HOSTILE = ["<script>alert(1)</script>", "a & b \"'", "$x^2$ \\frac"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def trained(n_dims: int, folder: Path | None = None, columns: list[str] | None = None, **given: Any) -> Any:
    rng = np.random.default_rng(0)
    table: Any = rng.normal(size=(240, n_dims)) @ np.triu(np.ones((n_dims, n_dims)))
    if columns is not None:
        table = pd.DataFrame(table, columns=columns)
    training, held_out = table[:160], table[160:]
    model = ptd.fit(
        training, ptd.TrainingConfig(epochs=2), validation=held_out, folder=folder, seed=0,
        backbone=lambda _: ptd.default_network(n_dims, hidden_dim=16, num_classes=2 if given else 0), **given,
    )  # fmt: skip
    return model, training, held_out


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("run")
    return *trained(2, folder), folder


@pytest.fixture(scope="module")
def full_page(plain: Any) -> str:
    model, training, held_out, folder = plain
    return ptd.report(
        model, training, held_out, log_folder=folder, against=model, title="Everything",
        commands=["pointdiffusion ..."], costs={"training": "3 s"},
        **{**QUICK, "diagnosis": True, "times": True, "num_samples": 200},
    )  # fmt: skip


class Reader(HTMLParser):
    """Checks that tags are balanced, and collects what a browser would act on."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_but_itself(full_page: str) -> None:
    """No script, no address of another host, every reference within the page and found there."""
    reader = Reader(full_page)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & set(reader.tags)
    assert "http" not in re.sub(r'http-equiv="Content-Security-Policy"', "", full_page)
    assert "//" not in re.sub(r"base64,[A-Za-z0-9+/=\s]*", "", full_page)
    assert not re.search(r"@import|url\((?!#)", full_page)
    assert "default-src 'none'" in full_page
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for tag, name, value in reader.attributes:
        assert not name.startswith("on")
        assert name != "src"
        if name == "href":
            assert value.startswith(("#", "data:image/png;base64,"))
            assert value.startswith("data:") or value[1:] in ids, (tag, value)
    for reference in re.findall(r"url\(#([^)]*)\)", full_page):
        assert reference in ids


def test_the_page_tells_everything(full_page: str, plain: Any) -> None:
    """Each part is there, in the table of contents, too; values are those of `evaluate` and of the model."""
    text = Reader(full_page).text
    for title in (
        "What was trained", "Samples against data", "Quality", "Two runs", "Training", "Likelihood", "Memorisation",
        "Where the error comes from", "How to reproduce", "Time and memory",
    ):  # fmt: skip
        assert full_page.count(f">{title}<") == 2, title
    assert "Class by class" not in text
    model, training, held_out, _ = plain
    samples = model.sample(200, seed=0, num_steps=8)
    assert f"{samples[:, 0].mean():.4g}" in text
    rows = held_out[np.random.default_rng(0).permutation(80)[:40]]
    assert f"{model.log_prob(rows).mean():.4f}" in text
    evaluation = ptd.evaluate(samples, held_out, training=training, max_rows=40)
    assert f"{evaluation['W2'].floor:.3g}" in text
    for word in (ptd.__version__, "pointdiffusion ...", "training3 s", "MiB", "epochs: 2"):
        assert word in text


def test_rows_are_drawn_but_not_told(full_page: str, plain: Any) -> None:
    """No training row can be read off as numbers; dots are pictures."""
    model, training, held_out, _ = plain
    shown = re.sub(r"base64,[A-Za-z0-9+/=\s]*", "", full_page)
    values = np.abs(np.concatenate([training, held_out, model.sample(200, seed=0, num_steps=8)]).ravel())
    for value in values:
        zeros = max(0, -math.floor(math.log10(value)) - 1)  # five digits that count, of small values as well
        assert f"{value:.15f}"[: 7 + zeros] not in shown
    assert full_page.count("data:image/png;base64,") >= 2
    assert full_page.count("<use") < 400  # ticks, not dots


def test_the_same_seed_gives_the_same_bytes(plain: Any) -> None:
    """But for the block of times; another seed gives another page."""
    model, training, held_out, folder = plain
    pages = [ptd.report(model, training, held_out, log_folder=folder, seed=k, **QUICK) for k in (0, 0, 1)]
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]
    timed = ptd.report(model, training, held_out, log_folder=folder, **{**QUICK, "times": True})
    without = re.sub(r'<section id="time-and-memory">.*?</section>\n', "", timed, flags=re.DOTALL)
    assert without.replace('<li><a href="#time-and-memory">Time and memory</a></li>', "") == pages[0]


def test_markup_in_names_is_shown_as_text() -> None:
    """Columns, classes, titles, runs, kinds and commands may hold anything."""
    model, training, held_out = trained(3, columns=HOSTILE)
    evil = "<img src=x onerror=alert(2)>"
    page = ptd.report(
        model, training, held_out, title=evil, names=(evil, "</td><script>"), against=model, kinds={HOSTILE[0]: evil},
        commands=[evil], costs={evil: evil}, **{**QUICK, "times": True},
    )  # fmt: skip
    reader = Reader(page)
    assert not {"script", "img"} & set(reader.tags)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    for word in (*HOSTILE, evil, "</td><script>"):
        assert word in reader.text


def test_names_in_pictures_are_no_formulas() -> None:
    """A dollar sign is a dollar sign; and a scale of powers is set in plain numbers."""

    def draw(figure: Any) -> None:
        ax = figure.subplots()
        ax.plot([0.001, 1], [1, 2])
        ax.set(title="$x^2$ <b> & $\\frac$", xscale="log")

    svg = inline_svg(draw, size=(3, 2), label="a <b>")
    reader = Reader(svg)
    assert "$x^2$ <b> & $\\frac$" in reader.text
    assert "0.01" in reader.text
    assert "mathdefault" not in svg
    assert ("svg", "aria-label", "a <b>") in reader.attributes
    assert "var(--ink)" in svg
    assert "#000000" not in svg


EVIL = "</style></title><script>alert('\"')</script>&amp;"


def test_templates_escape_whatever_they_are_given() -> None:
    """Every value of every section that is no plot: a reader sees it as text, and finds no element of it."""
    evaluation = {"verdict": EVIL, "remark": EVIL}
    lead = {
        "kind": EVIL, "evaluation": evaluation, "log_prob": 0.0, "error": 0.0, "copies": None, "advice": EVIL,
        "other": EVIL, "differences": [EVIL],
    }  # fmt: skip
    rows = [[EVIL] * 5]
    sections = [
        Section(EVIL, "costs", {"rows": rows}),
        Section("two", "two_runs", {"rows": rows, "runs": [{"name": EVIL, "evaluation": evaluation}] * 2}),
        Section("three", "training", {"plots": [("", EVIL)]}),
        Section("left out", "costs", None),
    ]
    page = render(EVIL, lead, sections)
    reader = Reader(page)
    assert "script" not in reader.tags
    assert reader.tags.count("style") == reader.tags.count("title") == 1
    assert reader.text.count(EVIL) == 2 + 5 + 2 + 5 + (5 + 3 + 2 * 3) + 1
    assert "left out" not in page


def test_every_template_is_there_and_refuses_what_it_does_not_know() -> None:
    """A misspelt name in a template is an error, not a gap in the page."""
    templates = environment()
    names = templates.list_templates(extensions=["html"])
    assert len(names) == 3 + 11
    for name in names:
        templates.get_template(name)
        assert "autoescape" not in templates.loader.get_source(templates, name)[0]
    with pytest.raises(UndefinedError):
        templates.from_string("{{ nothing }}").render()
    source = "".join(templates.loader.get_source(templates, name)[0] for name in names)
    assert re.findall(r"{{ ?([^}]*)\| ?safe ?}}", source) == ["svg ", "svg ", "style ", "body "]


def test_each_class_is_shown_by_itself() -> None:
    labels = ["<b>even</b>", "odd"] * 80
    model, training, held_out = trained(2, labels=labels)
    given = {"labels": labels, "held_out_labels": ["<b>even</b>", "odd"] * 40}
    text = Reader(ptd.report(model, training, held_out, **given, **QUICK)).text
    assert "Class by class" in text
    assert "<b>even</b>: training rows" in text
    with pytest.raises(ValueError, match="labels must have one label for each of 160 rows, got 3"):
        ptd.report(model, training, held_out, labels=["odd"] * 3, **QUICK)


@pytest.mark.parametrize("n_dims", [1, 8])
def test_one_column_and_many(n_dims: int) -> None:
    """One column has no pairs; of many the most telling are shown."""
    model, training, held_out = trained(n_dims)
    page = ptd.report(model, training, held_out, **QUICK)
    Reader(page)
    assert page.count('class="panels"') == (0 if n_dims == 1 else 8)
    assert page.count("Distribution of") == n_dims


def test_few_rows_say_so(plain: Any) -> None:
    """Fifteen held-out rows make a page, but no claim."""
    model, training, held_out, _ = plain
    page = ptd.report(model, training, held_out[:15], against=model, **{**QUICK, "diagnosis": True})
    text = Reader(page).text
    assert '<div class="verdict">\n<p>Too few rows to evaluate' in page  # neither good nor bad
    assert "randomness of the split" in text
    assert "fewer than 48 held-out rows" in text
    assert "No training log was given" in text


def test_what_does_not_fit_is_refused(plain: Any, tmp_path: Path) -> None:
    model, training, held_out, _ = plain
    with pytest.raises(ValueError, match="training must have the 2 columns of the model, got 3"):
        ptd.report(model, np.zeros((20, 3)), held_out)
    with pytest.raises(ValueError, match="held_out must have the columns of the model, x, y; got"):
        ptd.report(model, training, pd.DataFrame(held_out, columns=["y", "x"]))
    (tmp_path / "metrics.csv").write_text("epoch,train_loss\n0,zero\n")
    with pytest.raises(ValueError, match="cannot be read"):
        ptd.report(model, training, held_out, log_folder=tmp_path, **QUICK)


def test_a_resumed_run_is_one_curve(tmp_path: Path) -> None:
    """Versions are read in their order as numbers, later ones over earlier ones; other columns are left alone."""
    for version, text in (
        (2, "epoch,lr,train_loss,val_loss\n1,1,0.7,\n2,1,0.6,0.9\n"),
        (10, "epoch,lr,train_loss\n2,1,0.5\n"),
    ):
        folder = tmp_path / "lightning_logs" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(text)
    log = read_log(tmp_path)
    assert {name: [part.tolist() for part in parts] for name, parts in log.items()} == {
        "train_loss": [[1.0, 2.0], [0.7, 0.5]], "val_loss": [[2.0], [0.9]],
    }  # fmt: skip
    assert read_log(tmp_path / "nowhere") == {}


def browse(page: Path, width: int, *arguments: str) -> str:
    """Return what Chromium prints about a page; its profile lies beside the page."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={page.parent / 'profile'}",
        f"--window-size={width},1400", "--hide-scrollbars", *arguments, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="THE PAGE WAS NOT OPENED: no chromium on this machine, install it")
def test_the_page_opens_in_a_browser(full_page: str, tmp_path: Path) -> None:
    """Light and dark, and nothing sticks out to the right from a phone to a desk."""
    page, measured = tmp_path / "report.html", tmp_path / "measured.html"
    ptd.write_atomic(page, full_page.encode())
    for theme, paper in (("1", (255, 255, 255)), ("0", (20, 24, 31))):
        picture = tmp_path / f"{theme}.png"
        browse(page, 900, f"--screenshot={picture}", f"--blink-settings=preferredColorScheme={theme}")
        with Image.open(picture) as image:
            assert image.convert("RGB").getpixel((3, 3)) == paper
            assert len(image.convert("RGB").resize((90, 140)).getcolors(90 * 140)) > 100  # text and points
    script = "<script>document.title = [document.documentElement.scrollWidth, innerWidth].join(' of ')</script>"
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", full_page)
    measured.write_text(without_policy.replace("</body>", f"{script}</body>"), encoding="utf-8")
    for width in (360, 768, 1400):
        # Headless windows are 500 wide at least, so the narrow one is a frame in it.
        frame = tmp_path / "frame.html"
        frame.write_text(
            f'<iframe src="measured.html" style="border:0" width="{width}" height="900"></iframe><script>'
            "onload = () => document.title = frames[0].document.title</script>"
        )
        told = browse(frame, 1500, "--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=4000")
        found = re.search(r"<title>(\d+) of (\d+)</title>", told)
        assert found is not None, told[:500]
        assert int(found[1]) <= int(found[2]) == width
