# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what a release says of the models in tests/fixtures/models: python tests/engine/shapes.py 0.33.0 [ORG/NAME ...]

configs.jsonl holds their config.json, fields only. engine_figures.jsonl gets a line for each of them and each width, in
some seconds each; with names, only their lines are written anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from prepare import prepare

MODELS = Path(__file__).resolve().parents[1] / "fixtures" / "models"
CONFIGS = MODELS / "configs.jsonl"
FIGURES = MODELS / "engine_figures.jsonl"
WIDTHS = (1, 2)


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def key(record: dict[str, Any]) -> tuple[str, int]:
    """The order of both files: by name, then by width."""
    return record["repo_id"].lower(), record.get("tensor_parallel", 1)


def cases(names: list[str], widths: tuple[int, ...] = WIDTHS) -> list[dict[str, Any]]:
    """What figures.py is asked: each of these models, or every one, at each width."""
    models = [record for record in read(CONFIGS) if not names or record["repo_id"] in names]
    return [{**record, "tensor_parallel": width} for record in models for width in widths]


def ask(version: str, of_cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the release says of them."""
    done = prepare(version).run(Path(__file__).with_name("figures.py"), json.dumps(of_cases))
    if done.returncode:
        raise SystemExit(f"vllm {version} does not tell its figures:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(version: str, *names: str) -> None:
    records = {key(record): record for record in (read(FIGURES) if names else [])}
    records.update((key(record), record) for record in ask(version, cases(list(names))))
    lines = [json.dumps(records[name]) for name in sorted(records)]
    FIGURES.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
