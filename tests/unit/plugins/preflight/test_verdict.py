# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.preflight import checks as preflight_checks
from ansible_collections.gpunode.llm.plugins.module_utils.preflight.answer import from_hub, only_follows, settled
from ansible_collections.gpunode.llm.plugins.modules import preflight_check


@pytest.mark.parametrize(
    ("given", "mode", "update", "missing", "expected"),
    [
        ("hf_a", 0o600, False, [], True),
        ("", 0o600, False, [], True),
        ("hf_b", 0o600, False, [], False),  # another token
        ("hf_a", 0o644, False, [], False),  # the right one, for all to read
        ("hf_a", 0o600, True, [], False),  # the hub is to be asked again
        ("hf_a", 0o600, False, ["weights"], False),
    ],
)
def test_weights_are_settled(tmp_path, given, mode, update, missing, expected):
    path = tmp_path / "token"
    path.write_text("hf_a")
    path.chmod(mode)
    params = {"source": None, "token": given, "token_path": str(path), "update": update, "elsewhere": []}
    assert settled(params, missing, [])["weights"] is expected


def test_images_are_settled_by_themselves(tmp_path):
    params = {"source": None, "token": "", "token_path": str(tmp_path / "none"), "update": False, "elsewhere": []}
    assert settled(params, ["weights"], []) == {"weights": False, "images": True}
    assert settled(params, [], ["image"]) == {"weights": True, "images": False}


WANTED = [{"repo_id": "org/name", "revision": "main"}, {"repo_id": "org/other", "revision": "main"}]
ELSEWHERE = [{**snapshot, "seeder": "node-1"} for snapshot in WANTED]


@pytest.mark.parametrize(
    ("elsewhere", "repositories", "follows"),
    [([], ["org/name", "org/other"], False), (ELSEWHERE[:1], ["org/other"], False), (ELSEWHERE, [], True)],
)
def test_what_comes_from_elsewhere_is_not_asked_for(tmp_path, elsewhere, repositories, follows):
    params = {"instances": WANTED, "elsewhere": elsewhere}
    assert [snapshot.repo_id for snapshot in from_hub(params)] == repositories
    assert only_follows(params) is follows
    # Where nothing comes from the hub, its token is nothing to be settled.
    params |= {"source": None, "token": "hf_new", "token_path": str(tmp_path / "none"), "update": False}
    assert settled(params, [], [])["weights"] is follows


def test_who_hands_it_on():
    assigned = preflight_checks.assign(WANTED, {("org/other", "main"): "node-1"})
    assert assigned == [WANTED[0], {**WANTED[1], "seeder": "node-1"}]


def test_an_image_keeps_its_name_where_its_registry_is_reached_without_the_proxy(capsys):
    """What a module holds for a secret is blotted out of all that it returns, in the middle of a word too."""
    image, secret = "registry.corp.example:5000/vllm:1", "http://ada:hush@proxy.corp.example:3128"
    proxy = {"https": secret, "no_proxy": ".corp.example"}
    instances = [{"name": "8b", "repo_id": "org/name", "image": image, "note": f"through {secret}"}]
    args = {
        "instances": instances,
        "skip": ["platform", "disk", "ports", "hub", "repositories", "registry"],
        "registry": {"proxy": proxy},
    }
    with patch_module_args(args), pytest.raises(SystemExit):
        preflight_check.main()
    (instance,) = json.loads(capsys.readouterr().out)["instances"]
    assert instance["image"] == image
    assert "hush" not in instance["note"]
