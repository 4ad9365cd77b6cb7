# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network between the nodes of an engine is measured before the engine starts. molecule/nodes does it for real."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.image import all_reduce, link_proof
from ansible_collections.gpunode.llm.plugins.module_utils.units import job as units_job
from ansible_collections.gpunode.llm.plugins.modules import network_proof

PROOF = {
    "image": "vllm:1",
    "head": "10.0.0.1",
    "port": 31501,
    "rank": 1,
    "size": 2,
    "address": "10.0.0.2",
    "interface": "eth7",
    "hcas": ["mlx5_0", "mlx5_1"],
    "gpu": "GPU-1",
    "key": "k",
}
GOOD = {"gbit_s": 9.4, "backend": "gloo", "right": True}


def test_it_takes_the_network_that_the_engine_will_take():
    words = link_proof.command("/usr/bin/docker", PROOF)
    for word in ("--network=host", "--device=nvidia.com/gpu=GPU-1", "--device=/dev/infiniband", "--pull=never"):
        assert word in words
    for told in ("GLOO_SOCKET_IFNAME=eth7", "NCCL_SOCKET_IFNAME==eth7", "NCCL_IB_HCA==mlx5_0,mlx5_1"):
        assert f"--env={told}" in words
    assert words[-4:] == ["10.0.0.1", "31501", "1", "2"]
    plain = link_proof.command("/usr/bin/docker", {**PROOF, "hcas": [], "gpu": "", "interface": ""})
    assert not [word for word in plain if "--device" in word or "--env" in word]


def test_systemd_expands_nothing_in_its_command():
    spec = link_proof.job("/usr/bin/docker", PROOF)
    assert [word for word in spec.argv if "$" in word.replace("$$", "")] == []
    assert spec.name == link_proof.UNIT


def test_a_ring_of_more_nodes_carries_more_than_once():
    assert all_reduce.bandwidth(2, 10**9, 8.0) == pytest.approx(1.0)
    assert all_reduce.bandwidth(4, 10**9, 8.0) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (["a warning", json.dumps(GOOD), "Stopped."], GOOD),
        (["{}", "[1]", "no JSON"], None),
        ([], None),
    ],
)
def test_the_answer_is_a_line_of_the_log(lines, answer):
    assert link_proof.answer_of(lines) == answer


@pytest.mark.parametrize(
    ("answer", "lines", "words"),
    [
        (GOOD, [], ""),
        ({**GOOD, "gbit_s": 0.4}, [], "ran at 0.4 Gbit/s with gloo, and vllm_link_floor_gbit_s wants at least 1"),
        ({**GOOD, "right": False}, [], "had a wrong sum"),
        (
            None,
            ["Traceback", "RuntimeError: timed out", ""],
            "failed: RuntimeError: timed out. All TCP ports must be open",
        ),
        (None, [], "failed: it said nothing."),
    ],
)
def test_what_a_network_is_refused_for(answer, lines, words):
    trouble = link_proof.trouble(PROOF, "big", 1, answer, lines)
    assert words in trouble
    assert bool(trouble) is bool(words)
    assert not trouble or "the network of big (eth7, 10.0.0.2)" in trouble


def test_a_proof_is_remembered(tmp_path):
    path = str(tmp_path / "sub" / "proof.json")
    assert link_proof.last(path) == {}
    link_proof.remember("k", GOOD, path)
    assert link_proof.last(path) == {"key": "k", **GOOD}
    (tmp_path / "sub" / "proof.json").write_text("[]")
    assert link_proof.last(path) == {}


# -- the program, with as much of torch as it calls --------------------------------------------------------------------
class Tensor:
    def __init__(self, value):
        self.value = value

    def clone(self):
        return Tensor(self.value)

    def __eq__(self, other):
        return SimpleNamespace(all=lambda: self.value == other)

    __hash__ = None


@pytest.fixture
def torch(monkeypatch):
    """A torch whose nodes all have the same tensor."""
    calls = []
    made = ModuleType("torch")
    dist = ModuleType("torch.distributed")
    made.float32, made.distributed = "float32", dist
    made.cuda = SimpleNamespace(is_available=lambda: made.gpu, synchronize=lambda: calls.append("synchronize"))
    made.ones = lambda number, dtype, device: calls.append(device) or Tensor(1)
    dist.init_process_group = lambda backend, **more: calls.append((backend, more["init_method"], more["rank"]))
    dist.barrier = dist.destroy_process_group = lambda: None

    def all_reduce_of_two(tensor):
        tensor.value *= made.sum

    dist.all_reduce = all_reduce_of_two
    made.gpu, made.sum, made.calls = False, 2, calls
    monkeypatch.setitem(sys.modules, "torch", made)
    monkeypatch.setitem(sys.modules, "torch.distributed", dist)
    ticks = iter(range(100))
    monkeypatch.setattr(all_reduce.time, "monotonic", lambda: float(next(ticks)))
    return made


@pytest.mark.parametrize(
    ("gpu", "head", "first", "device"),
    [
        (False, "10.0.0.1", ("gloo", "tcp://10.0.0.1:31501", 1), "cpu"),
        (True, "2001:db8::1", ("nccl", "tcp://[2001:db8::1]:31501", 1), "cuda:0"),
    ],
)
def test_nccl_where_there_is_a_gpu(torch, capsys, gpu, head, first, device):
    torch.gpu = gpu
    all_reduce.main([head, "31501", "1", "2"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["backend"], answer["right"], answer["gbit_s"]) == (first[0], True, 0.54)
    assert torch.calls[:2] == [first, device]
    assert ("synchronize" in torch.calls) is gpu


def test_a_wrong_sum_is_seen(torch, capsys):
    torch.sum = 3
    all_reduce.main(["10.0.0.1", "31501", "0", "2"])
    assert json.loads(capsys.readouterr().out)["right"] is False


# -- the module -------------------------------------------------------------------------------------------------------
class Module:
    """Stands in for AnsibleModule; the job is there from its start on, and has ended."""

    def __init__(self, check_mode=False, starts=True, log="", **params):
        self.params = {"name": "big", "proof": PROOF, "floor_gbit_s": 1.0, "docker": "/usr/bin/docker", **params}
        self.check_mode, self.starts, self.journal, self.commands = check_mode, starts, log, []

    def run_command(self, argv):
        self.commands.append(list(argv))
        if argv[0] == "systemd-run":
            return (0, "", "") if self.starts else (1, "", "no systemd")
        if argv[0] == "journalctl":
            return 0, self.journal, ""
        if argv[:2] == ["systemctl", "show"]:
            return 0, "LoadState=loaded\nActiveState=active\nSubState=exited\nInvocationID=r\n", ""
        return 0, "", ""

    def fail_json(self, **result):
        raise SystemExit(result["msg"])

    def exit_json(self, **result):
        raise SystemExit(result)


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(
        network_proof.link_proof, "remember", lambda key, answer: (tmp_path / key).write_text(str(answer))
    )

    def ended(module):
        monkeypatch.setattr(network_proof, "AnsibleModule", lambda **_more: module)
        with pytest.raises(SystemExit) as end:
            network_proof.main()
        return end.value.code

    ended.folder = tmp_path
    return ended


def test_a_start_removes_what_a_stopped_play_left(run, monkeypatch):
    monkeypatch.setattr(units_job, "look", lambda *_words: units_job.JobState("absent"))
    module = Module(step="start")
    assert run(module) == {"changed": False}
    assert [command[0] for command in module.commands] == ["systemctl", "systemctl", "/usr/bin/docker", "systemd-run"]
    assert "did not start" in run(Module(step="start", starts=False))


def test_an_end_has_the_figure(run):
    module = Module(step="end", log=json.dumps(GOOD))
    result = run(module)
    assert (result["gbit_s"], result["backend"]) == (9.4, "gloo")
    assert (
        result["said"]
        == "big: the network between its 2 nodes (eth7, 10.0.0.2) carries 9.4 Gbit/s in an all-reduce with gloo"
    )
    assert (run.folder / "k").exists()
    assert ["systemctl", "stop", f"{link_proof.UNIT}.service"] in module.commands


@pytest.mark.parametrize("log", ["RuntimeError: timed out", json.dumps({**GOOD, "gbit_s": 0.1})])
def test_a_network_that_does_not_do_fails_and_is_not_remembered(run, log):
    assert "vllm_" in run(Module(step="end", log=log))
    assert not (run.folder / "k").exists()


def test_check_mode_measures_nothing(run):
    module = Module(step="start", check_mode=True)
    assert run(module)["gbit_s"] == 0.0
    assert module.commands == []
