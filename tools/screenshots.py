"""Draw the pictures of the page that the documents show, in a real browser: `python tools/screenshots.py`.

Needs Chromium (Debian's package `chromium`), a font with Chinese letters (`fonts-noto-cjk`), and Playwright, which
`make test` installs.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "src" / "pointdiffusion" / "web" / "playground.html"
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SHOTS = {
    "playground-light": (1440, 900, "light", "shape=heart&t=0.62&trails=1&probe=1.6,1.3&n=400&samples=700&a.steps=30"),
    "playground-dark": (
        1440, 900, "dark", "shape=spirals&noise=0.03&classes=1&t=0.5&compare=1&field=1&contours=0&b.solver=auto",
    ),
    "playground-phone": (360, 780, "dark", "shape=pinwheel&classes=1&t=0.7&n=400&lang=zh"),
}  # fmt: skip
TRAINING = (1440, 900, "light", "shape=spirals&noise=0.03&n=1000&samples=1000&t=1&classes=0&train.steps=1500")


def keep(tab: Any, name: str) -> None:
    """Write what is to be seen to `docs/`, in 256 colours so that it stays small."""
    shot = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    shot.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(ROOT / "docs" / f"{name}.png", optimize=True)


@contextlib.contextmanager
def playing() -> Iterator[str]:
    """Serve the page, and yield its address."""
    command = [sys.executable, "-m", "pointdiffusion", "play", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        address = next(iter(server.stdout or []), "").split()[-1]
        time.sleep(2)
        yield address
        server.send_signal(signal.SIGINT)


def main() -> None:
    """Write `docs/playground-*.png`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, (width, height, theme, state) in SHOTS.items():
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, offline=True, color_scheme=theme)  # type: ignore[arg-type]
            tab = context.new_page()
            tab.goto(f"{PAGE.as_uri()}#{state}")
            while tab.evaluate("!window.playground || playground.app.busy"):
                time.sleep(0.1)
            time.sleep(1)
            keep(tab, name)
            context.close()
        with playing() as address:
            width, height, theme, state = TRAINING
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
            tab.goto(f"{address}#{state}")
            tab.click("#train-main")
            quarter = (
                "playground.app.trainer.steps && playground.app.trainer.step > 0.25 * playground.app.trainer.steps"
            )
            while not tab.evaluate(quarter):
                tab.wait_for_timeout(50)
            keep(tab, "playground-training")
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
