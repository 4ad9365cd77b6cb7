# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine over two nodes, in the order of this file: what it serves, what ends it, and how it comes back."""

from __future__ import annotations

import json
import subprocess

import pytest
from conftest import MODEL, UNIT, back, head, kill, other, peer_log, play, runs, serves
from scenario import LAB, on_node, run_play, wait_until, wrong_answers

PROOF = "/var/lib/gpunode/network-proof.json"
#: What a teardown is to leave nothing of.
LEFT_UNITS = "systemctl list-units --all --plain --no-legend 'vllm-*' 'gpunode-peer@*' 'gpunode-network*'"
LEFT_FILES = (
    "/etc/vllm/* /etc/systemd/system/*vllm* /etc/systemd/system/gpunode-peer* /etc/systemd/system/*/gpunode-peer*"
    " /run/gpunode-peer* /usr/local/lib/gpunode/vllm-peer.py"
)


def test_a_stage_on_each_node_gives_the_answers_of_the_whole() -> None:
    assert serves()
    log = on_node(f"journalctl --no-pager -q -o cat -u {UNIT}", node=other())
    assert "headless multiproc executor" in log
    assert "Worker_PP1" in log
    # It has no API there.
    assert on_node("curl -s -o /dev/null http://127.0.0.1:8000/health; echo $?", node=other()) == "7"


def test_the_network_was_measured_on_both() -> None:
    for node in (head(), other()):
        proof = json.loads(on_node(f"cat {PROOF}", node=node))
        print(f"{node}: {proof['gbit_s']} Gbit/s by {proof['backend']}")
        assert proof["right"]
        assert proof["gbit_s"] > 0.1


def test_a_second_run_changes_nothing() -> None:
    before = runs()
    again = play("site")
    assert again.status == 0, again.text
    assert again.text.count("changed=0 ") == 2
    assert f"{other()}: nothing to do, tiny runs with {head()}" in again.words
    assert runs() == before


def test_the_nodes_of_an_engine_are_not_taken_one_after_the_other() -> None:
    refused = play("site", nodes_at_a_time=1)
    assert refused.status != 0
    assert f"tiny runs over {head()} and {other()}, and nodes_at_a_time comes to {other()} later" in refused.words


def test_nothing_starts_over_a_network_that_is_too_slow() -> None:
    before = runs()
    for node in (head(), other()):
        on_node(f"cp {PROOF} /run/proof.json; rm {PROOF}", node=node)
    refused = play("site", vllm_link_floor_gbit_s=100000)
    assert refused.status != 0
    assert "vllm_link_floor_gbit_s wants at least 100000" in refused.words
    assert runs() == before
    for node in (head(), other()):
        assert on_node(f"ls {PROOF} || cp /run/proof.json {PROOF}", check=False, node=node) == ""


def test_the_status_shows_one_engine() -> None:
    shown = play("playbooks/status")
    lines = [line for line in shown.text.splitlines() if " tiny " in line and "serving" in line]
    assert len(lines) == 1, shown.text
    assert lines[0].strip().startswith(head())
    assert f"rank 1 of the engine on {head()}" in shown.words


@pytest.mark.parametrize(
    ("side", "process"), [("other", "VLLM::Worker"), ("head", "VLLM::Worker"), ("head", "VLLM::EngineCore")]
)
def test_a_rank_that_is_killed_takes_the_engine_down_and_it_comes_back(side: str, process: str) -> None:
    before = runs()
    kill(other() if side == "other" else head(), process)
    print(f"{process} killed on the {side}: served again after {back(before):.0f} s")
    survivor = head() if side == "other" else other()
    assert f"{UNIT} starts anew, with all others of its group" in peer_log(survivor)


def test_a_stop_of_any_rank_lets_requests_finish() -> None:
    body = json.dumps({"model": MODEL, "prompt": "Hello", "max_tokens": 400, "ignore_eos": True})
    curl = f"curl -s -m 120 -w ' %{{http_code}}' -H 'Content-Type: application/json' -d '{body}'"
    address = "http://127.0.0.1:8000/v1/completions"
    with subprocess.Popen(
        [str(LAB), "ssh", head(), f"{curl} {address}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as asked:

        def it_works() -> bool:
            metrics = on_node("curl -s http://127.0.0.1:8000/metrics", check=False, node=head())
            lines = [line for line in metrics.splitlines() if line.startswith("vllm:num_requests_running")]
            return any(float(line.split()[-1]) > 0 for line in lines)

        wait_until(it_works)
        before = runs()
        on_node(f"systemctl stop {UNIT}", node=other())
        answer, _errors = asked.communicate()
    assert answer.endswith(" 200")
    assert json.loads(answer.rpartition(" ")[0])["usage"]["completion_tokens"] == 400
    # The head waits for it, and does not give up.
    waits = f"vllm-peer: waits: rank 1 on {other()} does not run."
    wait_until(lambda: waits in on_node(f"journalctl --no-pager -q -o cat -u {UNIT}", node=head()))
    on_node(f"systemctl start --no-block {UNIT}", node=other())
    back(before)


def test_a_node_that_is_restarted_comes_back_into_its_engine() -> None:
    before = runs()
    subprocess.run([LAB, "reboot", other()], check=True, capture_output=True)
    print(f"served again {back(before):.0f} s after the node was there again")


def test_a_change_of_options_restarts_all_ranks_together() -> None:
    before = runs()
    changed = play("site", vllm_max_model_len=1024)
    assert changed.status == 0, changed.text
    assert not set(runs().values()) & set(before.values())
    assert wrong_answers(node=head(), model=MODEL) == {}
    for node in (head(), other()):
        assert "max-model-len: 1024" in on_node("cat /etc/vllm/tiny.yaml", node=node)


def test_nothing_is_left_after_a_teardown() -> None:
    gone = run_play("playbooks/teardown.yml")
    assert gone.status == 0, gone.text
    for node in (head(), other()):
        left = on_node(f"{LEFT_UNITS}; ls -d {LEFT_FILES} {PROOF} 2>/dev/null", check=False, node=node)
        assert left == ""
