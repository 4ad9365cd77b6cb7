# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faces of the bundle: options in, one sentence or a result out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.bundle import run as bundle_run
from ansible_collections.gpunode.llm.plugins.module_utils.bundle.contents import Contents
from ansible_collections.gpunode.llm.plugins.module_utils.docker import layout as docker_layout
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import RepoFile
from ansible_collections.gpunode.llm.plugins.module_utils.packages import (
    apt as packages_apt,
    key as packages_key,
    rpm as packages_rpm,
)
from ansible_collections.gpunode.llm.plugins.modules import (
    apt_mirror,
    apt_source,
    bundle,
    image_layout,
    image_pull,
    rpm_source,
)

SYSTEM = {"release": "Debian bookworm", "architecture": "x86_64"}
IMAGE = "vllm/vllm-openai:v0.33.0"


@pytest.fixture
def ask(capsys):
    def run(module, check_mode=False, **options):
        with patch_module_args({**options, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def opened(tmp_path):
    """Options for a bundle that holds nothing."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "manifest.json").write_text(Contents(SYSTEM, [], {}).dump())
    return {"path": str(path), "state": "opened", "system": SYSTEM, "root": str(tmp_path / "root")}


def test_there_is_no_bundle(ask, opened):
    result = ask(bundle, **{**opened, "path": "/none/bundle"})
    assert result["msg"] == "There is neither /none/bundle nor /none/bundle.tar on this node: copy the bundle there."


def test_a_bundle_for_another_system(ask, opened):
    result = ask(bundle, **{**opened, "system": {**SYSTEM, "release": "Debian trixie"}})
    assert result["msg"].startswith(
        "The bundle is for Debian bookworm on x86_64, but this node is Debian trixie on x86_64"
    )


def test_what_was_opened_is_settled(ask, opened, tmp_path):
    assert ask(bundle, check_mode=True, **opened)["changed"]
    (tmp_path / "root").mkdir()
    text = (tmp_path / "bundle" / "manifest.json").read_text()
    (tmp_path / "root" / "opened").write_text(bundle_run.mark(text, opened["path"]))
    assert not ask(bundle, **opened)["changed"]
    (tmp_path / "bundle" / "manifest.json").write_text(
        Contents({**SYSTEM}, [RepoFile("a", 1, "", "0" * 64)], {}).dump()
    )
    assert ask(bundle, check_mode=True, **opened)["changed"]
    (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    assert not ask(bundle, **opened)["changed"]


def test_an_image_that_is_here_is_not_asked_for(ask, tmp_path):
    options = {"image": IMAGE, "path": str(tmp_path)}
    assert ask(image_layout, check_mode=True, **options)["changed"]
    folder = tmp_path / docker_layout.layout_name(IMAGE)
    blob = folder / "blobs" / "sha256" / ("a" * 64)
    blob.parent.mkdir(parents=True)
    blob.write_text("{}")
    record = {"digest": "sha256:d", "manifest": {"config": {"digest": f"sha256:{'a' * 64}", "size": 2}, "layers": []}}
    (folder / docker_layout.RECORD).write_text(json.dumps(record))
    result = ask(image_layout, **options)
    assert (result["changed"], result["digest"], result["name"]) == (False, "sha256:d", IMAGE)
    blob.write_text("{")
    assert ask(image_layout, check_mode=True, **options)["changed"]


@pytest.mark.parametrize("module", [image_layout, image_pull])
def test_latest_is_refused(ask, module):
    result = ask(module, image="vllm/vllm-openai:latest", **({"path": "/x"} if module is image_layout else {}))
    assert "changes with every release" in result["msg"]


MIRROR = {
    "name": "docker",
    "packages": ["docker-ce"],
    "uri": "https://d.test/linux/debian",
    "suite": "bookworm",
    "components": ["stable"],
    "architectures": ["amd64"],
    "key_url": "file:///none",
    "fingerprint": "9DC8 5822 9FC7 DD38 854A E2D8 8D81 803C 0EBF CD88",
}


KEYS = Path(__file__).resolve().parents[3] / "fixtures" / "openpgp"
PUBLISHER = "D15E51EA410750E7325605E566E77F2ACD7201D8"


def test_packages_that_are_here_are_not_asked_for(ask, tmp_path):
    options = {**MIRROR, "path": str(tmp_path), "fingerprint": PUBLISHER}
    key = (KEYS / "rsa3072.asc").read_text()
    assert ask(apt_mirror, check_mode=True, **options)["changed"]
    request = {key: options.get(key) for key in apt_mirror.REQUEST}
    record = {"request": request, "files": {"apt/x.deb": 3}, "repository": "apt/d.test/linux/debian", "packages": 1}
    for path, text in {"apt/docker.json": json.dumps(record), "apt/x.deb": "deb", "keys/docker.asc": key}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    result = ask(apt_mirror, **options)
    assert (result["changed"], result["repository"], result["key"]) == (
        False,
        "apt/d.test/linux/debian",
        "keys/docker.asc",
    )
    assert ask(apt_mirror, check_mode=True, **{**options, "packages": ["docker-ce", "more"]})["changed"]
    (tmp_path / "apt" / "x.deb").write_text("de")
    assert ask(apt_mirror, check_mode=True, **options)["changed"]
    (tmp_path / "apt" / "x.deb").write_text("deb")
    assert not ask(apt_mirror, check_mode=True, **options)["changed"]
    (tmp_path / "keys" / "docker.asc").write_text(key + (KEYS / "ed25519.asc").read_text())
    assert ask(apt_mirror, check_mode=True, **options)["changed"]


@pytest.mark.parametrize("module", [apt_mirror, apt_source, rpm_source])
def test_a_key_with_company_is_refused_at_every_door(ask, tmp_path, monkeypatch, module):
    """The block before it is one to apt, and a remark to gpg."""
    doors = ((packages_apt, "KEYRINGS"), (packages_apt, "SOURCES"), (packages_rpm, "KEYS"), (packages_rpm, "SOURCES"))
    for places, name in doors:
        monkeypatch.setattr(places, name, str(tmp_path))
    stranger = (KEYS / "ed25519.asc").read_text().replace("BLOCK-----", "BLOCK COMMENT-----", 1)
    key = stranger + (KEYS / "rsa3072.asc").read_text()
    options = {"name": "docker", "uri": "https://d.test/linux/debian", "fingerprint": PUBLISHER, "key": key}
    more = {
        apt_mirror: {"path": str(tmp_path), "packages": ["docker-ce"], "suite": "bookworm"},
        apt_source: {"suite": "bookworm"},
    }
    result = ask(module, **options, **more.get(module, {}))
    assert result["msg"] == (
        f"the key given has no key to compare with {packages_key.spelt(PUBLISHER)}: "
        "it has 2 armored blocks, but a key has one."
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_key_that_cannot_be_had_is_named(ask, tmp_path):
    result = ask(apt_mirror, **MIRROR, path=str(tmp_path))
    assert result["msg"].startswith("The key of https://d.test/linux/debian could not be fetched from file:///none: ")


def test_a_poisoned_record_removes_nothing_elsewhere(tmp_path):
    """What an earlier answer had and this one has not is taken away: by a record that may be somebody else's."""
    (tmp_path / "bundle" / "apt").mkdir(parents=True)
    (tmp_path / "precious").touch()
    (tmp_path / "bundle" / "apt" / "docker.json").write_text(json.dumps({"files": {"../precious": 1}}))
    module = SimpleNamespace(
        params={**dict.fromkeys(apt_mirror.REQUEST), "path": str(tmp_path / "bundle"), "name": "docker", "update": True}
    )
    with pytest.raises(ValueError, match="outside"):
        apt_mirror.Mirror(module, "").keep({}, [])
    assert (tmp_path / "precious").exists()
