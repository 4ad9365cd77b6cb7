# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reports of a benchmark and a tune in a browser, as a play leaves them: they load nothing, and everything fits.

With SCREENSHOTS=FOLDER each page is photographed, on a screen and on a phone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests" / "unit" / "plugins" / "benchmark"))

import records

REPORTS = {
    "compared": [records.record(points=records.points(1.2, 0.02), goals={"ttft_ms": 500.0})],
    "tune": [records.tune()],
    "cpu": [records.without_gpu()],
    "long names": [records.record(label="a-label-of-one-word" * 9, engine=records.engine(**{"x" * 60: "y" * 200}))],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every report, in a folder of its name."""
    home = tmp_path_factory.mktemp("reports")
    earlier = home / "earlier.json"
    earlier.write_text(json.dumps(records.record("20261101T000000Z-8b-guide", points=records.points(noise=0.02))))
    tasks = [
        {
            "name": "Make the report",
            "gpunode.llm.benchmark_report": {
                "records": contents,
                "dir": str(home / name),
                "compare": str(earlier) if name == "compared" else "",
            },
        }
        for name, contents in REPORTS.items()
    ]
    play = home / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    env = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    line = ["ansible-playbook", "-i", "localhost,", "-c", "local", str(play)]
    done = subprocess.run(line, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


@pytest.mark.parametrize(("device", "width"), [("screen", 1200), ("phone", 390)])
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_loads_nothing_and_fits(report: str, device: str, width: int, folder: Path, browser: Browser) -> None:
    (path,) = (folder / report).glob("*.html")
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(path.as_uri())
    if photographs := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{photographs}/report-{report}-{device}.png", full_page=True)
    assert wrong == [path.as_uri()]
    # A table that is wider scrolls by itself.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pictures = page.evaluate(
        "[...document.images].map(image => [image.complete, image.naturalWidth, image.alt !== ''])"
    )
    assert len(pictures) == len(list((folder / report).glob("*.png"))) > 0
    assert {tuple(picture) for picture in pictures} == {(True, 1200, True)}
    if device == "screen" and report != "long names":
        tables = page.evaluate("[...document.querySelectorAll('.wide')].map(box => [box.scrollWidth, box.clientWidth])")
        assert tables
        assert [(wanted, there) for wanted, there in tables if wanted > there] == []
