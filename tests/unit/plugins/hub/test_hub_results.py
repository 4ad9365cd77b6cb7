# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faces of the weights' core: options in, results out."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.hub import opener as hub_opener
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Answer
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files
from ansible_collections.gpunode.llm.plugins.modules import (
    hf_cache_info,
    hf_cache_prune,
    hf_snapshot,
    hf_token,
    preflight_check,
)

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
WANTED = {"repo_id": "org/name", "revision": COMMIT}
TOKEN = "hf_very_secret"


@pytest.fixture
def ask(monkeypatch, capsys):
    """Run a module's main with these options; a hub that knows no token and no repository."""

    def no_hub(timeout_s, ca_path):
        return lambda method, url, headers: Answer(401 if "whoami" in url else 404, {"x-error-code": "RepoNotFound"})

    monkeypatch.setattr(hub_opener, "opener", no_hub)

    def run(module, check_mode=False, **options):
        with patch_module_args({**options, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            module.main()
        text = capsys.readouterr().out
        assert TOKEN not in text.replace(TOKEN * 2, "")
        return json.loads(text)

    return run


def put(home) -> None:
    cache = Cache(str(home))
    node_files.write_atomically(cache.manifest("org/name", COMMIT), Manifest("org/name", COMMIT, []).dump())


def test_cache_info(ask, tmp_path):
    options = {"home": str(tmp_path), "snapshots": [WANTED], "token_path": str(tmp_path / "token")}
    result = ask(hf_cache_info, **options)
    assert (result["complete"], result["client_version"], result["token_current"]) == (False, "", True)
    put(tmp_path)
    result = ask(hf_cache_info, **options, token=TOKEN)
    assert (result["complete"], result["token_current"], result["others"]) == (True, False, [])


@pytest.fixture
def knows(monkeypatch):
    """A hub that knows the token: how often it was asked, and by which."""
    requests = []

    def hub(timeout_s, ca_path):
        def answer(method, url, headers):
            requests.append((url, headers.get("Authorization")))
            return Answer(200, {}, b'{"name": "ada"}')

        return answer

    monkeypatch.setattr(hub_opener, "opener", hub)
    return requests


def test_a_token_is_confirmed_once_and_written_once(ask, knows, tmp_path):
    path = tmp_path / "huggingface" / "token"
    options = {"token": f" {TOKEN}\n", "path": str(path), "endpoint": "https://hub.example"}
    result = ask(hf_token, check_mode=True, **options)
    assert (result["changed"], result["account"], path.parent.exists()) == (True, "ada", False)
    assert (result["diff"]["before"], result["diff"]["after"]) == ("", "the token of ada\n")
    result = ask(hf_token, **options)
    assert (result["changed"], path.read_text(), path.stat().st_mode & 0o777) == (True, TOKEN, 0o600)
    assert knows == [("https://hub.example/api/whoami-v2", f"Bearer {TOKEN}")] * 2
    assert ask(hf_token, **options)["changed"] is False
    assert ask(hf_token, path=str(path))["changed"] is False
    assert len(knows) == 2
    path.chmod(0o644)
    assert ask(hf_token, **options)["diff"]["before"] == "another token, or one that others can read\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_token_that_the_hub_does_not_know_is_not_written(ask, tmp_path):
    result = ask(hf_token, token=TOKEN, path=str(tmp_path / "token"))
    assert result["failed"]
    assert "token is not valid" in result["msg"]
    assert not (tmp_path / "token").exists()


def test_a_token_that_cannot_be_written_is_refused_in_one_sentence(ask, knows, tmp_path):
    (tmp_path / "file").write_text("")
    result = ask(hf_token, token=TOKEN, path=str(tmp_path / "file" / "token"))
    assert result["failed"]
    assert result["msg"].startswith(f"The token could not be written to {tmp_path}/file/token: ")


def test_a_background_download_reports_its_duration(ask, tmp_path):
    put(tmp_path)
    assert ask(hf_snapshot, home=str(tmp_path), snapshots=[WANTED])["fetch_seconds"] == 0


@pytest.mark.parametrize("module", [hf_cache_info, hf_cache_prune, hf_snapshot])
def test_a_snapshot_needs_a_name(ask, module):
    result = ask(module, snapshots=[{"revision": "main"}])
    assert result["failed"]
    assert "repo_id" in result["msg"]


def test_snapshot_that_is_here(ask, tmp_path):
    put(tmp_path)
    result = ask(hf_snapshot, home=str(tmp_path), snapshots=[{**WANTED, "port": 8000, "config": {}}])
    assert (result["changed"], result["done"], result["snapshots"][0]["revision"]) == (False, True, COMMIT)


def test_snapshot_with_a_bad_token(ask, tmp_path):
    result = ask(hf_snapshot, home=str(tmp_path), snapshots=[WANTED], token=TOKEN)
    assert result["failed"]
    assert "token is not valid" in result["msg"]


def test_snapshot_in_check_mode(ask, tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, warning: warned.append(warning))
    result = ask(hf_snapshot, check_mode=True, home=str(tmp_path), snapshots=[WANTED])
    assert (result["changed"], result["snapshots"][0]["bytes_to_fetch"]) == (True, -1)
    assert "does not exist" not in str(result.get("warnings"))  # another test of this process may have warned
    assert "does not exist" in str(warned)


@pytest.mark.parametrize("check_mode", [True, False])
def test_prune(ask, tmp_path, check_mode):
    put(tmp_path)
    old = "1605565b47bb9346c5515c34102e054115b4f98b"
    for commit in (COMMIT, old):
        node_files.write_atomically(Cache(str(tmp_path)).pointer("org/name", commit, "x"), "12345")
    result = ask(hf_cache_prune, check_mode=check_mode, home=str(tmp_path), snapshots=[WANTED])
    assert result["changed"]
    assert result["removed"] == [{"repo_id": "org/name", "revision": old}]
    assert result["kept"] == [{"repo_id": "org/name", "revision": COMMIT, "reason": "it was requested"}]
    assert result["bytes_freed"] == 5
    assert result["diff"]["after"] == f"org/name {COMMIT}\n"
    again = ask(hf_cache_prune, home=str(tmp_path), snapshots=[WANTED])
    assert again["changed"] is check_mode
    assert ask(hf_cache_prune, home=str(tmp_path), snapshots=[WANTED])["changed"] is False


INSTANCE = {**WANTED, "name": "x", "weights_bytes": 10**18, "image": "", "host": "127.0.0.1", "port": 0}


def test_preflight_reports_everything_at_once(ask, tmp_path):
    result = ask(
        preflight_check,
        instances=[INSTANCE],
        home=str(tmp_path),
        token=TOKEN,
        platform={"distribution": "Slackware", "version": "15", "architecture": "x86_64", "service_mgr": "systemd"},
        supported={"distributions": {"Debian": ["12"]}, "architectures": ["x86_64"]},
    )
    assert [finding.split()[0] for finding in result["findings"]] == ["Slackware", "The", "Too"]
    assert result["bytes_to_write"] == 10**18
    assert result["instances"] == [INSTANCE]


def test_preflight_skips_what_is_to_be_skipped(ask, tmp_path):
    result = ask(
        preflight_check,
        instances=[INSTANCE],
        home=str(tmp_path),
        skip=["hub", "disk", "ports", "platform"],
        token=TOKEN,
    )
    assert result["findings"] == []


def test_preflight_of_a_converged_node(ask, tmp_path):
    put(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    result = ask(
        preflight_check, instances=[INSTANCE], home=str(tmp_path), token=TOKEN, token_path=str(tmp_path / "token")
    )
    assert (result["findings"], result["bytes_to_write"]) == ([], 0)


def test_preflight_of_a_broken_plan(ask):
    assert ask(preflight_check, instances=[{"repo_id": "no name"}])["failed"]
