# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Usage as people read it, and what keeps it as the role writes it."""

from __future__ import annotations

import csv
import io

from ansible_collections.gpunode.llm.plugins.module_utils.instance import names
from ansible_collections.gpunode.llm.plugins.plugin_utils.gateway import usage


def row(day, client, requests, tokens_in, tokens_out):
    numbers = {"requests": requests, "prompt_tokens": tokens_in, "generation_tokens": tokens_out}
    return {"day": day, "client": client, "model": "8b", **numbers}


FIRST = {"counted": True, "rows": [row("2026-11-26", "ada", 2, 1200, 34), row("2026-11-27", "grace", 1, 5, 6)]}
SECOND = {
    "counted": True,
    "rows": [row("2026-11-26", "ada", 1, 100, 1)],
    "trouble": ["/x/2026-11-25.json cannot be read."],
}


def test_gateways_are_added_up():
    report = usage.report([FIRST, SECOND, {}])
    assert report["rows"] == [row("2026-11-26", "ada", 3, 1300, 35), row("2026-11-27", "grace", 1, 5, 6)]
    assert report["text"] == [
        "day         client  model  requests  tokens in  tokens out",
        "2026-11-26  ada     8b            3      1,300          35",
        "2026-11-27  grace   8b            1          5           6",
        "in all                            4      1,305          41",
        "/x/2026-11-25.json cannot be read.",
    ]
    read = list(csv.DictReader(io.StringIO(report["csv"])))
    assert [one["prompt_tokens"] for one in read] == ["1300", "5"]


def test_nothing_is_told_in_a_sentence():
    assert usage.report([{"counted": True, "rows": []}])["text"] == ["No request was counted in these days."]
    said = usage.report([{"counted": False, "rows": []}, {}])["text"]
    assert said[1] == "Usage is counted on no node: set usage_enabled and gateway_enabled, and run site.yml."


def test_it_reads_the_engines_that_have_an_api():
    instances = [
        {"name": "8b", "port": 8000},
        {"name": "405b", "host": "10.0.0.2", "port": 8001},
        {"name": "rank", "port": 8002, "config": {"headless": True}},
    ]
    given = {"instances": instances, "workers": "", "limits": {"ada": 5}, "interval_s": 5, "keep_days": 400}
    settings = usage.plan(given)["settings"]
    assert settings["engines"] == ["http://127.0.0.1:8000", "http://10.0.0.2:8001"]
    assert settings["limits"] == {"ada": 5}
    # The gateway looks there, and shows that.
    assert f"{settings['run']}/over" == names.USAGE_OVER
    assert f"{settings['run']}/metrics.prom" == names.USAGE_METRICS
