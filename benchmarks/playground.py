"""What the page weighs and how fast it draws, in a real browser: `python benchmarks/playground.py`.

Sizes of the page and of an exported run; time to the first paint and to the first walk; frames and processor time of a
draw while time moves over 5,000 points and 100 steps. Needs Chromium and Playwright, which `make test` installs.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import pointdiffusion as ptd
from pointdiffusion.networks import default_network
from pointdiffusion.web.export import export_page, page

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "src" / "pointdiffusion" / "web" / "playground.html"
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DRAW = """async () => {
  const { app, page } = playground, gaps = [];
  page.panels[0].times.length = 0;
  let last = performance.now();
  for (let k = 0; k < 300; k++) {
    app.store.set({ t: k / 300 });
    await new Promise(requestAnimationFrame);
    gaps.push(performance.now() - last);
    last = performance.now();
  }
  return [gaps.slice(20), page.panels[0].times.slice(20), page.panels[0].canvas.width];
}"""


def settled(tab: Any) -> float:
    """Wait until all is computed; return the seconds that took."""
    start = time.perf_counter()
    tab.wait_for_timeout(80)
    while tab.evaluate("!window.playground || playground.app.busy"):
        tab.wait_for_timeout(20)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    from playwright.sync_api import sync_playwright

    print(f"page: {len(page().encode()) / 1000:.0f} kB")
    points = ptd.DATASETS["swiss-roll"](4096, random_state=0)
    standardiser = ptd.Standardiser.fit(points)
    scaled = standardiser.transform(points)
    network = ptd.KarrasDenoiser(default_network(2))
    model = ptd.DiffusionModel(network, standardiser, _covariance(scaled), ["x", "y"])
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float16", "float32"):
            file = Path(folder) / "run.html"
            export_page(model, file, num_steps=100, precision=precision, data=points, embed_data=True)
            print(f"export, 2,000 points x 100 steps, weights in {precision}: {file.stat().st_size / 1e6:.2f} MB")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.goto(PAGE.as_uri())
        tab.wait_for_timeout(300)
        paint = tab.evaluate("performance.getEntriesByType('paint').map(entry => entry.startTime)")
        print(f"first paint: {max(paint, default=float('nan')):.0f} ms")
        settled(tab)
        state = "{ samples: 5000, 'a.steps': 100, 'a.solver': 'euler', contours: false, metric: 'sliced' }"
        tab.evaluate(f"playground.app.store.set({state})")
        print(f"5,000 points x 100 steps, exact denoiser of 500, figures included: {settled(tab):.1f} s")
        gaps, draws, width = tab.evaluate(DRAW)
        for name, values in (("frame", gaps), ("draw", draws)):
            print(f"{name}: median {np.median(values):.1f} ms, 95 % below {np.percentile(values, 95):.1f} ms", end="; ")
        print(f"picture of {width} x {width} pixels")
        browser.close()


def _covariance(scaled: Any) -> Any:
    import torch

    return torch.from_numpy(np.cov(scaled.T))


if __name__ == "__main__":
    main()
