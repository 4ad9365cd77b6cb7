# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A source that apt does not take never lands: the module is run, with an apt whose sources are the test's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.packages import apt as packages_apt
from ansible_collections.gpunode.llm.plugins.modules import apt_source

pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="there is no apt to ask")
KEY = (Path(__file__).resolve().parents[3] / "fixtures" / "openpgp" / "rsa3072.asc").read_text()
FINGERPRINT = "D15E51EA410750E7325605E566E77F2ACD7201D8"


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Where this apt has its sources."""
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "lists" / "partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": str(tmp_path / "sources.list"),
        "Dir::Etc::SourceParts": str(folder),
        "Dir::State::Lists": str(tmp_path / "lists"),
        "Dir::Cache": str(tmp_path),
        "APT::Sandbox::User": "root",
    }
    (tmp_path / "apt.conf").write_text(packages_apt.configuration(settings))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setattr(packages_apt, "SOURCES", str(folder))
    monkeypatch.setattr(packages_apt, "KEYRINGS", str(tmp_path / "keyrings"))
    return folder


@pytest.fixture
def ask(tmp_path, parts, capsys):
    """The module's answer for a repository that is not there, unless another is named."""

    def run(check_mode=False, **more):
        options = {
            "name": "docker",
            "uri": f"file://{tmp_path}/nothing",
            "suite": "./",
            "key": KEY,
            "fingerprint": FINGERPRINT,
            "_ansible_check_mode": check_mode,
            **more,
        }
        with patch_module_args(options), pytest.raises(SystemExit):
            apt_source.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("before", ["", "# an older one\nTypes: deb\nURIs: http://a.test\nSuites: ./\n"])
def test_a_wrong_address_leaves_the_node_as_it_was(ask, parts, tmp_path, check_mode, before):
    if before:
        (parts / "docker.sources").write_text(before)
    result = ask(check_mode)
    assert result["msg"].startswith(f"apt does not take file://{tmp_path}/nothing ./: ")
    assert [path.read_text() for path in parts.iterdir()] == ([before] if before else [])
    assert not (tmp_path / "keyrings").exists()


@pytest.mark.parametrize("check_mode", [True, False])
def test_another_entry_for_the_repository_stops_it_before_anything_is_written(ask, parts, tmp_path, check_mode):
    other = parts / "z.list"
    other.write_text(f"deb-src [trusted=yes] file:{tmp_path}/nothing/ ./\n")
    result = ask(check_mode)
    assert result["msg"].startswith(f"{other} names the repository file://{tmp_path}/nothing ./ as well")
    assert list(parts.iterdir()) == [other]
    assert not (tmp_path / "keyrings").exists()


def test_settings_that_a_bundle_is_yet_to_bring_are_not_judged(ask, monkeypatch, tmp_path):
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "bundle" / "apt.conf"))
    assert ask(check_mode=True)["changed"]


def test_words_alone_are_written_without_a_question(ask, parts):
    """A node without a network whose source has another remark: nothing is asked of a repository that is gone."""
    path = parts / "docker.sources"
    (parts.parent / "keyrings").mkdir()
    (parts.parent / "keyrings" / "docker.asc").write_text(KEY)
    key = f"Signed-By: {packages_apt.KEYRINGS}/docker.asc"
    path.write_text(f"# Old.\nTypes: deb\nURIs: file://{parts.parent}/nothing\nSuites: ./\n{key}\n")
    result = ask(description="New.")
    assert result["changed"]
    assert path.read_text().startswith("# New.\nTypes: deb\n")
    assert not ask(description="New.")["changed"]
