# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a release's environment: parse rendered configurations and construct the engine's from each.

Reads a JSON list of cases from stdin, each {"name", "config": vLLM's --config file, "hf": the repository's
config.json}, and prints a list of {"name", "error", "warnings", "tensor_parallel_size", ...}. The file is parsed twice:
as it was rendered, and with the repository replaced by a folder that holds its config.json, since there is no hub here.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import yaml
from _board import hide_torchvision, inspect_here
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.logger import _print_warning_once
from vllm.utils.argparse_utils import FlexibleArgumentParser


class Collect(logging.Handler):
    """What the release logs as a warning while it reads one case."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def parse(parser: FlexibleArgumentParser, folder: Path, config: dict) -> object:
    path = folder / "engine.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return parser.parse_args(["serve", "--config", str(path)])


def check(parser: FlexibleArgumentParser, folder: Path, case: dict) -> dict:
    parse(parser, folder, case["config"])
    (folder / "config.json").write_text(json.dumps(case["hf"]), encoding="utf-8")
    # A folder has no revision, and a reasoning parser asks a tokenizer for its words.
    local = {key: value for key, value in case["config"].items() if key not in ("revision", "reasoning-parser")}
    arguments = parse(parser, folder, {**local, "model": str(folder)})
    if arguments.headless and arguments.api_server_count:
        raise ValueError("api_server_count can't be set in headless mode")  # as run_headless does, which starts workers
    built = AsyncEngineArgs.from_cli_args(arguments).create_engine_config(headless=arguments.headless)
    return {
        "nnodes": built.parallel_config.nnodes,
        "node_rank": built.parallel_config.node_rank,
        "local_world_size": built.parallel_config.local_world_size,
        "master": [built.parallel_config.master_addr, built.parallel_config.master_port],
        "tensor_parallel_size": built.parallel_config.tensor_parallel_size,
        "pipeline_parallel_size": built.parallel_config.pipeline_parallel_size,
        "data_parallel_size": built.parallel_config.data_parallel_size,
        "max_model_len": built.model_config.max_model_len,
    }


def main() -> None:
    hide_torchvision()
    inspect_here()
    collect = Collect()
    logging.getLogger("vllm").addHandler(collect)
    parser = FlexibleArgumentParser(prog="vllm")
    subparsers = parser.add_subparsers(dest="subparser")
    ServeSubcommand().subparser_init(subparsers)
    results = []
    for case in json.load(sys.stdin):
        collect.lines = []
        _print_warning_once.cache_clear()  # or only the first case would be warned
        output = io.StringIO()
        result = {"name": case["name"], "error": ""}
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stderr(output),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            try:
                result.update(check(parser, Path(folder), case))
            except (SystemExit, Exception) as error:  # the parser exits, the configuration raises
                result["error"] = output.getvalue().strip()[-500:] or repr(error)[:500]
        lines = [*collect.lines, *(str(item.message) for item in caught)]
        results.append({**result, "warnings": lines})
    json.dump(results, sys.__stdout__)


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # whatever vLLM prints must not come between
        main()
