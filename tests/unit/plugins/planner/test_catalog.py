# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue as it stands, and what a user may lay over it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import near, version_key
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, FIXTURES, SHAPE, findings, one

RECORDED: dict[str, Any] = json.loads((FIXTURES / "vllm" / "flags-0.33.0.json").read_text(encoding="utf-8"))


def test_what_must_be_there() -> None:
    assert {"8b", "8b-fp8", "8b-w4a16", "70b", "70b-fp8", "70b-w4a16", "3.3-70b", "tiny"} <= set(CATALOG.models)
    assert {"405b", "405b-fp8", "405b-fp8-meta", "405b-w4a16"} <= set(CATALOG.models)
    for name in ("a100-40", "a100-80", "h100", "h100-pcie", "h100-nvl", "h200", "b200", "gh200", "l40s", "a10g"):
        assert CATALOG.gpu(name), name


@pytest.mark.parametrize("model", CATALOG.models.values(), ids=lambda model: model.key)
def test_models(model: Any) -> None:
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.repo_id)
    assert model.revision is None or re.fullmatch(r"[0-9a-f]{40}", model.revision)
    assert model.gated == model.repo_id.startswith("meta-llama/")
    for name in model.vllm:
        assert name in CATALOG.engine(None).flags


def recorded_name(options: list[str]) -> str:
    return next((option[2:] for option in options if option.startswith("--") and option != "--help"), "")


def test_engine_flags_are_those_that_were_recorded() -> None:
    engine = CATALOG.engine("0.33.0")
    recorded = {
        option[2:]
        for dest, (options, _default) in RECORDED.items()
        for option in options
        if option.startswith("--") and dest != "help"
    }
    assert recorded <= set(engine.spellings)  # the parser knows hidden forms as well: no-enable-x beside disable-x
    assert {recorded_name(options) for options, _default in RECORDED.values()} - {""} == set(engine.flags)
    for name in engine.removed:
        assert name not in engine.spellings
    for name in (*engine.deprecated, *engine.config):
        assert name in engine.flags
    assert engine.flags["gpu-memory-utilization"].default == engine.gpu_memory_utilization


def test_engines() -> None:
    assert CATALOG.engine(None).version == max(CATALOG.engines, key=version_key)
    assert CATALOG.engine("v0.33.0") is CATALOG.engine("vllm-0.33.0") is CATALOG.engine("0.33.0")
    with pytest.raises(ValueError, match=r"'0\.1' is not in the catalogue. Known: .*0\.33\.0.*extra_engines"):
        CATALOG.engine("0.1")


def test_batched_tokens() -> None:
    engine = CATALOG.engine("0.33.0")
    assert engine.batched_tokens(79.2, "NVIDIA H100 80GB HBM3") == 8192
    assert engine.batched_tokens(79.5, "NVIDIA A100-SXM4-80GB") == 2048
    assert engine.batched_tokens(178, "NVIDIA B200") == 16384
    assert engine.batched_tokens(22, "NVIDIA A10G") == 2048
    bare = load_catalog(extra_engines={"0.33.0": {"memory": {**MEMORY, "batch_defaults": []}}}).engine(None)
    with pytest.raises(ValueError, match="batch_defaults has no rule"):
        bare.batched_tokens(80, "any")


def drafted(change: dict[str, Any], *more: Any) -> dict[str, Any]:
    """An entry with a draft that is changed so."""
    draft = {"repo_id": "c/d", "method": "eagle3", "tokens": "3"}
    return {"repo_id": "a/b", "config": SHAPE, "drafts": [{**draft, **change}, *more]}


MEMORY = {
    "gpu_memory_utilization": 0.9,
    "block_size": 16,
    "runtime_overhead_gib": 0.45,
    "counts_graphs": True,
    "batch_defaults": [],
}


def test_a_users_own_engine_needs_only_what_differs() -> None:
    catalog = load_catalog(extra_engines={"0.34.1": {"images": [{"image": "mine/vllm:1", "device": "cuda"}]}})
    assert one("1xH100", catalog, model="8b").image == "mine/vllm:1"
    assert one("1xH100", catalog, model="8b", engine="0.33.0").image.startswith("vllm/")


def test_models_are_found_by_key_and_by_repository() -> None:
    assert CATALOG.model("8B").key == CATALOG.model(" 8b ").key == "8b"
    assert CATALOG.model("meta-llama/llama-3.1-8b-instruct").key == "8b"


@pytest.mark.parametrize(("wrong", "meant"), [("405b-fp", "405b-fp8"), ("7b", "70b"), ("tinny", "tiny")])
def test_an_unknown_model_names_near_ones(wrong: str, meant: str) -> None:
    message = findings("1xH100", model=wrong)
    assert message.startswith(f"Model {wrong!r} is not in the catalogue. Did you mean ")
    assert meant in message.split("?", maxsplit=1)[0]
    assert "by its repository, ORG/NAME" in message


def test_nothing_is_near() -> None:
    assert "Did you mean" not in findings("1xH100", model="zzzzzzzz")
    assert near("zzzzzzzz", ["8b"]) == []


def test_a_model_that_the_catalogue_has_never_seen() -> None:
    """From the fields of its config.json through the whole plan."""
    config = {
        **SHAPE,
        "architectures": ["MistralForCausalLM"],
        "num_hidden_layers": 40,
        "hidden_size": 5120,
        "vocab_size": 131072,
        "head_dim": 128,
        "torch_dtype": "bfloat16",
    }
    catalog = load_catalog({"nemo": {"repo_id": "mistralai/Mistral-Nemo-Instruct-2407", "config": config}})
    instance = one("2xL40S", catalog, model="nemo")
    assert instance.weights_bytes == pytest.approx(24.5e9, rel=0.01)  # the size of its published index
    assert (instance.repo_id, instance.revision) == ("mistralai/Mistral-Nemo-Instruct-2407", None)
    assert (instance.tensor_parallel_size, instance.data_parallel_size) == (1, 2)
    assert "revision" not in instance.config
    assert "tool-call-parser" not in instance.config


def test_amending_a_model() -> None:
    catalog = load_catalog(
        {"8b": {"repo_id": "mirror/8b", "max_model_len": "4096"}, "mine": {"repo_id": "a/b", "config_of": "8b"}}
    )
    assert one("1xH100", catalog, model="8b").repo_id == "mirror/8b"
    assert one("1xH100", catalog, model="8b").max_model_len == 4096
    assert catalog.models["mine"].architecture == CATALOG.models["8b"].architecture


@pytest.mark.parametrize(
    ("quantization", "weights"),
    [
        ({}, "bf16"),
        ({"quant_method": "fbgemm_fp8"}, "fbgemm-fp8"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8}}}}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}}, "w4a16"),
    ],
)
def test_the_weights_of_a_config_json(quantization: dict[str, Any], weights: str) -> None:
    config = {**SHAPE, "quantization_config": quantization}
    assert load_catalog({"m": {"repo_id": "a/b", "config": config}}).models["m"].weights.key == weights


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({}, "repo_id is missing"),
        ({"repo_id": "a/b"}, "give `config`"),
        ({"repo_id": "a/b", "config_of": "nobody"}, "give `config`"),
        ({"repo_id": "a/b", "config_of": "8b", "variant_of": "nobody"}, "variant_of names 'nobody', which is not in"),
        ({"repo_id": "a/b", "config": SHAPE, "revison": "x"}, "unknown key 'revison', did you mean 'revision'?"),
        ({"repo_id": "a/b", "config": SHAPE, "@": 1}, "unknown key '@'."),
        ({"repo_id": "a/b", "config": SHAPE, "weights": "int3"}, "weights 'int3' is unknown; known: bf16, fp8"),
        ({"repo_id": "a/b", "config": SHAPE, "device": "tpu"}, "device must be cuda or cpu"),
        ({"repo_id": "a/b", "config": {**SHAPE, "hidden_size": "wide"}}, "hidden_size must be a whole number"),
        ({"repo_id": "a/b", "config": {**SHAPE, "vocab_size": 0}}, "vocab_size must be at least 1"),
        ({"repo_id": "a/b", "config": SHAPE, "max_model_len": 0}, "max_model_len must be at least 1, not 0"),
        (
            drafted({}, "eagle3"),
            "draft 2 must be a dictionary such as {repo_id: ORG/DRAFT, method: eagle3}, not 'eagle3'",
        ),
        ({"repo_id": "a/b", "config": SHAPE, "drafts": "c/d"}, "drafts must be a list, not 'c/d'"),
        (drafted({"model": "c/d"}), "draft 1: unknown key 'model'"),
        (drafted({"method": "medusa"}), "draft 1: method must be one of draft_model, eagle, eagle3, dflash, mtp"),
        (drafted({"repo_id": ""}), "draft 1: the method eagle3 needs a repo_id"),
        (drafted({"method": "mtp"}), "draft 1: the method mtp takes no repo_id"),
        (drafted({"tokens": 0}), "draft 1: tokens must be at least 1, not 0"),
        (drafted({"tokens": 129}), "draft 1: tokens must be at most 128, not 129"),
        (drafted({"repo_id": "c"}), "draft 1: 'c' is not the name of a repository"),
        (drafted({"revision": "../x"}), "draft 1: "),
        ({"repo_id": "a/b", "config": "SHAPE"}, "config must be a dictionary such as {name: value}, not 'SHAPE'."),
        ({"repo_id": ["a/b"], "config": SHAPE}, "repo_id must be a text, not ['a/b']."),
        ({"repo_id": "a/b", "config": SHAPE, "title": "two\nlines"}, "title must be a text, not 'two\\nlines'."),
        ({"repo_id": "a/b", "config": SHAPE, "env": ["A=1"]}, "env must be a dictionary"),
        ({"repo_id": "a/b", "config": SHAPE, "files": {"x": "many"}}, "files: x must be a whole number, not 'many'."),
        ({"repo_id": "a/b", "config": SHAPE, "allow_patterns": "*.json"}, "allow_patterns must be a list of texts"),
        ({"repo_id": "a/b", "config": SHAPE, "gated": "no"}, "gated must be true or false, not 'no'."),
        ({"repo_id": "a/b", "config": SHAPE, "weights_bytes": 1.5}, "weights_bytes must be a whole number, not 1.5."),
        ("a/b", "must be a dictionary such as {name: value}, not 'a/b'."),
    ],
)
def test_a_model_that_cannot_be_read(entry: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"^model m\b") as raised:
        load_catalog({"m": entry})
    assert says in str(raised.value)


def test_own_models_that_are_no_dictionary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^extra_models must be a dictionary such as \{name: \{…\}\}, not \['m'\]\.$"):
        load_catalog(["m"])


def test_an_unsizable_model_is_never_sized() -> None:
    strange = {**SHAPE, "architectures": ["StrangeForCausalLM"]}
    unread = {**SHAPE, "quantization_config": {"quant_method": "strange"}}
    models = load_catalog(
        {"kind": {"repo_id": "a/b", "config": strange}, "format": {"repo_id": "a/c", "config": unread}}
    ).models
    with pytest.raises(ValueError, match=r"^model kind: .*StrangeForCausalLM"):
        repr(models["kind"].sized)
    with pytest.raises(ValueError, match=r"^model format: .*strange"):
        repr(models["format"].stored)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"memory_mib": 1}, "compute_capability must look like 9.0, not ''"),
        ({"compute_capability": "9.0"}, "memory_mib must be a whole number, not None"),
        ({"compute_capability": "9.0", "memory_mib": 1, "size": 2}, "unknown key 'size'"),
        # A text is a list of its letters to Python.
        ({"compute_capability": "9.0", "memory_mib": 1, "names": "NVIDIA X"}, "names must be a list of texts"),
        ({"compute_capability": "9.0", "memory_mib": 1, "matrix_counts": ["two"]}, "must be a list of whole numbers"),
    ],
)
def test_a_gpu_that_cannot_be_read(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r"^gpu g: ") as raised:
        load_catalog(extra_gpus={"g": entry})
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"image": "mine/vllm:1"}, "engine 9.9: unknown key 'image', did you mean 'images'?"),
        ({"images": "mine/vllm:1"}, "engine 9.9: images must be a list, not 'mine/vllm:1'."),
        ({"images": [{"image": "mine/vllm:1"}]}, "engine 9.9: images: device is missing."),
        ({"memory": 0.9}, "engine 9.9: memory must be a dictionary"),
        ({"memory": {"block_size": "wide"}}, "engine 9.9: memory: block_size must be a whole number, not 'wide'."),
        ({"memory": {"batch_defaults": [{"batched_tokens": 1}]}}, "batch_defaults: min_memory_gib is missing."),
        ({"flags": {"new": "int"}}, "engine 9.9: flags: new must be a list of its type and default, not 'int'."),
        ({"config": ["a"]}, "engine 9.9: config must be a dictionary"),
        ("mine/vllm:1", "engine 9.9 must be a dictionary such as {name: value}, not 'mine/vllm:1'."),
    ],
)
def test_a_release_that_cannot_be_read(entry: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"^engine 9\.9\b") as raised:
        load_catalog(extra_engines={"9.9": entry})
    assert says in str(raised.value)


def test_a_users_own_engine_keeps_the_memory_that_it_does_not_name() -> None:
    own = load_catalog(extra_engines={"9.9": {"memory": {"runtime_overhead_gib": 2.0}}}).engine("9.9")
    assert own.runtime_overhead_gib == 2.0
    assert own.batch_defaults == CATALOG.engine("0.33.0").batch_defaults


def test_a_users_own_gpu() -> None:
    catalog = load_catalog(extra_gpus={"rtx": {"memory_mib": 97887, "compute_capability": "12.0", "reserved_mib": 600}})
    assert one("2xrtx", catalog, model="8b").data_parallel_size == 2


def test_versions_are_ordered_as_numbers() -> None:
    assert version_key("0.9.1") < version_key("0.33.0") < version_key("0.100")
    assert version_key("580.9") < version_key("580.65.06")


def test_another_catalogue(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_catalog(home=tmp_path)
