# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Under a load every expression has data, and the page shows it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nodes as lab_nodes
import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import series
from clients import Front, Load, steady_load
from conftest import HERE, HOST, KEY, asked, note, prometheus
from scenario import CHECKOUT, wait_until

TABLE = series.table()
#: What no node of the lab has.
ELSEWHERE = ("a draft model", "usage by client")


@pytest.fixture(scope="module")
def load(front: Front) -> Iterator[Load]:
    with steady_load(front, KEY, lines=4) as running:
        yield running


def empty() -> list[str]:
    """The expressions of charts that have no data."""
    queries = [(panel, query) for panel in TABLE.panels if panel.needs not in ELSEWHERE for query in panel.queries]
    return [
        f"{panel.row}, {panel.title}: {query.expr}"
        for panel, query in queries
        if not asked(TABLE.expression(query.expr))
    ]


def test_every_expression_of_the_charts_has_data(load: Load) -> None:
    def all_have_data() -> bool:
        return not empty()

    try:
        wait_until(all_have_data, 180)
    finally:
        note(f"{load.figures()}; without data: {empty() or 'none'}")


def test_every_rule_is_evaluated(load: Load) -> None:
    (group,) = prometheus("rules")["groups"]
    names = [*TABLE.recordings, *(alert.name for alert in TABLE.alerts)]
    assert {rule["name"]: rule["health"] for rule in group["rules"]} == dict.fromkeys(names, "ok")


@contextmanager
def tunnel(port: int) -> Iterator[str]:
    """Prometheus of the node on this machine, as the guide says."""
    line = ["ssh", "-N", "-L", f"{port}:127.0.0.1:9090", *lab_nodes.ssh_command(HOST)[1:]]
    program = subprocess.Popen(line, stdin=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        program.terminate()
        program.wait()


def test_the_page_shows_it(load: Load, tmp_path: Path) -> None:
    """In a browser. With SCREENSHOTS=FOLDER the photograph is kept."""
    browser = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if not browser:
        pytest.skip("this machine has no Chromium")
    picture = Path(os.environ.get("SCREENSHOTS", tmp_path)) / "monitoring.png"
    subprocess.run(
        [CHECKOUT / "tests" / "venv.sh", ".venv-site", "tests/site/requirements.txt"], cwd=CHECKOUT, check=True
    )
    with tunnel(29091) as url:
        line = [
            CHECKOUT / ".venv-site" / "bin" / "python",
            HERE / "photograph.py",
            browser,
            f"{url}/consoles/index.html",
        ]
        done = subprocess.run([*line, picture], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["trouble"] == []
    assert seen["rows"] == TABLE.rows
    expected = {panel.title for panel in TABLE.panels if panel.needs not in ELSEWHERE}
    assert set(seen["charts"]) == expected
    assert all(value and value != "none" for value in seen["charts"].values()), seen["charts"]
    note(f"{load.figures()}; {seen['charts']}")
