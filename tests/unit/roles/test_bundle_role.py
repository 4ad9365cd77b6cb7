# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection in a bundle that was made from what ansible-galaxy has installed: it can be installed once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: gpunode.llm.bundle
        tasks_from: collection
      vars:
        bundle_path: "{{ made }}"
"""


def run(*argv: object, collections: Path) -> subprocess.CompletedProcess[str]:
    settings = {
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_CONFIG": "",
    }
    environment = {**os.environ, **settings, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        [str(word) for word in argv], env=environment, cwd="/", text=True, capture_output=True, check=False
    )


def galaxy(*argv: object, collections: Path) -> None:
    result = run(BIN / "ansible-galaxy", "collection", *argv, collections=collections)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> Path:
    """What Galaxy would hand out."""
    folder = tmp_path_factory.mktemp("galaxy")
    galaxy("build", "--output-path", folder, ROOT, collections=folder)
    (found,) = folder.glob("*.tar.gz")
    return found


def install(artefact: Path, there: Path) -> Path:
    galaxy("install", "--offline", "--no-deps", "--force", "--collections-path", there, artefact, collections=there)
    return there / "ansible_collections" / "gpunode" / "llm"


@pytest.fixture
def installed(artefact, tmp_path) -> Path:
    """A controller that has the collection by ansible-galaxy: no checkout is there."""
    found = install(artefact, tmp_path / "controller")
    assert (found / "MANIFEST.json").is_file()
    assert not (found / "galaxy.yml").exists()
    return found


def make(collections: Path, made: Path) -> subprocess.CompletedProcess[str]:
    made.mkdir()
    play = made.parent / "play.yml"
    play.write_text(PLAY)
    return run(
        BIN / "ansible-playbook",
        "-i",
        "localhost,",
        play,
        "-e",
        json.dumps({"made": str(made), "ansible_python_interpreter": sys.executable}),
        collections=collections,
    )


def test_installed_packages_can_be_installed_from_the_bundle(artefact, installed, tmp_path):
    (installed / "roles" / "bundle" / "__pycache__").mkdir()  # what is no part of the collection stays behind
    result = make(tmp_path / "controller", tmp_path / "made")
    assert result.returncode == 0, result.stdout + result.stderr
    packed = tmp_path / "made" / "gpunode-llm.tar.gz"
    with tarfile.open(packed) as ours, tarfile.open(artefact) as galaxys:
        assert ours.getnames() == galaxys.getnames()
    again = install(packed, tmp_path / "node")
    assert (again / "FILES.json").read_bytes() == (installed / "FILES.json").read_bytes()


def test_a_collection_that_cannot_be_installed_is_refused(installed, tmp_path):
    (installed / "README.md").write_text("changed by hand\n")
    result = make(tmp_path / "controller", tmp_path / "made")
    assert result.returncode != 0
    assert "ansible-galaxy cannot install the package of" in result.stdout
    assert "README.md" in result.stdout
    assert not (tmp_path / "made" / "gpunode-llm.tar.gz").exists()
