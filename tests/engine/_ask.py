# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a release's environment: ask it as a node asks its image before a service is stopped.

Reads a JSON list of cases from stdin, each {"options": vLLM's configuration, "hf": the repository's config.json}, and
prints the list of answers of the product's own program.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from figures import apart, engine_figures

#: Imported before the processes part: each would take seconds for it.
ONCE = (
    "vllm.engine.arg_utils",
    "vllm.entrypoints.cli.serve",
    "vllm.model_executor.model_loader.utils",
    "vllm.model_executor.models.qwen3_moe",
)


def answer(case: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(case["hf"]), encoding="utf-8")
        options = {**case["options"], "model": folder, "skip-tokenizer-init": True}
        path = Path(folder) / "engine.yaml"
        path.write_text(json.dumps(options), encoding="utf-8")
        return engine_figures.answer(engine_figures.parsed(str(path)))


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):
        for name in ONCE:
            importlib.import_module(name)
        answers = [apart(functools.partial(answer, case)) for case in json.load(sys.stdin)]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
