# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shapes of public models in tests/fixtures/models hold what sizes a model; the engine has answered for each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[3] / "fixtures" / "models"
SOURCES = {"config.json", "config.json excerpt", "config class"}


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (MODELS / name).read_text(encoding="utf-8").splitlines()]


CONFIGS = read("configs.jsonl")


def test_each_model_stands_there_once_and_in_order():
    names = [record["repo_id"].lower() for record in CONFIGS]
    assert names == sorted(set(names))
    assert len(names) >= 110


@pytest.mark.parametrize("record", CONFIGS, ids=lambda record: record["repo_id"])
def test_a_shape_has_a_title_and_a_source(record):
    config = record["config"]
    assert record["source"] in SOURCES
    assert record["repo_id"].count("/") == 1
    assert config.get("architectures") or config["model_type"]
    assert not {"transformers_version", "eos_token_id"} & set(config)


def test_the_engines_figures_are_recorded_for_each_width():
    recorded = [(record["repo_id"], record["tensor_parallel"]) for record in read("engine_figures.jsonl")]
    assert sorted(recorded) == sorted((record["repo_id"], width) for record in CONFIGS for width in (1, 2))
