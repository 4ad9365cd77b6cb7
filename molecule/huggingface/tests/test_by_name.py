# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that the catalogue has never heard of, by the name of its repository; and once more with the hub down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import ENDPOINT, REPO, note
from scenario import Play, on_node, run_play, warnings

#: What a repository brings beside the safetensors that vLLM reads.
COPIES = ("ballast", "original/")
NOBODY = "http://127.0.0.1:9"


def play(name: str, home: str, **more: Any) -> Play:
    variables = {"model": REPO, "vllm_device": "cpu", "huggingface_endpoint": ENDPOINT, "huggingface_home": home}
    return run_play(f"playbooks/{name}.yml", "-e", json.dumps({**variables, **more}))


def test_the_second_plan_needs_no_hub(pull, tmp_path: Path) -> None:
    plans = [tmp_path / "first.json", tmp_path / "second.json"]
    result = play("plan", pull.home, json=str(plans[0]))
    assert result.status == 0, result.text
    assert on_node(f"ls -d {pull.home}", check=False) == ""  # a plan leaves nothing behind
    assert play("weights", pull.home).status == 0
    sent = pull.sent()
    assert [name for name in sent if name.startswith(COPIES)] == []
    assert sent["model.safetensors"] == pull.sizes()["model.safetensors"]

    requests = pull.hub.counters()["total_requests"]
    for name, options in (("weights", {}), ("plan", {"json": str(plans[1])})):
        result = play(name, pull.home, huggingface_endpoint=NOBODY, **options)
        assert result.status == 0, result.text
        assert warnings(result.text) == []
        assert NOBODY not in result.words
    assert pull.hub.counters()["total_requests"] == requests
    rows = [json.loads(plan.read_text(encoding="utf-8")) for plan in plans]
    assert rows[0] == rows[1]
    note(f"{sum(sent.values()) / 1e6:.1f} MB of {sum(pull.sizes().values()) / 1e6:.0f} MB were fetched")


def test_allowed_patterns_are_downloaded(pull) -> None:
    assert (
        play("weights", pull.home, vllm_allow_patterns=["*.json", "*.safetensors", "original/params.json"]).status == 0
    )
    assert {"config.json", "original/params.json"} <= pull.sent().keys()
    assert [name for name in pull.sent() if name.startswith("ballast") or name.endswith(".pth")] == []


def test_a_refusal_comes_before_anything_changes(pull) -> None:
    result = play("weights", pull.home, model=f"{REPO}@v9")
    assert result.status != 0
    assert f"{REPO} has no revision v9" in result.words
    assert "1 problem found; nothing was changed" in result.words
    assert result.changed == 0
    assert on_node(f"ls -d {pull.home}", check=False) == ""
