# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page of the planner answers, without a browser. tests/site has the page itself."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.plan import make_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import read_request
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import SHAPE

CHECKOUT = Path(__file__).resolve().parents[3]
DENSE = {"architectures": ["LlamaForCausalLM"], **SHAPE}


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "docs" / "planner" / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


BRIDGE = loaded("bridge")
MAKE = str(CHECKOUT / "docs" / "planner" / "make.py")


def python(script: str, *arguments: str) -> str:
    """What a script says in an interpreter of its own. Arguments that are options are the interpreter's."""
    options = [word for word in arguments if word.startswith("-")]
    given = [word for word in arguments if word not in options]
    command = [sys.executable, *options, "-c", f"import json, sys\n{script}", *given]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(**question: str) -> dict[str, Any]:
    return json.loads(BRIDGE.answer(json.dumps(question)))


@pytest.mark.parametrize("gpus", ["1xh100", "8xl40s", "1xgb10"])
def test_the_answer_is_the_planners(gpus: str) -> None:
    catalog = load_catalog()
    wanted = {"models": ["8b"], "objective": "latency"}
    plan = make_plan(read_request(wanted, catalog), given_gpus(gpus, catalog), catalog).plan.as_dict()
    answer = ask(model="8b", gpus=gpus, objective="latency")
    assert answer["config"] == plan["instances"][0]["config"]
    assert answer["warnings"] == list(plan["warnings"])
    assert answer["rejected"] == list(plan["rejected"])


@pytest.mark.parametrize(
    ("model", "gpus", "idle"), [("8b", "1xh100", 0), ("405b-fp8", "8xh100", 0), ("70b", "5xh100", 1)]
)
def test_the_parts_of_a_gpu_are_what_an_engine_may_use(model: str, gpus: str, idle: int) -> None:
    boards = ask(model=model, gpus=gpus)["gpus"]
    assert len(boards) == int(gpus[0])
    assert sum(not board["weights"] for board in boards) == idle
    for board in (board for board in boards if board["weights"]):
        assert board["weights"] + board["overhead"] + board["kv"] == pytest.approx(board["usable"])
        assert board["usable"] < board["total"]


def test_an_engine_over_several_nodes() -> None:
    answer = ask(model="405b", gpus="8xh100", nodes_per_engine="2")
    assert answer["plan"]["layout"] == "TP 8 x PP 2 over 2 nodes, on GPUs 0-7 of each"
    assert answer["instance"]["pipeline_parallel_size"] == 2
    assert answer["commands"][1].endswith("-e model=405b -e vllm_nodes_per_engine=2")
    assert [board["weights"] < board["usable"] for board in answer["gpus"]] == [True] * 8


def test_a_misfit_has_a_reason_for_each_layout_and_the_nearest_memory() -> None:
    answer = ask(model="405b", gpus="8xh100")
    assert "plan" not in answer
    assert answer["findings"][0].startswith(
        "405b (meta-llama/Llama-3.1-405B-Instruct, 756.0 GiB of BF16 weights) does not"
    )
    assert {"choice": "TP 3", "reason": "128 attention heads do not divide by TP 3"} in answer["rejected"]
    (board,) = answer["gpus"]
    assert board["weights"] > board["usable"]
    assert answer["commands"] == ["ansible-playbook gpunode.llm.plan -e gpus=8xh100 -e model=405b"]
    assert "does not fit" not in answer["text"]
    assert "GiB per GPU are needed" in " ".join(answer["text"].split())


@pytest.mark.parametrize(
    ("model", "gpus", "says"), [("8b", "1xv100", "compute capability 7.0"), ("8b", "9", "'9' is not")]
)
def test_a_finding_that_no_layout_helps_stands_alone(model: str, gpus: str, says: str) -> None:
    answer = ask(model=model, gpus=gpus)
    assert says in answer["findings"][0]
    assert (answer["rejected"], answer["gpus"]) == ([], [])


def test_a_pasted_config_is_planned_as_the_same_model_of_the_catalogue() -> None:
    pasted = ask(config=json.dumps(DENSE), name="my-org/Mine", gpus="1xh100")
    known = ask(model="8b", gpus="1xh100")
    assert pasted["instance"] == known["instance"]
    assert pasted["gpus"] == known["gpus"]
    stored = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}}
    small = ask(config=json.dumps(DENSE), quantization=json.dumps(stored), gpus="1xh100")
    assert small["instance"]["weights_bytes"] < 0.6 * pasted["instance"]["weights_bytes"]


def test_an_architecture_that_is_not_known_takes_two_figures() -> None:
    config = json.dumps({"architectures": ["NobodyKnowsForCausalLM"], "max_position_embeddings": 32768})
    assert "vllm_kv_bytes_per_token" in ask(config=config, gpus="1xh100")["findings"][0]
    figures = {"weights_bytes": "16000000000", "kv_bytes_per_token": "131072"}
    answer = ask(config=config, gpus="1xh100", max_model_len="8K", **figures)
    assert answer["instance"]["weights_bytes"] == 16_000_000_000
    assert "-e vllm_kv_bytes_per_token=131072" in answer["commands"][0]


SHAPES = (CHECKOUT / "tests" / "fixtures" / "models" / "configs.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("line", SHAPES[::8], ids=lambda line: json.loads(line)["repo_id"])
def test_a_public_model_is_planned_or_refused_with_its_reason(line: str) -> None:
    shape = json.loads(line)
    answer = ask(config=json.dumps(shape["config"]), name=shape["repo_id"], gpus="8xh100")
    assert bool(answer["findings"]) is ("plan" not in answer)
    for board in answer["gpus"] if "plan" in answer else ():
        assert board["weights"] + board["overhead"] + board["kv"] == pytest.approx(board["usable"])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '"text"'])
def test_invalid_configs_are_refused(text: str) -> None:
    assert ask(config=text, gpus="1xh100")["findings"][0].startswith("config.json ")


def test_a_typed_name_is_quoted() -> None:
    commands = ask(config=json.dumps(DENSE), name="my-org/$(rm)", gpus="1xh100")["commands"]
    assert all("'model=my-org/$(rm)'" in command for command in commands)


def test_the_browser_gets_all_that_the_planner_needs(tmp_path: Path) -> None:
    """Nothing but the standard library is beside it: neither Ansible nor PyYAML, nor what other tests have imported."""
    files = json.loads(python("import runpy; print(json.dumps(dict(runpy.run_path(sys.argv[1])['archive']())))", MAKE))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    questions = [
        {"model": "8b", "gpus": "1xh100"},
        {"config": json.dumps(DENSE), "gpus": "1xl4"},
        *({"model": model, "gpus": "8xh200"} for model in ("kimi-k2.5", "qwen3.5-27b", "llama-4-scout", "gemma-4-31b")),
    ]
    script = "sys.path.insert(0, sys.argv[1]); import bridge\n"
    script += "for one in json.loads(sys.argv[2]): print(bridge.answer(json.dumps(one)))"
    result = python(script, str(tmp_path), json.dumps(questions), "-I", "-S")
    assert [json.loads(line) for line in result.splitlines()] == [ask(**question) for question in questions]


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for path in (CHECKOUT / "docs" / "planner").glob("planner.*"):
        found = re.findall(r"https?://[\w.]+", path.read_text(encoding="utf-8"))
        assert set(found) <= {"http://www.w3.org"}  # the name of SVG
