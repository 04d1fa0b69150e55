"""What the page weighs and how fast it draws, in a real browser: `python benchmarks/playground.py`.

Sizes of the page and of an exported run; time to the first paint and to the first walk; frames and processor time of a
draw while time moves over 5,000 points and 100 steps; samples of a network in training, from the moment that the server
has drawn them to the frame that shows them; how soon the example's `--help` is there. Needs Chromium and Playwright,
which `make test` installs.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
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

LIVE = """async (seconds) => {
  const { app } = playground, ages = [], gaps = [], end = performance.now() + 1000 * seconds;
  let [step, last] = [-1, performance.now()];
  while (performance.now() < end) {
    await new Promise(requestAnimationFrame);
    const live = app.live;
    if (!live || live.step === step) continue;
    step = live.step;
    ages.push((Date.now() - live.time + 2 ** 32) % 2 ** 32);
    gaps.push(performance.now() - last);
    last = performance.now();
  }
  return [ages, gaps, step];
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
    _help()
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
        settled(tab)
        paint = tab.evaluate("performance.getEntriesByType('paint').map(entry => entry.startTime)")
        print(f"first paint: {max(paint, default=float('nan')):.0f} ms")
        state = "{ samples: 5000, 'a.steps': 100, 'a.solver': 'euler', contours: false, metric: 'sliced' }"
        tab.evaluate(f"playground.app.store.set({state})")
        print(f"5,000 points x 100 steps, exact denoiser of 500, figures included: {settled(tab):.1f} s")
        gaps, draws, width = tab.evaluate(DRAW)
        for name, values in (("frame", gaps), ("draw", draws)):
            print(f"{name}: median {np.median(values):.1f} ms, 95 % below {np.percentile(values, 95):.1f} ms", end="; ")
        print(f"picture of {width} x {width} pixels")
        _live(browser)
        browser.close()


def _help() -> None:
    """Print how long the example's scripts take to print their help, the best of three."""
    for name in ("swiss_roll_example.py", "run_swiss_roll_example.py"):
        command, times = [sys.executable, str(ROOT / "playground" / "points_2d" / name), "--help"], []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        print(f"{name} --help: {min(times):.2f} s")


def _live(browser: Any, seconds: int = 15) -> None:
    """Train in the page with its defaults, and print how often samples come and how old they are."""
    command = [sys.executable, "-m", "pointdiffusion", "play", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        address = next(iter(server.stdout or []), "").split()[-1]
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        for _ in range(100):
            with contextlib.suppress(Exception):
                tab.goto(f"{address}#train.steps=20000")
                break
            time.sleep(0.1)
        settled(tab)
        tab.click("#train-main")
        while tab.evaluate("playground.app.trainer.phase !== 'running'"):
            tab.wait_for_timeout(20)
        ages, gaps, step = tab.evaluate(LIVE, seconds)
        print(
            f"training with the defaults: {step / seconds:.0f} steps and {len(ages) / seconds:.1f} pictures a second; "
            f"age when shown: median {np.median(ages):.0f} ms, 95 % below {np.percentile(ages, 95):.0f} ms; "
            f"between two pictures: 95 % below {np.percentile(gaps, 95):.0f} ms"
        )
        tab.close()
        server.send_signal(signal.SIGINT)


def _covariance(scaled: Any) -> Any:
    import torch

    return torch.from_numpy(np.cov(scaled.T))


if __name__ == "__main__":
    main()
