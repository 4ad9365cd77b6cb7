# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of hf_snapshot, on a node whose systemd and hub are made of dictionaries."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import (
    cache as hub_cache,
    run as hub_run,
)
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Answer, HubError
from ansible_collections.gpunode.llm.plugins.module_utils.hub.run import Failed, World
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile
from ansible_collections.gpunode.llm.plugins.module_utils.node import brought as node_brought, files as node_files

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
NEWER = "1605565b47bb9346c5515c34102e054115b4f98b"
FILE = RepoFile("config.json", 2, "9e26dfeeb6e641a33dae4961196235bdb965b21b")
UNIT = "gpunode-weights-org-name-0e9e39f249a1"


class Node:
    """``states`` of units by name; whatever starts becomes what ``starts_as`` says."""

    def __init__(self, tmp_path) -> None:
        self.tmp_path, self.states, self.ran, self.requests = tmp_path, {}, [], []
        self.starts_as, self.sha, self.who = "running", COMMIT, 200
        self.access: Answer | None = None
        self.home, venv = str(tmp_path / "home"), tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(sys.executable)
        (tmp_path / "token").write_text("hf_file\n")
        self.params = {
            "snapshots": [{"repo_id": "org/name", "revision": COMMIT, "port": 8000}],
            "home": self.home,
            "venv": str(venv),
            "endpoint": "https://hub.example",
            "source": None,
            "token": None,
            "token_path": str(tmp_path / "token"),
            "ca_path": None,
            "update": False,
            "verify": False,
            "fetch": True,
            "workers": 2,
            "attempts": 3,
            "xet": False,
            "wait_s": 0,
            "background": False,
            "seeder": None,
            "seeder_secret": None,
            "seeder_manifests": [],
            "resume": None,
        }

    # systemd
    def run(self, argv):
        self.ran.append(list(argv))
        if argv[:2] == ["systemctl", "show"]:
            return 0, self.shown(self.states.get(argv[2].removesuffix(".service"), "absent")), ""
        if argv[0] == "systemd-run":
            name = next(a for a in argv if a.startswith("--unit=")).removeprefix("--unit=")
            self.states[name] = self.starts_as
        if argv[:2] == ["systemctl", "stop"]:
            self.states.pop(argv[2].removesuffix(".service"), None)
        if argv[0] == "journalctl":
            return 0, "line one\nline two\n", ""
        return 0, "", ""

    @staticmethod
    def shown(state):
        active, sub = {
            "absent": ("inactive", "dead"),
            "running": ("active", "running"),
            "succeeded": ("active", "exited"),
            "failed": ("failed", "failed"),
        }[state]
        load = "not-found" if state == "absent" else "loaded"
        return (
            f"LoadState={load}\nActiveState={active}\nSubState={sub}\nResult=signal\nExecMainStatus=9\n"
            f"InvocationID={'' if state == 'absent' else 'aa'}\nControlGroup=\n"
        )

    @property
    def brought(self):
        return str(self.tmp_path / "brought.json")

    # the hub
    def open(self, method, url, headers):
        self.requests.append((method, url.removeprefix("https://hub.example"), headers.get("Authorization")))
        if "whoami" in url:
            return Answer(self.who, {}, b'{"name": "ada"}')
        if method == "HEAD":
            return self.access or Answer(200)
        if "/revision/" in url:
            return Answer(200, {}, json.dumps({"sha": self.sha}).encode())
        entry = {"type": "file", "path": FILE.path, "oid": FILE.oid, "size": FILE.size}
        return Answer(200, {}, json.dumps([entry]).encode())

    def step(self, check_mode=False, **changes):
        environment = {"https_proxy": 'http://"proxy', "HOME": "/root"}
        world = World(self.run, self.open, environment, lambda seconds: None, str(self.tmp_path / "run"), self.brought)
        return hub_run.step({**self.params, **changes}, check_mode, world)

    def arrive(self, commit=COMMIT, branch="", files=(FILE,)) -> None:
        """What a job leaves."""
        cache = Cache(self.home)
        for file in files:
            node_files.write_atomically(cache.pointer("org/name", commit, file.path), "x" * file.size)
        node_files.write_atomically(cache.manifest("org/name", commit), Manifest("org/name", commit, files).dump())
        if branch:
            node_files.write_atomically(cache.record("org/name", branch), commit)

    def status(self, unit=UNIT, **values) -> None:
        node_files.write_atomically(str(self.tmp_path / "run" / unit / "status.json"), json.dumps(values))

    def started(self) -> list[list[str]]:
        return [argv for argv in self.ran if argv[0] == "systemd-run"]


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_a_converged_node_asks_nobody(node):
    node.arrive()
    result = node.step()
    assert (result["changed"], result["done"], node.ran, node.requests) == (False, True, [], [])
    path = Cache(node.home).snapshot("org/name", COMMIT)
    row = {"repo_id": "org/name", "revision": COMMIT, "path": path, "bytes": 2, "changed": False}
    assert result["snapshots"] == [row]


def test_downloads_are_listed_before_they_start(node):
    node.step(check_mode=True)
    assert node_brought.read(node.brought)["models"] == []
    node.step(background=True)
    assert node_brought.read(node.brought)["models"] == ["org/name"]


def test_a_model_that_somebody_else_put_there_is_not_noted(node):
    node_files.write_atomically(Cache(node.home).pointer("org/name", "b" * 40, FILE.path), "x")
    node.step(background=True)
    assert node.started()
    assert node_brought.read(node.brought)["models"] == []


def test_access_is_checked_before_anything_starts(node):
    node.access = Answer(403, {"x-error-code": "GatedRepo"})
    with pytest.raises(HubError, match="The account ada has not been granted access to org/name"):
        node.step()
    assert node.started() == []
    assert [path for _method, path, _token in node.requests] == [
        "/api/whoami-v2",
        f"/org/name/resolve/{COMMIT}/config.json",
    ]


def test_a_bad_token_is_named_first(node):
    node.who = 401
    with pytest.raises(HubError, match="token is not valid"):
        node.step()


@pytest.mark.parametrize(("given", "used"), [(None, "Bearer hf_file"), (" hf_given\n", "Bearer hf_given")])
def test_which_token(node, given, used):
    node.step(token=given)
    assert {token for _method, _path, token in node.requests} == {used}


def test_no_token_at_all(node):
    node.step(token_path="/nonexistent")
    assert {token for _method, _path, token in node.requests} == {None}
    assert not any("whoami" in path for _method, path, _token in node.requests)


def test_a_pull_starts_and_is_reported(node):
    result = node.step()
    assert (result["done"], result["changed"], result["progress"]) == (False, False, "starting")
    (command,) = node.started()
    folder = str(node.tmp_path / "run" / UNIT)
    assert command[-4:] == [f"{node.params['venv']}/bin/python", "-m", command[-2], folder]
    assert "--property=Restart=on-abnormal" in command
    job = json.loads(node_files.read_text(f"{folder}/job.json"))
    assert (job["repo_id"], job["commit"], job["branch"], job["workers"]) == ("org/name", COMMIT, "", 2)


def test_no_secret_beside_the_job(node):
    node.step(token="hf_given")
    for folder, _folders, names in os.walk(node.tmp_path / "run"):
        for name in names:
            text = node_files.read_text(os.path.join(folder, name))
            assert "hf_given" not in text
            assert "hf_file" not in text
    assert not any("hf_given" in part for argv in node.ran for part in argv)


def test_environment_of_the_job(node):
    node.step(ca_path="/etc/ca.pem")
    path = str(node.tmp_path / "run" / UNIT / "environment")
    lines = node_files.read_text(path).splitlines()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert f'HF_TOKEN_PATH="{node.tmp_path}/token"' in lines
    assert 'HF_HUB_DISABLE_TELEMETRY="1"' in lines
    assert 'SSL_CERT_FILE="/etc/ca.pem"' in lines
    assert r'https_proxy="http://\"proxy"' in lines
    assert not any(line.startswith("HOME=") for line in lines)


def test_programs_copied_to_the_node_can_run_there(node):
    """With nothing but the standard library on the path."""
    node.arrive()
    node.step(verify=True, fetch=False)
    folder = str(node.tmp_path / "run" / UNIT)
    module = "ansible_collections.gpunode.llm.plugins.module_utils.hub"
    ran = subprocess.run(
        [sys.executable, "-S", "-m", module, folder],
        env={"PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "damaged: config.json: its bytes differ from the hub" in ran.stdout
    assert ran.returncode == 1


def test_the_next_call_waits_on(node):
    resume = node.step()["resume"]
    node.requests.clear()
    node.status(phase="fetching", done=1, total=2, files=1)
    result = node.step(resume=json.loads(json.dumps(resume)))
    assert (result["done"], result["progress"]) == (False, "fetching 1 B of 2 B (50 %), 0 of 1 files")
    assert node.requests == []
    node.arrive()
    node.states[UNIT] = "succeeded"
    node.status(phase="complete", changed=True)
    result = node.step(resume=resume)
    assert (result["done"], result["changed"]) == (True, True)
    assert result["snapshots"][0]["changed"] is True
    assert result["diff"] == {"before": "", "after": f"org/name {COMMIT}\n"}
    assert node.states == {}


def test_a_running_pull_is_attached_to(node):
    node.states[UNIT] = "running"
    assert node.step()["done"] is False
    assert node.started() == []


def test_in_the_background(node):
    result = node.step(background=True)
    assert (result["done"], result["progress"], result["begun"]) == (True, "started", True)
    assert len(node.started()) == 1


@pytest.mark.parametrize(
    ("state", "status", "message"),
    [
        ("failed", {"error": "config.json: no"}, "config.json: no. Its log: journalctl -u " + UNIT),
        ("succeeded", {"error": "odd."}, "odd. Its log"),
        ("failed", {}, "line one; line two. Its log"),
        ("succeeded", {}, "line one; line two"),
        ("absent", {}, "stopped before its end"),
        ("absent", {"error": "the disk is full"}, "the disk is full"),
    ],
)
def test_a_failed_download_reports_why(node, state, status, message):
    resume = node.step()["resume"]
    node.status(**status)
    node.states[UNIT] = state
    with pytest.raises(Failed, match=message.replace("(", r"\(")):
        node.step(resume=resume)


def test_a_job_that_somebody_collected_after_its_work(node):
    resume = node.step()["resume"]
    node.arrive()
    del node.states[UNIT]
    assert node.step(resume=resume)["done"] is True


def test_no_venv(node):
    with pytest.raises(Failed, match="the role huggingface creates"):
        node.step(venv="/nonexistent")


# -- branches ---------------------------------------------------------------------------------------------------------
BRANCH = [{"repo_id": "org/name", "revision": None}]


def test_a_branch_is_resolved_once(node):
    node.step(snapshots=BRANCH)
    assert json.loads(node_files.read_text(str(node.tmp_path / "run" / UNIT / "job.json")))["branch"] == "main"
    node.arrive(branch="main")
    node.sha = NEWER
    node.requests.clear()
    assert node.step(snapshots=BRANCH)["snapshots"][0]["revision"] == COMMIT
    assert node.requests == []


def test_a_branch_is_asked_again_on_demand(node):
    node.arrive(branch="main")
    assert node.step(snapshots=BRANCH, update=True)["changed"] is False  # the hub has nothing new
    assert node.started() == []
    node.sha = NEWER
    result = node.step(snapshots=BRANCH, update=True)
    assert result["resume"]["targets"][0]["commit"] == NEWER


# -- check mode -------------------------------------------------------------------------------------------------------
def test_check_mode_reports_the_bytes(node):
    result = node.step(check_mode=True, venv="/nonexistent", snapshots=BRANCH)
    assert (result["changed"], result["progress"]) == (True, "would fetch 2 B")
    assert result["snapshots"][0]["bytes_to_fetch"] == 2
    assert result["diff"]["after"] == f"org/name {COMMIT}\n"
    assert node.ran == []
    assert not os.path.exists(node.home)


def test_check_mode_survives_a_refusal(node):
    node.open = lambda method, url, headers: Answer(0, reason="no route")
    result = node.step(check_mode=True)
    assert result["changed"] is True
    assert result["snapshots"][0]["bytes_to_fetch"] == -1
    assert "no route" in result["warnings"][0]


def test_check_mode_of_some(node):
    node.arrive()
    two = [*node.params["snapshots"], {"repo_id": "org/other", "revision": COMMIT}]
    result = node.step(check_mode=True, snapshots=two)
    assert [row["bytes_to_fetch"] for row in result["snapshots"]] == [0, 2]
    assert [row["changed"] for row in result["snapshots"]] == [False, True]


# -- several, and verification ----------------------------------------------------------------------------------------
def test_two_repositories_are_two_units(node):
    two = [*node.params["snapshots"], {"repo_id": "org/other", "revision": COMMIT}]
    result = node.step(snapshots=two)
    assert len(node.started()) == 2
    assert result["progress"] == "org/name: starting; org/other: starting"


def test_verify_needs_no_hub(node):
    node.arrive()
    result = node.step(verify=True, fetch=False)
    assert result["done"] is False
    assert node.requests == []
    assert node.started()[0][-4] == sys.executable
    node.states[UNIT] = "succeeded"
    result = node.step(verify=True, fetch=False, resume=result["resume"])
    assert (result["done"], result["changed"]) == (True, False)


def test_verify_names_all_that_is_damaged(node):
    node.arrive()
    manifest = Manifest("org/other", NEWER, [])
    node_files.write_atomically(Cache(node.home).manifest("org/other", NEWER), manifest.dump())
    two = [{"repo_id": "org/name", "revision": COMMIT}, {"repo_id": "org/other", "revision": NEWER}]
    result = node.step(verify=True, fetch=False, snapshots=two)
    first, second = (target["unit"] for target in result["resume"]["targets"])
    for name, error in ((first, "one is bad"), (second, "two is bad")):
        node_files.write_atomically(str(node.tmp_path / "run" / name / "status.json"), json.dumps({"error": error}))
    node.states[first] = "failed"
    outcome = node.step(verify=True, fetch=False, snapshots=two, resume=result["resume"])
    assert outcome["done"] is False
    node.states[second] = "failed"
    with pytest.raises(Failed, match="(?s)one is bad.*two is bad"):
        node.step(verify=True, fetch=False, snapshots=two, resume=outcome["resume"])


def test_verify_of_what_was_never_here(node):
    with pytest.raises(Failed, match="never downloaded"):
        node.step(verify=True, fetch=False, snapshots=BRANCH)


def test_a_unit_for_each_commit():
    assert hub_cache.job_unit("org/name", COMMIT) == UNIT


SEEDER = {"name": "node-1", "address": "10.0.0.1", "port": 8730, "bind": "10.0.0.2"}
SEEDED = {
    "seeder": SEEDER,
    "seeder_secret": "gpunode:s3cr3t\n",
    "seeder_manifests": [Manifest("org/name", COMMIT, [FILE]).content()],
}


def test_a_follower_asks_no_hub_and_needs_no_client(node):
    node.step(**SEEDED, venv="/nowhere", update=True)
    assert node.requests == []
    (command,) = node.started()
    assert command[command.index("--") + 1] == sys.executable
    folder = node.tmp_path / "run" / UNIT
    job = json.loads((folder / "job.json").read_text())
    assert job["seeder"]["url"] == "rsync://gpunode@10.0.0.1:8730/weights"
    assert job["seeder"]["manifest"] == str(folder / "manifest.json")
    assert Manifest.load((folder / "manifest.json").read_text()).files == [FILE]


def test_the_seeders_address_may_be_of_ipv6(node):
    node.step(**{**SEEDED, "seeder": {**SEEDER, "address": "fd00::1"}})
    job = json.loads((node.tmp_path / "run" / UNIT / "job.json").read_text())
    assert job["seeder"]["url"] == "rsync://gpunode@[fd00::1]:8730/weights"


@pytest.mark.parametrize("state", ["absent", "running"])
def test_the_seeders_password_is_that_of_this_play(node, state):
    """A job that goes on from the play before needs the new one too: the seeder has forgotten the old."""
    node.states[UNIT] = state
    node.step(**SEEDED)
    secret = node.tmp_path / "run" / UNIT / "secret"
    assert secret.read_text() == "s3cr3t\n"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(node.started()) == (state == "absent")
    assert "s3cr3t" not in json.dumps(node.ran)


def test_a_seeder_without_the_snapshot(node):
    with pytest.raises(Failed, match=f"node-1 does not have org/name at {COMMIT} yet"):
        node.step(**{**SEEDED, "seeder_manifests": []})
    result = node.step(check_mode=True, **{**SEEDED, "seeder_manifests": []})
    assert result["snapshots"][0]["bytes_to_fetch"] == -1
    assert "node-1 does not have" in result["warnings"][0]


def test_what_a_follower_would_take(node):
    result = node.step(check_mode=True, **SEEDED)
    assert (result["snapshots"][0]["bytes_to_fetch"], node.requests, node.started()) == (2, [], [])


def test_a_follower_verifies_by_itself(node):
    """Nobody is asked where nothing is to be fetched."""
    node.arrive()
    node.step(**{**SEEDED, "seeder_secret": None}, verify=True, fetch=False)
    job = json.loads((node.tmp_path / "run" / UNIT / "job.json").read_text())
    assert job["seeder"] == {}
    assert not (node.tmp_path / "run" / UNIT / "secret").exists()
