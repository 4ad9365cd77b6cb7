# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model is by its name alone: as the lab's hub says it, as it was kept, as a folder has it; and refusals."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import named as hub_named, opener as hub_opener
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Answer, Hub
from ansible_collections.gpunode.llm.plugins.module_utils.hub.described import LARGEST, Wanted, describe
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile, Snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "lab" / "hub"))

import server

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[1]}}
REPO = "lab/mine"
KEYS = ("revision", "branch", "gated", "config", "files", "index", "shards")


def put(folder: Path, *, settings: dict | None = None, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"config.json": CONFIG, "model.safetensors.index.json": INDEX, **dict.fromkeys(SHARDS, b"w" * 9)}
    for name, content in {**contents, **files}.items():
        if content is not None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    (folder / ".hub.json").write_text(json.dumps(settings or {}))


class Lab:
    """A hub on this machine, which a test fills."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hub = server.Hub(("127.0.0.1", 0), root)
        self.address = f"http://127.0.0.1:{self.hub.server_port}"
        threading.Thread(target=self.hub.serve_forever, args=(0.02,), daemon=True).start()

    def requests(self) -> int:
        return int(self.hub.lab.counters()["total_requests"])

    def tell(self, home: Path, wanted: Wanted | str = REPO, token: str = "", update: bool = False) -> dict:
        model = wanted if isinstance(wanted, Wanted) else Wanted(wanted, wanted)
        hub = Hub(self.address, hub_opener.opener(5), lambda seconds: None, token)
        return describe([model], hub, str(home), update)[model.name]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setattr(server.Handler, "log_message", lambda *args: None)
    made = Lab(tmp_path / "hub")
    yield made
    made.hub.shutdown()
    made.hub.server_close()


def fetched(home: Path, lab: Lab, answer: dict, branch: str = "main", gated: bool = False) -> None:
    """As a pull leaves it."""
    repository = lab.hub.repository(REPO)
    files = [RepoFile(f.path, f.size, f.oid, f.sha256 if f.lfs else "") for f in repository.files.values()]
    cache, commit = Cache(str(home)), answer["revision"]
    for file in files:
        data = (lab.root / REPO / file.path).read_bytes()
        node_files.write_atomically(cache.pointer(REPO, commit, file.path), data)
    node_files.write_atomically(cache.manifest(REPO, commit), Manifest(REPO, commit, files, gated=gated).dump())
    if branch:
        node_files.write_atomically(cache.record(REPO, branch), commit)


def test_a_model_is_described_by_the_hub(lab, tmp_path):
    put(lab.root / REPO)
    answer = lab.tell(tmp_path)
    assert answer["revision"] == lab.hub.repository(REPO).commit
    assert (answer["branch"], answer["gated"], answer["config"]) == ("main", False, CONFIG)
    assert answer["files"] == {p.name: p.stat().st_size for p in (lab.root / REPO).iterdir() if p.name != ".hub.json"}
    assert (answer["index"], answer["shards"]) == ("model.safetensors.index.json", SHARDS)
    assert os.listdir(tmp_path) == ["hub"]  # the lab's: nothing is written


def test_the_format_of_the_weights_may_stand_beside_the_config(lab, tmp_path):
    """As ModelOpt writes it; where config.json says it, that file is not read."""
    beside = {"quantization": {"quant_algo": "NVFP4"}}
    put(lab.root / REPO, **{"hf_quant_config.json": beside})
    assert lab.tell(tmp_path)["hf_quant_config"] == beside
    put(lab.root / REPO, **{"config.json": {**CONFIG, "quantization_config": {"quant_method": "fp8"}}})
    assert "hf_quant_config" not in lab.tell(tmp_path, update=True)


def test_a_commit_is_of_no_branch(lab, tmp_path):
    put(lab.root / REPO)
    commit = lab.hub.repository(REPO).commit
    answer = lab.tell(tmp_path, Wanted("x", REPO, commit))
    assert (answer["revision"], answer["branch"]) == (commit, "")


def test_downloaded_weights_are_described_without_a_hub(lab, tmp_path):
    put(lab.root / REPO, settings={"gated": "manual"})
    home = tmp_path / "home"
    first = lab.tell(home, token="hf_lab_good")
    fetched(home, lab, first, gated=True)
    before = lab.requests()
    again, by_commit = lab.tell(home), lab.tell(home, Wanted(REPO, REPO, first["revision"]))
    assert lab.requests() == before
    assert {key: again[key] for key in KEYS} == {key: first[key] for key in KEYS}
    assert {key: by_commit[key] for key in KEYS} == {**{key: first[key] for key in KEYS}, "branch": ""}


def test_a_branch_that_moved_is_followed_only_by_an_update(lab, tmp_path):
    put(lab.root / REPO)
    home = tmp_path / "home"
    first = lab.tell(home)
    fetched(home, lab, first)
    put(lab.root / REPO, **{"README.md": b"new"})
    assert lab.tell(home)["revision"] == first["revision"]
    assert lab.tell(home, update=True)["revision"] == lab.hub.repository(REPO).commit != first["revision"]


def test_a_damaged_local_model_is_looked_up_at_the_hub(lab, tmp_path):
    put(lab.root / REPO)
    home = tmp_path / "home"
    first = lab.tell(home)
    fetched(home, lab, first)
    os.unlink(Cache(str(home)).pointer(REPO, first["revision"], "config.json"))
    before = lab.requests()
    assert lab.tell(home)["config"] == CONFIG
    assert lab.requests() > before


@pytest.mark.parametrize(
    ("settings", "token", "wanted", "message"),
    [
        ({}, "", Wanted("x", "lab/none"), "lab/none does not exist on"),
        ({}, "", Wanted("x", REPO, "v9"), f"{REPO} has no revision v9"),
        ({"gated": "manual"}, "", Wanted("x", REPO), "is gated and no token was given. Accept its licence at"),
        ({"gated": "manual"}, "hf_lab_no_licence", Wanted("x", REPO), "has not been granted access to lab/mine"),
        ({"gated": "manual"}, "hf_lab_no_scope", Wanted("x", REPO), "give it read access to gated repositories"),
        ({}, "hf_stranger", Wanted("x", REPO), "The token was refused for lab/mine"),
        ({}, "", Wanted("x", "no repository"), "is not the name of a repository"),
    ],
)
def test_a_refusal_is_a_sentence(lab, tmp_path, settings, token, wanted, message):
    put(lab.root / REPO, settings=settings)
    answer = lab.tell(tmp_path / "home", wanted, token)
    assert message in answer["refused"]
    assert answer["refused"].endswith(".") or "no repository" in wanted.repo_id


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"<html>"}, "config.json of lab/mine at {commit} is no JSON object"),
        ({"config.json": b"[" * 100000}, "is no JSON object"),
        ({"config.json": []}, "is no JSON object"),
        ({"config.json": b"{" + b" " * LARGEST["config.json"]}, "has 16 MB, and no more than 16 MB are read"),
        (
            {"model.safetensors.index.json": {}},
            "model.safetensors.index.json of lab/mine at {commit} has no weight_map",
        ),
    ],
)
def test_files_with_misleading_names_are_refused(lab, tmp_path, files, message):
    put(lab.root / REPO, **files)
    answer = lab.tell(tmp_path / "home")
    assert message.format(commit=lab.hub.repository(REPO).commit) in answer["refused"]


def test_without_config_json_the_files_are_reported(lab, tmp_path):
    put(lab.root / REPO, **{"config.json": None, "adapter_config.json": {}})
    answer = lab.tell(tmp_path / "home")
    assert answer["config"] is None
    assert "adapter_config.json" in answer["files"]


def test_numbers_that_json_has_no_word_for_are_text(lab, tmp_path):
    put(lab.root / REPO, **{"config.json": b'{"time_step_limit": [0.0, Infinity]}'})
    assert lab.tell(tmp_path / "home")["config"] == {"time_step_limit": [0.0, "Infinity"]}


def test_the_index_of_the_older_files_counts_alone(lab, tmp_path):
    older = {"pytorch_model.bin.index.json": {"weight_map": {"a": "pytorch_model.bin"}}, "pytorch_model.bin": b"w"}
    without = dict.fromkeys((*SHARDS, "model.safetensors.index.json"))
    put(lab.root / REPO, **older)
    assert lab.tell(tmp_path / "home")["shards"] == SHARDS
    put(lab.root / "lab/old", **older, **without)
    assert lab.tell(tmp_path / "home", "lab/old")["shards"] == ["pytorch_model.bin"]
    put(lab.root / "lab/both", **older, **{**without, "model.safetensors": b"w"})
    assert lab.tell(tmp_path / "home", "lab/both")["shards"] == []


def test_a_hub_that_is_down_is_a_sentence(tmp_path):
    hub = Hub("http://127.0.0.1:9", hub_opener.opener(1), lambda seconds: None)
    message = describe([Wanted("x", REPO)], hub, str(tmp_path), False)["x"]["refused"]
    assert "http://127.0.0.1:9 cannot be reached: " in message
    assert "huggingface_endpoint" in message


def test_bytes_that_differ_from_the_listing_are_refused(lab, tmp_path):
    put(lab.root / REPO)
    lab.hub.lab.faults.append(server.Fault("wrong", "config.json", at=3))
    assert "with other bytes than its own listing says" in lab.tell(tmp_path / "home")["refused"]


def test_a_signed_address_gets_no_token(lab, tmp_path):
    """A long index lies where the hub keeps large files."""
    requests = []
    opener = hub_opener.opener(5)
    put(lab.root / REPO)
    file = lab.hub.repository(REPO).files["config.json"]

    def elsewhere(method, url, headers):
        requests.append((url, dict(headers)))
        if "/resolve/" in url:
            return Answer(302, {"location": "https://cdn.example/signed"})
        return Answer(200, {}, json.dumps(CONFIG).encode()) if "cdn" in url else opener(method, url, headers)

    hub = Hub(lab.address, elsewhere, lambda seconds: None, "hf_lab_good")
    listed = RepoFile("config.json", file.size, file.oid)
    assert json.loads(hub.read(Snapshot(REPO), "a" * 40, listed)) == CONFIG
    assert [bool(headers) for _url, headers in requests] == [True, False]


def test_the_licence_is_the_cards():
    def opener(method, url, headers):
        info = {"sha": "a" * 40, "gated": False, "cardData": {"license": "apache-2.0"}}
        return Answer(200, {}, json.dumps([] if "/tree/" in url else info).encode())

    assert Hub("https://hub.example", opener, lambda seconds: None).about(Snapshot(REPO)).license == "apache-2.0"


# -- a folder, and a folder in place of the hub -----------------------------------------------------------------------
def test_a_folder_of_the_node(tmp_path):
    put(tmp_path / "tuned", **{".git/objects/x": b"no"})
    answer = hub_named.answer({**defaults(tmp_path), "models": [{"name": "t", "folder": str(tmp_path / "tuned")}]})
    assert answer["models"]["t"]["config"] == CONFIG
    assert answer["models"]["t"]["shards"] == SHARDS
    assert set(answer["models"]["t"]["files"]) == {"config.json", "model.safetensors.index.json", *SHARDS}


def test_a_folder_without_config_json_is_not_walked(tmp_path):
    put(tmp_path / "disk" / "deep")
    answer = hub_named.answer({**defaults(tmp_path), "models": [{"name": "t", "folder": str(tmp_path / "disk")}]})
    assert (answer["models"]["t"]["config"], list(answer["models"]["t"]["files"])) == (None, ["deep"])


def test_a_folder_that_is_not_there_or_leads_out_of_itself(tmp_path):
    def refused(folder: Path) -> str:
        request = {**defaults(tmp_path), "models": [{"name": "t", "folder": str(folder)}]}
        return hub_named.answer(request)["models"]["t"]["refused"]

    assert refused(tmp_path / "gone") == f"There is no folder {tmp_path}/gone here. Is it mounted?"
    put(tmp_path / "tuned")
    (tmp_path / "tuned" / "tokenizer.json").symlink_to("/etc/passwd")
    assert "tokenizer.json is a link to /etc/passwd" in refused(tmp_path / "tuned")


def test_a_folder_stands_in_for_the_hub(lab, tmp_path):
    put(lab.root / REPO)
    first = lab.tell(tmp_path / "other")
    fetched(tmp_path / "share", lab, first, gated=True)
    request = {**defaults(tmp_path), "source": str(tmp_path / "share"), "models": [{"name": REPO, "repo_id": REPO}]}
    answer = hub_named.answer(request)["models"][REPO]
    assert {key: answer[key] for key in KEYS} == {**{key: first[key] for key in KEYS}, "gated": True}


def defaults(tmp_path: Path) -> dict:
    own = {name: option.get("default") for name, option in hub_named.OPTIONS.items()}
    return {**own, "home": str(tmp_path / "home"), "token_path": str(tmp_path / "token")}


ADAPTER = {"peft_type": "LORA", "r": 16, "base_model_name_or_path": "lab/mine"}


def test_the_rank_of_an_adapter_is_read(lab, tmp_path):
    nothing = dict.fromkeys(("config.json", "model.safetensors.index.json", *SHARDS))
    weights = {"adapter_model.safetensors": b"w" * 9}
    put(lab.root / REPO, **nothing, **weights, **{"adapter_config.json": ADAPTER})
    answer = lab.tell(tmp_path)
    assert (answer["adapter_config"], answer["config"], answer["shards"]) == (ADAPTER, None, [])
    assert answer["files"]["adapter_model.safetensors"] == 9
    # What was fetched says it without the hub.
    fetched(tmp_path, lab, answer)
    before = lab.requests()
    assert lab.tell(tmp_path) == {**answer, "license": ""}
    assert lab.requests() == before
