"""A picture of the top of a report's page, as a browser draws it.

    uv run benchmarks/screenshot.py runs/analyze/quickstart/report.html results/page.png --width 1280

It needs Chromium: apt-get install chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="a report.html")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels (1280)")
    parser.add_argument("--height", type=int, default=1500, help="of the window, in pixels (1500)")
    parser.add_argument("--dark", action="store_true", help="as on a dark screen")
    parser.add_argument("--at", default="", help="anchor to begin at instead of the top, e.g. table2")
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: no chromium here; apt-get install chromium")
    if not given.page.is_file():
        sys.exit(f"error: {given.page} is not there; give a report.html that analyze.py wrote")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        window = browser.new_page(
            viewport={"width": given.width, "height": given.height}, color_scheme="dark" if given.dark else "light"
        )
        window.goto(given.page.resolve().as_uri() + (f"#{given.at}" if given.at else ""))
        png = window.screenshot()
        browser.close()
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    # 256 colours are all that a page has, and a fifth of the bytes.
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(given.picture, optimize=True)
    print(f"{given.picture}: {given.picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
