# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a page of Prometheus in a browser, photograph it, and print what it shows: photograph.py BROWSER URL PICTURE"""

from __future__ import annotations

import json
import sys

from playwright.sync_api import sync_playwright

#: Of each chart that is shown its title and its first value.
CHARTS = """figures => Object.fromEntries(figures.filter(one => one.offsetParent).map(one =>
  [one.querySelector("figcaption").textContent, one.querySelector("b")?.textContent.trim() ?? ""]))"""
ROWS = "heads => heads.filter(one => one.offsetParent).map(one => one.firstChild.textContent.trim())"


def main(browser: str, url: str, picture: str) -> None:
    trouble: list[str] = []
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.goto(url)
        page.locator("#span").select_option("900")
        page.wait_for_selector("body[data-shown]", timeout=120_000)
        page.wait_for_timeout(3000)
        page.screenshot(path=picture, full_page=True)
        seen = {"trouble": trouble, "rows": page.eval_on_selector_all("h2", ROWS)}
        print(json.dumps({**seen, "charts": page.eval_on_selector_all("figure", CHARTS)}))
        chromium.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
