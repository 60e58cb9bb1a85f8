"""Write the pictures of the interactive page: the README's, and the one that sites show beside a link to the page.

python tools/page_pictures.py       # needs Chromium and playwright; writes docs/images/page.png and page-card.png
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

from softnll._inspection.page.build import build

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
# File: what follows '#', the window's size, the picture's scale, and the number that is pressed.
PICTURES = {
    "page.png": ("#room=scores", (1280, 1000), 1, "#loss-2"),
    "page-card.png": ("#room=story", (1500, 788), 0.8, None),
}


def main() -> None:
    """Take the pictures in a real browser."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "page.html"
        page.write_text(build(), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (address, (width, height), scale, pressed) in PICTURES.items():
            window = ViewportSize(width=width, height=height)
            tab = browser.new_page(viewport=window, device_scale_factor=scale, color_scheme="light")
            tab.goto(page.as_uri() + address)
            if pressed:
                tab.click(pressed)
            tab.screenshot(path=IMAGES / name)
        browser.close()


if __name__ == "__main__":
    main()
