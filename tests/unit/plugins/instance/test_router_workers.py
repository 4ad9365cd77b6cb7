# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes join the router and leave it: what smg reads is written whole, and its processes are waited for.

smg is a server here that answers /workers as smg 1.13.0 does, from the file that it would read.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Answer as Answered
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names, router, router_source
from ansible_collections.gpunode.llm.plugins.modules import router_info, router_workers

KEY = "c" * 64
A = {"id": "gpu-1-8b", "url": "http://10.0.0.1:8000", "model": "org/small", "aliases": ["8b"]}
B = {"id": "gpu-2-8b", "url": "http://10.0.0.2:8000", "model": "org/small", "aliases": ["8b", "small"]}


class Smg(ThreadingHTTPServer):
    """One process of smg. ``stuck``: states that it says in place of ready; ``kept``: workers that have requests."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.stuck, self.kept, self.asked = folder, {}, [], 0

    def workers(self):
        """A worker with requests is kept for two questions more."""
        self.asked += 1
        listed = [row["id"] for row in json.loads((self.folder / "workers.json").read_text())["workers"]]
        draining = [one for one in self.kept if one not in listed and self.asked <= 2]
        rows = [(one, self.stuck.get(one, "ready")) for one in listed] + [(one, "draining") for one in draining]
        return [{"labels": {"smg.ai/discovery-id": one}, "status": state} for one, state in rows]


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *_words):
        """Nothing is logged."""

    def do_GET(self):
        allowed = self.path == "/workers" and self.headers["Authorization"] == f"Bearer {KEY}"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"workers": self.server.workers()}).encode() if allowed else b"Invalid")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(router_workers, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(names, "router_control_key", lambda unit: str(tmp_path / f"{unit}.key"))
    (tmp_path / "router").mkdir()
    return tmp_path / "router"


@pytest.fixture
def smg(folder):
    """Both processes of the router."""
    servers = [Smg(folder), Smg(folder)]
    for unit, server in zip(names.ROUTER_UNITS, servers, strict=True):
        (folder.parent / f"{unit}.key").write_text(KEY)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    (folder / "settings.json").write_text(json.dumps({"ports": [server.server_port for server in servers]}))
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def ask(capsys, folder, monkeypatch):
    commands = []

    def run_command(_module, argv, **_options):
        commands.append(argv)
        told = "3 11\n" if argv[0] == "python3" else ""
        return (1, "", "it hangs") if "fails" in ask_options else (0, told, "")

    ask_options = []
    monkeypatch.setattr(AnsibleModule, "run_command", run_command)

    def run(module=router_workers, check_mode=False, fails=False, **options):
        ask_options[:] = ["fails"] if fails else []
        given = {**options, "folder": str(folder), "_ansible_check_mode": check_mode}
        with patch_module_args(given), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    run.commands = commands
    return run


def manifest(folder):
    return json.loads((folder / "workers.json").read_text())


def test_without_a_router_the_files_are_written_and_nothing_is_waited_for(ask, folder):
    result = ask(node="gpu-1", workers=[A])
    assert (result["changed"], result["processes"], result["nodes"]) == (True, 0, ["gpu-1"])
    assert manifest(folder) == {"version": 1, "workers": [{"id": A["id"], "url": A["url"]}]}
    assert json.loads((folder / "aliases.json").read_text()) == {"8b": "org/small"}
    assert ask(node="gpu-1", workers=[A])["changed"] is False


def test_check_mode_writes_nothing_and_shows_what_would_change(ask, folder):
    result = ask(check_mode=True, node="gpu-1", workers=[A])
    assert (result["changed"], result["diff"]["before"]) == (True, "")
    assert result["diff"]["after"] == "gpu-1: gpu-1-8b http://10.0.0.1:8000 org/small 8b\n"
    assert list(folder.iterdir()) == []


def test_a_node_that_joins_is_waited_for_at_both_processes(ask, smg, folder):
    result = ask(node="gpu-1", workers=[A])
    assert (result["processes"], len(manifest(folder)["workers"])) == (2, 1)
    assert all(server.asked for server in smg)


def test_a_worker_that_the_router_does_not_take_is_named(ask, smg):
    smg[1].stuck = {A["id"]: "not_ready"}
    result = ask(node="gpu-1", workers=[A], wait_s=0.3)
    assert result["failed"] is True
    assert f"{names.ROUTER_SECOND_UNIT} says not_ready of gpu-1-8b at http://10.0.0.1:8000" in result["msg"]
    assert ask(node="gpu-1", workers=[A], wait_s=0)["processes"] == 2


def test_a_node_that_leaves_is_waited_for_until_its_requests_are_answered(ask, smg, folder):
    ask(nodes={"gpu-1": [A], "gpu-2": [B]})
    smg[0].asked, smg[0].kept = 0, [A["id"]]
    result = ask(node="gpu-1", state="absent")
    assert (result["before"], result["cut"], result["nodes"]) == ([A], [], ["gpu-2"])
    assert smg[0].asked > 2
    assert [one["id"] for one in manifest(folder)["workers"]] == [B["id"]]


def test_requests_that_take_too_long_are_reported(ask, smg):
    ask(node="gpu-1", workers=[A])
    smg[0].asked, smg[0].kept = -1000, [A["id"]]
    assert ask(node="gpu-1", state="absent", drain_s=0.3)["cut"] == [A["id"]]


def test_nodes_that_are_no_longer_known_are_taken_out(ask, folder):
    ask(nodes={"gpu-1": [A], "gpu-2": [B]})
    result = ask(known=["gpu-2"])
    assert (result["nodes"], result["models"]) == (["gpu-2"], {"8b": ["10.0.0.2:8000"]})
    assert [one["id"] for one in manifest(folder)["workers"]] == [B["id"]]


def test_a_host_whose_router_is_gone_is_left_as_it_is(ask, folder):
    assert ask(node="gpu-1", state="absent")["changed"] is False
    assert list(folder.iterdir()) == []


def test_a_node_without_engines_has_no_place(ask):
    ask(node="gpu-1", workers=[A])
    assert ask(node="gpu-1", workers=[])["nodes"] == []


def test_other_names_of_models_take_a_restart_of_one_process_after_the_other(ask, smg):
    ask(node="gpu-1", workers=[A])
    ask.commands.clear()
    ask(node="gpu-2", workers=[{**B, "aliases": ["8b"]}])
    assert ask.commands == []
    ask(node="gpu-2", workers=[B])
    assert ask.commands == [["systemctl", "restart", unit] for unit in reversed(names.ROUTER_UNITS)]
    assert "systemctl restart gpunode-router-second.service failed: it hangs" in ask(fails=True, node="gpu-2")["msg"]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"a": [A]}, {"8b": "org/small"}),
        ({"a": [A], "b": [{**B, "model": "org/other", "aliases": ["8b"]}]}, {}),
        ({"a": [{**A, "aliases": ["org/small"]}]}, {}),
    ],
)
def test_a_name_that_means_two_models_is_no_name(nodes, expected):
    assert router.aliases({node: router.workers(rows) for node, rows in nodes.items()}) == expected


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2, "nodes": {}}', '{"schema": 1, "nodes": {"a": [{}]}}'])
def test_a_record_that_cannot_be_read_is_reported(ask, folder, text):
    (folder / "nodes.json").write_text(text)
    assert "nodes.json cannot be read" in ask(node="gpu-1", workers=[A])["msg"]
    assert "nodes.json cannot be read" in ask(router_info)["msg"]


def test_a_worker_without_a_field_is_reported(ask):
    assert "'url'" in ask(nodes={"a": [{"id": "a"}]})["msg"]


def test_what_is_installed_and_what_it_says(ask, smg, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(router_info, "USER", "root")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    assert ask(router_info, venv=str(venv), requirements="smg")["installed"] is False
    (venv / "bin" / "python").touch()
    (venv / "requirements.txt").write_text("smg\n")
    ask(node="gpu-1", workers=[A])
    result = ask(router_info, venv=str(venv), requirements="smg")
    assert (result["installed"], result["user"], result["nodes"]) == (True, True, {"gpu-1": [A]})
    assert [one["workers"] for one in result["processes"]] == [{A["id"]: "ready"}] * 2
    monkeypatch.setattr(router_info, "USER", "gpunode-nobody")
    assert ask(router_info, requirements="smg")["user"] is False


@pytest.mark.parametrize(
    ("machine", "python", "expected"),
    [
        ("x86_64", "3 11", ""),
        ("aarch64", "3 14", ""),
        ("ppc64le", "3 11", "smg has no wheel for ppc64le"),
        ("x86_64", "3 9", "smg has wheels for Python 3.10 to 3.14, and this node has 3.9"),
        ("x86_64", "", "smg has wheels for Python 3.10 to 3.14, and this node has no python3"),
    ],
)
def test_a_wheel_that_fits(machine, python, expected):
    assert router_source.obstacle(machine, router_source.version(python)) == expected


@pytest.mark.parametrize(
    ("index", "answer", "expected"),
    [
        ("", Answered(0), ""),
        ("https://pypi.test/simple", Answered(200), ""),
        ("https://pypi.test/simple/", Answered(301), ""),
        (
            "https://ada:secret@pypi.test/simple",
            Answered(404),
            "the Python package index https://pypi.test/simple answers 404 for smg",
        ),
        (
            "https://pypi.test/simple",
            Answered(0, reason="no route"),
            "the Python package index https://pypi.test/simple cannot be reached: no route",
        ),
    ],
)
def test_an_index_that_has_it(index, answer, expected):
    asked = []

    def opener(method, url, headers):
        asked.append(url)
        return answer

    assert router_source.at_index(index, opener) == expected
    assert asked == ([f"{index.rstrip('/')}/smg/"] if index else [])


def test_an_index_that_pip_s_own_settings_may_name_is_not_guessed(tmp_path, monkeypatch):
    monkeypatch.setattr(router_source, "PIP_SETTINGS", (str(tmp_path / "pip.conf"),))
    assert router_source.pip_index() == "https://pypi.org/simple"
    (tmp_path / "pip.conf").touch()
    assert router_source.pip_index() == ""


def test_a_router_that_cannot_be_installed_says_why(ask, tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    assert ask(router_info, wheels=str(tmp_path / "wheels"))["obstacle"] == f"{tmp_path}/wheels has no wheel of smg"
    (tmp_path / "wheels" / "smg-1.13.0-cp38-abi3-manylinux_2_17_x86_64.whl").touch()
    assert ask(router_info, wheels=str(tmp_path / "wheels"))["obstacle"] == ""
    # Nothing listens there.
    assert "cannot be reached" in ask(router_info, index_url="http://127.0.0.1:9/simple")["obstacle"]
    assert ask(router_info, index_url="http://127.0.0.1:9/simple", ask_index=False)["obstacle"] == ""
    monkeypatch.setattr(router_source, "MACHINES", ())
    assert ask(router_info)["obstacle"].startswith("smg has no wheel for ")


def test_a_process_that_answers_otherwise_counts_as_none(smg, folder):
    (folder.parent / f"{names.ROUTER_UNIT}.key").write_text("wrong")
    first, second = router.processes(str(folder / "settings.json"))
    assert first.states() is None
    (folder / "workers.json").write_text('{"workers": []}')
    assert second.states() == {}
    assert router.Process(names.ROUTER_UNIT, 1).states() is None
    assert router.states("no JSON") == {}


def test_the_status_of_a_router(ask, smg, folder, tmp_path):
    settings, record = str(folder / "settings.json"), str(folder / "nodes.json")
    assert router.status({}, settings, record) == {}
    ask(nodes={"gpu-1": [A], "gpu-2": [B]})
    active = dict.fromkeys(names.ROUTER_UNITS, "active/running")
    found = router.status(active, settings, record)
    assert (found["workers"], found["workers_ready"], found["not_ready"]) == (2, 2, [])
    assert found["processes"][0] == {"unit": names.ROUTER_UNIT, "state": "active/running", "answers": True}
    smg[1].stuck = {B["id"]: "not_ready"}
    assert router.status(active, settings, record)["not_ready"] == ["gpu-2-8b at http://10.0.0.2:8000"]
    down = router.status(active, str(tmp_path / "none"), record)
    assert (down["workers_ready"], down["processes"][0]["answers"]) == (0, False)
    (folder / "nodes.json").write_text("{")
    assert router.status(active, settings, record)["workers"] == 0
