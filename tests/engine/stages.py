# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what a release says of pipeline stages anew: python tests/engine/stages.py 0.33.0 [ORG/NAME ...]

Every line of tests/fixtures/models/stage_figures.jsonl is asked again. Names that it does not have get the middle one
of three stages, which tells whether the ends of the model are on each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import shapes
from prepare import prepare

FIGURES = shapes.MODELS / "stage_figures.jsonl"
LAYOUT = ("repo_id", "tensor_parallel", "pipeline_parallel", "stage")


def key(record: dict[str, Any]) -> tuple[Any, ...]:
    """The order of the file: by name, then by layout."""
    return (record["repo_id"].lower(), *(record[name] for name in LAYOUT[1:]))


def ask(version: str, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the release says of these stages."""
    models = {record["repo_id"]: record for record in shapes.read(shapes.CONFIGS)}
    cases = [{**models[one["repo_id"]], **one, "rank": one["stage"] * one["tensor_parallel"]} for one in wanted]
    done = prepare(version).run(Path(__file__).with_name("_stages.py"), json.dumps(cases))
    if done.returncode:
        raise SystemExit(f"vllm {version} does not tell its stages:\n{done.stderr[-2000:]}")
    answers = zip(wanted, json.loads(done.stdout))
    return [
        {
            "repo_id": one["repo_id"],
            "vllm": version,
            "board": "h100",
            **{name: one[name] for name in LAYOUT[1:]},
            **answer,
        }
        for one, answer in answers
    ]


def main(version: str, *names: str) -> None:
    wanted = shapes.read(FIGURES)
    known = {record["repo_id"] for record in wanted}
    wanted += [dict(zip(LAYOUT, (name, 1, 3, 1))) for name in names if name not in known]
    lines = [json.dumps(record) for record in sorted(ask(version, wanted), key=key)]
    FIGURES.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
