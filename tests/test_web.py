"""The page's TypeScript, by Node: mathematics that agrees with the library, shapes, films, and a page that is built."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from example_fixtures import Scripts
from PIL import Image
from test_web_export import block_of

import pointdiffusion as ptd

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
PAGE = ROOT / "src" / "pointdiffusion" / "web" / "playground.html"
NODE = shutil.which("node")
if not (NODE and (WEB / "node_modules" / "typescript").exists()):
    if os.environ.get("PLAYGROUND_BROWSER") == "required":
        pytest.fail("the page must be tested: install Node, then run `npm ci` in web/", pytrace=False)
    pytest.skip("NO NODE OR NO MODULES: THE PAGE'S TYPESCRIPT IS NOT TESTED; `npm ci` in web/", allow_module_level=True)


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=WEB, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, scripts: Scripts) -> Path:
    """A folder with what the library computes and what the tests of Node leave behind."""
    folder = tmp_path_factory.mktemp("web")
    made = scripts.run(folder, script=ROOT / "tests" / "web_fixtures.py", cwd=WEB)
    assert made.code == 0, made.err
    run(NODE or "", "node_modules/typescript/bin/tsc", "-p", "tsconfig.test.json", "--outDir", str(folder / "build"))
    (folder / "package.json").write_text('{"type": "module"}')
    tests = sorted((folder / "build" / "test").glob("*.js"))
    assert len(tests) == 3
    told = run(NODE or "", "--test", *tests, FIXTURES=str(folder / "fixtures.json"), OUT=str(folder))
    assert "# fail 0" in told
    assert told.count("\nok ") > 60
    return folder


def test_mathematics_and_pieces_of_the_page(out: Path) -> None:
    """All of it: 1,000 points through every solver, schedule, network and the exact denoiser."""
    assert (out / "shapes.json").exists()


def test_shapes_are_drawn_from_the_librarys_distributions(out: Path) -> None:
    """The mean log-density of 1,500 points is the entropy, within its scatter; so is that of each class."""
    shapes = json.loads((out / "shapes.json").read_text())
    plane = {name for name, found in ptd.DATASETS.items() if found.n_dims == 2} | {"s-curve", "random-mixture"}
    assert set(shapes) == plane
    for name, found in shapes.items():
        points = np.array(found["values"]).reshape(-1, 2) * found["scale"] + found["centre"]
        dataset = ptd.DATASETS[name].with_settings(noise=found["noise"])
        if name in ("s-curve", "random-mixture"):
            dataset = dataset.with_settings(n_dims=2)
        if name == "swiss-roll":  # its noise is stated before the scaling
            dataset = dataset.with_settings(noise=found["noise"] * 10)
        log_p = dataset.log_prob(points)
        fresh, labels = dataset.sample_with_labels(1500, random_state=0)
        own = dataset.log_prob(fresh)
        error = np.hypot(log_p.std(), own.std()) / np.sqrt(1500)
        assert abs(log_p.mean() - own.mean()) < 4 * error, name
        np.testing.assert_allclose(points.mean(axis=0), fresh.mean(axis=0), atol=5 * fresh.std() / np.sqrt(750))
        counts = [np.bincount(each, minlength=dataset.n_classes) / 1500 for each in (found["labels"], labels)]
        np.testing.assert_allclose(*counts, atol=0.06)


def test_a_film_is_read_by_another_program(out: Path) -> None:
    """Colours are brought to 5 bits and 128 of them; places are exact."""
    with Image.open(out / "film.gif") as film:
        assert film.n_frames == 2
        for k in range(2):
            film.seek(k)
            wanted = np.fromfile(out / f"frame-{k}.rgba", dtype=np.uint8).reshape(40, 60, 4)[..., :3].astype(int)
            found = np.asarray(film.convert("RGB")).astype(int)
            assert np.abs(found - wanted).max() <= 16


def test_the_page_is_built_from_what_is_here(tmp_path: Path) -> None:
    """Types hold, and a build gives the committed page: else run `python tools/dev.py web`.

    What is deflated is compared as it reads: the same text may be packed otherwise by the zlib of another machine.
    """
    run(NODE or "", "node_modules/typescript/bin/tsc", "-p", "tsconfig.json", "--noEmit")
    run(NODE or "", "node_modules/vite/bin/vite.js", "build", PAGE=str(tmp_path / "page.html"))
    built, committed = (path.read_text(encoding="utf-8") for path in (tmp_path / "page.html", PAGE))
    for name in ("registry", "texts", "style"):
        assert block_of(built, name) == block_of(committed, name)
    plain = re.compile(r'(<script type="application/json" id="(?:registry|texts|style)">)[^<]*')
    assert plain.sub(r"\1", built) == plain.sub(r"\1", committed)


def test_the_style_of_the_code() -> None:
    run(NODE or "", "node_modules/@biomejs/biome/bin/biome", "check", ".")


ORDER = ["math", "texts", "files", "compute", "server", "app", "views", "main.ts"]
"""Folders of the page's source; each imports only from those before it, and from itself."""


def test_folders_of_the_page_import_from_those_before_them_only() -> None:
    """As for the rooms of the library: an order of folders, and no circle of files, types included."""
    source = WEB / "src"
    arrows = {
        path: {
            (path.parent / target).resolve()
            for target in re.findall(r"from '(\.[^']+)'", path.read_text(encoding="utf-8"))
        }
        for path in sorted(source.rglob("*.ts"))
    }
    folder = {path: path.relative_to(source).parts[0] for path in arrows}
    assert set(folder.values()) == set(ORDER)
    for path, targets in arrows.items():
        assert {folder[target] for target in targets} <= set(ORDER[: ORDER.index(folder[path]) + 1]), path
    TopologicalSorter(arrows).prepare()  # raises an error where there is a circle
