# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models by the names of their repositories: what is asked, what the answer becomes, which files are fetched of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import wanted
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.fetched import patterns
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.listed import listed
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.named import code_files, entries, not_in_catalog
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    SHAPE,
    findings,
    instances,
    one,
    warnings,
)

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
NAME = "Acme/Mine-8B"
LLAMA = {"architectures": ["LlamaForCausalLM"], **SHAPE, "head_dim": 128}
SHARDS = [f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)]
#: 16.06 GB, as the shapes say.
FILES = {"config.json": 700, "tokenizer.json": 9_000_000, **dict.fromkeys(SHARDS, 4_015_000_000)}


def hub_answer(**more: Any) -> dict[str, Any]:
    answer = {"repo_id": NAME, "revision": COMMIT, "branch": "main", "gated": False, "license": "mit"}
    return {**answer, "config": LLAMA, "files": FILES, "index": "", "shards": SHARDS, **more}


def catalog(name: str = NAME, **more: Any) -> Any:
    return load_catalog(entries({name: hub_answer(**more)}))


# -- who is asked for -------------------------------------------------------------------------------------------------
def test_the_catalogues_models_are_not_asked_for() -> None:
    names = ["8b", "meta-llama/Llama-3.1-8B-Instruct", {"model": "70b", "port": 9000}, "8x", "all", None, {"port": 1}]
    assert not_in_catalog(names, CATALOG) == []


def test_a_name_is_a_repository_a_revision_or_a_folder() -> None:
    models = [NAME, {"model": NAME, "name": "b"}, f"{NAME}@v1.0", f"{NAME}@feature/x", "/srv/models/mine/"]
    assert not_in_catalog(models, CATALOG) == [
        {"name": NAME, "repo_id": NAME, "revision": "main"},
        {"name": f"{NAME}@v1.0", "repo_id": NAME, "revision": "v1.0"},
        {"name": f"{NAME}@feature/x", "repo_id": NAME, "revision": "feature/x"},
        {"name": "/srv/models/mine/", "folder": "/srv/models/mine"},
    ]
    of_ours = "meta-llama/Llama-3.1-8B-Instruct@main"
    assert not_in_catalog([of_ours], CATALOG)[0]["revision"] == "main"


@pytest.mark.parametrize(
    "name", ["a/b/c", "https://huggingface.co/a/b", "a/b@", "a/b@x y", "a/b@../c", "/srv/../etc", "a/-b", "/", "a /b"]
)
def test_an_invalid_name_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^Model .* cannot be: .*\. Write ORG/NAME or ORG/NAME@REVISION"):
        not_in_catalog([name], CATALOG)


# -- what it becomes --------------------------------------------------------------------------------------------------
def test_a_model_by_its_name_is_planned_as_one_of_the_catalogue() -> None:
    mine, ours = one("1xH100", catalog(), model=NAME), one("1xH100", model="8b")
    assert (mine.name, mine.served_model_name) == ("mine-8b", NAME)
    assert mine.config["served-model-name"] == [NAME, "mine-8b"]
    assert (mine.revision, mine.branch, mine.config["revision"]) == (COMMIT, "main", COMMIT)
    assert (mine.max_model_len, mine.tensor_parallel_size) == (ours.max_model_len, ours.tensor_parallel_size)
    assert mine.weights_bytes == 4 * 4_015_000_000
    assert mine.ignore_patterns == ()


def test_the_format_of_the_weights_may_stand_beside_the_config() -> None:
    beside = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    instance = one("1xH100", catalog(hf_quant_config=beside), model=NAME)
    assert (instance.precision, one("1xH100", catalog(), model=NAME).precision) == ("FP8", "BF16")


def test_the_revision_is_no_part_of_the_instances_name() -> None:
    assert one("1xH100", catalog(f"{NAME}@v2"), model=f"{NAME}@v2").name == "mine-8b"


def test_another_revision_of_ours_keeps_its_parser() -> None:
    ours = "meta-llama/Llama-3.1-8B-Instruct"
    made = load_catalog(entries({f"{ours}@v2": hub_answer(repo_id=ours, branch="v2")}, CATALOG))
    config = one("1xH100", made, model=f"{ours}@v2").config
    assert (config["tool-call-parser"], config["revision"]) == ("llama3_json", COMMIT)
    assert "tool-call-parser" not in one("1xH100", catalog(), model=NAME).config


def test_two_models_with_one_name_are_refused() -> None:
    both = load_catalog(entries({NAME: hub_answer(), "Other/mine-8b": hub_answer(repo_id="Other/mine-8b")}))
    assert "Two instances are named 'mine-8b'" in findings("2xH100", both, models=[NAME, "Other/mine-8b"])
    assert set(instances("2xH100", both, models=[NAME, {"model": "Other/mine-8b", "name": "b"}])) == {"mine-8b", "b"}


def test_a_folder_is_mounted_and_not_fetched() -> None:
    answer = {**hub_answer(), "folder": "/srv/mine"}
    mine = one("1xH100", load_catalog(entries({"/srv/mine": answer})), model="/srv/mine")
    assert (mine.name, mine.folder, mine.revision, mine.repo_id) == ("mine", "/srv/mine", None, "/srv/mine")
    assert mine.config["model"] == "/model"
    assert "revision" not in mine.config
    assert mine.config["served-model-name"] == ["mine"]


def test_the_status_knows_its_instance_without_a_hub() -> None:
    assert listed([NAME, "8b", {"model": "/srv/x", "name": "y"}]) == {"mine-8b", "8b", "y"}
    assert listed([NAME, "8x"]) is None


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["adapter_config.json"], "is a LoRA adapter (it has adapter_config.json and no model)"),
        (["model_index.json"], "is a pipeline of diffusers"),
        (["m-q4.gguf"], "has GGUF files and no config.json, which vLLM does not read"),
        (["params.json", "consolidated.safetensors"], "has params.json, the form of its maker"),
        (["README.md"], "has no config.json, so it is not known what model it is. It has: README.md."),
        ([], "It has: no file."),
    ],
)
def test_repositories_without_config_json(files: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match="Acme/Mine-8B at 0e9e39f2") as refused:
        entries({NAME: hub_answer(config=None, files=dict.fromkeys(files, 1))})
    assert sentence in str(refused.value)


def test_an_adapter_with_the_config_of_its_model_is_one_all_the_same() -> None:
    with pytest.raises(ValueError, match="is a LoRA adapter"):
        entries(
            {
                NAME: hub_answer(
                    files=dict.fromkeys(["config.json", "adapter_config.json", "adapter_model.safetensors"], 1)
                )
            }
        )


def test_each_that_is_refused_has_a_line() -> None:
    with pytest.raises(ValueError, match=r"^One\.\nTwo\.$"):
        entries({"a/b": {"refused": "One."}, "c/d": {"refused": "Two."}, NAME: hub_answer()})


# -- code -------------------------------------------------------------------------------------------------------------
CODE = {
    "config": {**LLAMA, "auto_map": {"AutoModel": "modeling_x.X"}},
    "files": {**FILES, "modeling_x.py": 1, "a/b.py": 1},
}


def test_code_of_a_repository_needs_a_word() -> None:
    refusal = findings("1xH100", catalog(**CODE), model=NAME)
    assert f"{NAME} at {COMMIT} brings code that would run in the engine: modeling_x.py." in refusal
    assert "vllm_trust_remote_code: true" in refusal
    assert one("1xH100", catalog(**CODE), model=NAME, trust_remote_code=True).config["trust-remote-code"] is True
    assert "trust-remote-code" not in one("1xH100", catalog(**CODE), model=NAME, trust_remote_code=False).config
    own = {"model": NAME, "trust_remote_code": "yes"}
    assert one("1xH100", catalog(**CODE), models=[own]).config["trust-remote-code"] is True


def test_which_code_would_run() -> None:
    files = ["modeling_x.py", "tokenization_x.py", "tools/convert.py", "convert.py"]
    assert code_files({}, files) == ["tokenization_x.py"]
    assert code_files({}, ["convert.py"]) == []
    mapped = {"auto_map": {"AutoModel": "modeling_x.X", "AutoTokenizer": ["a/b--tokenization_y.Y", None]}}
    assert code_files(mapped, files) == ["convert.py", "modeling_x.py", "tokenization_x.py", "a/b--tokenization_y.py"]


# -- files ------------------------------------------------------------------------------------------------------------
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("files", "shards", "copies"),
    [
        pytest.param(["model.safetensors"], [], [], id="nothing twice"),
        pytest.param(
            [
                "model.safetensors",
                "pytorch_model.bin",
                "tf_model.h5",
                "flax_model.msgpack",
                "m.gguf",
                "onnx/model.onnx",
            ],
            [],
            ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "m.gguf", "onnx/model.onnx"],
            id="older forms",
        ),
        pytest.param(
            [ONE, TWO, "original/consolidated.00.pth", "original/params.json", "metal/model.bin"],
            [ONE, TWO],
            ["original/consolidated.00.pth", "original/params.json", "metal/model.bin"],
            id="its maker's",
        ),
        pytest.param(
            [ONE, TWO, "consolidated.safetensors", "consolidated.safetensors.index.json"],
            [ONE, TWO],
            ["consolidated.safetensors", "consolidated.safetensors.index.json"],
            id="consolidated",
        ),
        pytest.param(["consolidated.safetensors"], [], [], id="consolidated alone"),
        pytest.param(
            [ONE, TWO, "model.fp32.safetensors"], [ONE, TWO], ["model.fp32.safetensors"], id="not in the index"
        ),
        pytest.param(
            ["pytorch_model.bin", "optimizer.bin", "training_args.bin", "m.pth"],
            [],
            ["optimizer.bin", "training_args.bin", "m.pth"],
            id="bin alone",
        ),
        pytest.param(
            [
                "model.safetensors",
                "2_Dense/pytorch_model.bin",
                "3_Dense/model.safetensors",
                "3_Dense/pytorch_model.bin",
            ],
            [],
            ["3_Dense/pytorch_model.bin"],
            id="a part of its own in another form",
        ),
        pytest.param(
            ["model.safetensors", "checkpoint-500/model.safetensors"],
            [],
            ["checkpoint-500/model.safetensors"],
            id="run",
        ),
        pytest.param(
            ["model.safetensors", "adapter_model.safetensors", "vision-lora/adapter_model.safetensors"],
            [],
            ["adapter_model.safetensors"],
            id="an adapter beside what it was merged into",
        ),
        pytest.param(["a.gguf", "b.pth"], [], [], id="nothing that is read"),
    ],
)
def test_copies_are_not_fetched(files: list[str], shards: list[str], copies: list[str]) -> None:
    listing = ["config.json", "tokenizer.json", *files]
    ignored = patterns(listing, shards)
    assert [path for path in listing if not wanted(path, (), ignored)] == copies


def test_patterns_are_few() -> None:
    listing = {**FILES, **{f"pytorch_model-{n}.bin": 9 for n in range(99)}, "original/x.pth": 9}
    mine = one("1xH100", catalog(files=listing), model=NAME)
    assert mine.ignore_patterns == ("original/*", "*.bin")
    assert mine.weights_bytes == 4 * 4_015_000_000


def test_files_that_the_user_names_are_downloaded() -> None:
    both = catalog(files={**FILES, "pytorch_model.bin": 7, "original/x.bin": 5})
    everything = one("1xH100", both, model=NAME, ignore_patterns=[])
    assert everything.weights_bytes == 4 * 4_015_000_000 + 12
    allowed = one("1xH100", both, models=[{"model": NAME, "allow_patterns": ["*.json", "*.safetensors", "original/"]}])
    assert (allowed.ignore_patterns, allowed.weights_bytes) == ((), 4 * 4_015_000_000 + 5)
    assert allowed.allow_patterns == ("*.json", "*.safetensors", "original/")
    assert one("1xH100", model="8b", ignore_patterns="*.md").ignore_patterns == ("*.md",)


@pytest.mark.parametrize(
    ("more", "options", "sentence"),
    [
        (
            {"files": {"config.json": 1, SHARDS[0]: 1}},
            {},
            f"is not whole: the index of its weights names 4 files, and {SHARDS[1]}, {SHARDS[2]}, {SHARDS[3]} are not",
        ),
        ({}, {"allow_patterns": ["*.safetensors"]}, "the patterns leave out config.json"),
        ({}, {"ignore_patterns": [SHARDS[0]]}, f"the patterns leave out {SHARDS[0]}, and vLLM needs all"),
        ({}, {"ignore_patterns": ["*.safetensors"]}, "the patterns leave out all of its weights"),
        ({"files": {"config.json": 1, "a.gguf": 1}, "shards": []}, {}, "has its weights as GGUF alone"),
        ({"files": {"config.json": 1, "m.h5": 1}, "shards": []}, {}, "has no weights that vLLM reads"),
    ],
)
def test_weights_that_cannot_be_loaded(more: dict[str, Any], options: dict[str, Any], sentence: str) -> None:
    assert sentence in findings("1xH100", catalog(**more), model=NAME, **options)


def test_a_repository_with_bin_alone_is_served() -> None:
    old = {"config.json": 1, "pytorch_model.bin": 16_060_000_000}
    mine = one("1xH100", catalog(files=old, shards=[]), model=NAME)
    assert (mine.weights_bytes, mine.ignore_patterns) == (16_060_000_000, ())


def test_files_that_disagree_with_the_shapes_give_a_note() -> None:
    assert "files of its weights" not in warnings("1xH100", catalog(), model=NAME)
    twice = catalog(files={**FILES, **dict.fromkeys(SHARDS, 4_400_000_000)})
    notes = warnings("1xH100", twice, model=NAME)
    assert "mine-8b: the files of its weights have 16.39 GiB, and by the shapes" in notes
    assert "they would have 14.96 GiB. The plan takes the files for the download and the disk" in notes
    by_hand = load_catalog({"mine": {"repo_id": NAME, "config": LLAMA, "weights_bytes": 17_600_000_000}})
    assert "files of its weights" in warnings("1xH100", by_hand, model="mine")
    assert one("1xH100", by_hand, model="mine").weights_bytes == 17_600_000_000
