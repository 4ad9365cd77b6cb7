# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What surrounds the bundle's job: which system it fits, and what the node's second apt is told."""

from __future__ import annotations

import json

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.bundle import run as bundle_run
from ansible_collections.gpunode.llm.plugins.module_utils.bundle.contents import BundleError, Contents
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import RepoFile

HERE = {"release": "Debian bookworm", "architecture": "x86_64"}
DEBIAN = {"path": "apt/mirror.example.org/debian", "suite": "bookworm", "components": ["main"], "own": False}
FLAT = {"path": "apt/n.test/deb", "suite": "/", "components": [], "own": False}
DOCKER = {"path": "apt/d.test/docker", "suite": "bookworm", "components": ["stable"], "own": True}


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "apt").mkdir()
    for name, rows in {"docker": [DOCKER, DEBIAN], "toolkit": [DEBIAN, FLAT]}.items():
        record(tmp_path, name, rows)
    return str(tmp_path)


def record(folder, name, rows) -> None:
    (folder / "apt" / f"{name}.json").write_text(json.dumps({"repositories": rows}))


def sealed(folder, *names) -> Contents:
    return Contents(HERE, [RepoFile(f"apt/{name}.json", 1, "", "0" * 64) for name in names], {})


def test_the_second_apt_knows_the_bundle_alone(bundle, tmp_path):
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    files = bundle_run.apt_files(bundle, "/var/lib/x", sealed(bundle, "docker", "toolkit"), ("/none.gpg", str(keyring)))
    assert files["/var/lib/x/sources.list.d/distribution.sources"] == (
        f"Types: deb\nURIs: file://{bundle}/apt/mirror.example.org/debian\nSuites: bookworm\nComponents: main\n"
        f"Signed-By: {keyring}\n\n"
        f"Types: deb\nURIs: file://{bundle}/apt/n.test/deb\nSuites: /\nSigned-By: {keyring}\n"
    )
    settings = files["/var/lib/x/apt.conf"]
    assert 'Dir::Etc::SourceList "/dev/null";' in settings
    assert 'Dir::Etc::SourceParts "/var/lib/x/sources.list.d";' in settings
    assert 'Dir::State::Lists "/var/lib/x/lists";' in settings


def test_nothing_is_trusted_without_a_key(bundle):
    with pytest.raises(BundleError, match="keys"):
        bundle_run.apt_files(bundle, "/var/lib/x", sealed(bundle), ("/none.gpg",))


EVIL = {"path": "apt/zz", "suite": "./\nTrusted: yes", "components": [], "own": False}


def test_a_record_that_is_not_listed_is_not_read(bundle, tmp_path):
    record(tmp_path, "zz", [EVIL])
    rows = bundle_run.distributions(bundle, sealed(bundle, "docker", "toolkit"))
    assert [row["path"] for row in rows] == [DEBIAN["path"], FLAT["path"]]


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "./\nTrusted: yes"},
        {"suite": "x\n\nTypes: deb"},
        {"suite": "x y"},
        {"suite": "../x"},
        {"suite": None},
        {"components": ["main\nTrusted: yes"]},
        {"components": ["main", "x y"]},
        {"components": None},
        {"path": "apt/x\nTrusted: yes"},
        {"path": "apt/x file:///srv/evil"},
        {"path": "apt/../../evil"},
        {"path": "apt/%2e%2e/%2e%2e/evil"},
        {"path": "apt/$(ARCH)"},
        {"path": "/srv/evil"},
        {"path": "keys"},
    ],
)
def test_no_record_writes_a_field_of_its_own(bundle, tmp_path, change):
    record(tmp_path, "zz", [{**DEBIAN, **change}])
    with pytest.raises(BundleError, match=r"apt/zz\.json of the bundle .* is invalid"):
        bundle_run.distributions(bundle, sealed(bundle, "zz"))


@pytest.mark.parametrize(("key", "value"), [("release", "Debian trixie"), ("architecture", "aarch64")])
def test_it_is_for_one_system(key, value):
    contents = Contents({**HERE, key: value}, [], {})
    with pytest.raises(BundleError, match=f"for .*{value}.*this node is Debian bookworm on x86_64"):
        bundle_run.check_system(contents, HERE)
    bundle_run.check_system(Contents(HERE, [], {}), HERE)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    assert bundle_run.manifest_text(str(tmp_path / "none"), str(tmp_path / "none.tar")) == ""
    with pytest.raises(BundleError, match="is not a bundle"):
        bundle_run.manifest_text(str(tmp_path), "")


def test_it_is_known_by_place_and_content():
    assert len({bundle_run.mark(text, path) for text in ("a", "b") for path in ("/x", "/y")}) == 4


class Systemd:
    """One unit, in the states it goes through."""

    def __init__(self, *states: str) -> None:
        self.states, self.ran = list(states), []

    def __call__(self, argv):
        self.ran.append(list(argv))
        state = self.states[0]
        if argv[0] == "systemd-run":
            self.states.pop(0)
        active = {"absent": ("inactive", "dead"), "running": ("active", "running"), "succeeded": ("active", "exited")}
        now, sub = active.get(state, ("failed", "failed"))
        load = "not-found" if state == "absent" else "loaded"
        return 0, f"LoadState={load}\nActiveState={now}\nSubState={sub}\nResult=signal\nInvocationID=aa\n", ""


JOB = {"state": "opened", "path": "/srv/bundle", "tar": "", "system": HERE}


def test_the_job_is_started_once_and_followed(tmp_path):
    run = Systemd("absent", "running")
    for _time in range(2):
        bundle_run.start(run, JOB, str(tmp_path))
    assert sum(argv[0] == "systemd-run" for argv in run.ran) == 1
    folder = tmp_path / bundle_run.unit(JOB)
    assert json.loads((folder / "job.json").read_text()) == JOB
    (folder / "status.json").write_text(json.dumps({"phase": "verifying", "done": 5, "total": 10, "files": 2}))
    assert bundle_run.wait(run, JOB, 0, str(tmp_path)) == (False, "verifying 5 B of 10 B (50 %), 0 of 2 files", False)


@pytest.mark.parametrize(
    ("state", "status", "message"),
    [
        ("failed", {"error": "x is missing"}, "x is missing"),
        ("failed", {}, "was stopped: .*"),
        ("absent", {}, "was stopped"),
    ],
)
def test_the_end_of_a_job_is_reported(tmp_path, state, status, message):
    folder = tmp_path / bundle_run.unit(JOB)
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps(status))
    with pytest.raises(BundleError, match=message):
        bundle_run.wait(Systemd(state), JOB, 0, str(tmp_path))
    (folder / "status.json").write_text(json.dumps({"changed": True, "phase": "complete"}))
    assert bundle_run.wait(Systemd("succeeded"), JOB, 0, str(tmp_path)) == (True, "complete", True)
