# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ranks of one engine over several nodes: they meet at the start, and when one ends, all start anew."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs import vllm_peer
from ansible_collections.gpunode.llm.plugins.module_utils.programs.vllm_peer import LEAVING, MET, WAITING, Seen

RECORD = {
    "name": "tiny",
    "unit": "vllm-tiny.service",
    "group": {
        "rank": 0,
        "nodes": ["n1", "n2", "n3"],
        "addresses": ["127.0.0.1", "127.0.0.2", "127.0.0.3"],
        "port": 0,
        "state": "/run/x/group.json",
        "digest": "same",
        "docker": "/usr/bin/docker",
    },
}
HEAD = vllm_peer.group_in(json.dumps(RECORD))
THIRD = replace(HEAD, rank=2)
WAITS = {rank: Seen(f"run{rank}", "activating", "start-pre", WAITING, {}, "same") for rank in range(3)}
RUNS = {str(rank): f"run{rank}" for rank in range(3)}
UP = {rank: Seen(f"run{rank}", "active", "running", MET, RUNS, "same") for rank in range(3)}


class Time:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def meeting(group, answers):
    """A start of a rank, where each look takes the next of the other ranks' states; the last one stays."""
    time, kept, said = Time(), [], []
    looks = {rank: list(states) if isinstance(states, list) else [states] for rank, states in answers.items()}

    def ask(rank):
        states = looks[rank]
        return states.pop(0) if len(states) > 1 else states[0]

    meet = vllm_peer.Meeting(
        group, f"run{group.rank}", ask, lambda phase, met: kept.append((phase, met)), said.append, time, time.sleep
    )
    return meet, kept, said


def test_ranks_that_wait_meet_and_know_each_other_by_their_runs():
    meet, kept, said = meeting(HEAD, WAITS)
    assert meet.meet(60)
    assert kept == [(WAITING, {}), (MET, RUNS)]
    assert said == ["all 3 ranks start"]
    meet, kept, _said = meeting(THIRD, {0: [WAITS[0], replace(WAITS[0], phase=MET, met=RUNS)]})
    assert meet.meet(60)
    assert kept == [(WAITING, {}), (MET, RUNS)]


@pytest.mark.parametrize(
    ("rank", "seen", "words"),
    [
        (1, None, "rank 1 on n2 does not answer on 127.0.0.2 port 0"),
        (2, Seen("run2"), "rank 2 on n3 does not run"),
        (2, replace(UP[2], sub="auto-restart"), "rank 2 on n3 does not run"),
        (1, UP[1], "rank 1 on n2 is still in its last run"),
        (1, replace(WAITS[1], phase=""), "rank 1 on n2 is about to start"),
        (1, replace(WAITS[1], active="deactivating"), "rank 1 on n2 is still in its last run"),
    ],
)
def test_a_head_waits_for_each_rank_and_says_for_which(rank, seen, words):
    meet, kept, said = meeting(HEAD, {**WAITS, rank: [seen, seen, WAITS[rank]]})
    assert meet.meet(60)
    assert said == [f"waits: {words}", "all 3 ranks start"]
    assert kept[-1] == (MET, RUNS)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (WAITS[0], "rank 0 on n1 waits for all ranks"),
        (UP[0], "rank 0 on n1 is still in its last run"),
        (replace(UP[0], met={**RUNS, "2": "an-earlier-run"}), "rank 0 on n1 is still in its last run"),
        (None, "rank 0 on n1 does not answer on 127.0.0.1 port 0"),
    ],
)
def test_a_headless_rank_joins_no_run_that_began_without_it(seen, words):
    other = replace(seen, met={}) if seen and seen.phase == MET and not seen.met.get("2", "").startswith("an") else seen
    meet, kept, said = meeting(THIRD, {0: other})
    assert not meet.meet(30)
    assert kept == [(WAITING, {})]
    assert said == [f"waits: {words}", f"this start ends: {words}"]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Seen("run1", "failed", "failed"), "has failed, `journalctl -eu vllm-tiny.service` on that node says why"),
        (replace(WAITS[1], digest="other"), "has another configuration, image or environment: run the playbook"),
    ],
)
def test_a_start_that_cannot_come_ends_soon(seen, words):
    meet, _kept, said = meeting(HEAD, {**WAITS, 1: seen})
    assert not meet.meet(3600)
    assert meet.clock() == 100 + vllm_peer.HOPELESS_S
    assert words in said[-1]


def test_what_was_hopeless_for_a_moment_may_come():
    failed = Seen("run1", "failed", "failed")
    meet, _kept, _said = meeting(HEAD, {**WAITS, 1: [failed, failed, Seen("run4"), failed, WAITS[1]]})
    assert meet.meet(3600)


# -- the daemon -------------------------------------------------------------------------------------------------------
def watch(group, others, here=None):
    time, states = Time(), {**UP, **others}
    return vllm_peer.Watch(group, lambda: here or UP[group.rank], states.get, time), time


@pytest.mark.parametrize("group", [HEAD, THIRD])
def test_nothing_is_restarted_while_every_run_goes_on(group):
    for busy in ({}, {1: replace(UP[1], active="activating", sub="start-post")}):
        assert watch(group, busy)[0].reason() == ""
    # The head finishes its last requests, and needs the others for that.
    assert watch(THIRD, {0: replace(UP[0], active="deactivating")})[0].reason() == ""


@pytest.mark.parametrize(
    "seen",
    [
        Seen("run1", "inactive", "dead"),
        Seen("run1", "failed", "failed"),
        replace(UP[1], active="activating", sub="auto-restart"),
        Seen("another", "activating", "start-pre", WAITING),
        replace(UP[1], run="another"),
    ],
)
@pytest.mark.parametrize("group", [HEAD, THIRD])
def test_the_end_of_a_run_is_an_end_for_all(group, seen):
    assert watch(group, {1: seen})[0].reason() == "the run of rank 1 on n2 is over"


def test_a_rank_that_is_to_stop_has_the_head_finish_first():
    leaving = {1: replace(UP[1], active="deactivating", phase=LEAVING)}
    assert watch(HEAD, leaving)[0].reason() == "rank 1 on n2 is about to stop"
    assert watch(THIRD, leaving)[0].reason() == ""


def test_a_node_that_is_silent_for_long_is_gone():
    seen, time = watch(HEAD, {2: None})
    assert seen.reason() == ""
    time.sleep(vllm_peer.SILENCE_S - 1)
    assert seen.reason() == ""
    time.sleep(1)
    assert seen.reason() == f"rank 2 on n3 has not answered for {vllm_peer.SILENCE_S} s"


def test_a_node_that_answers_again_was_not_gone():
    time, answers = Time(), {1: UP[1], 2: None}
    seen = vllm_peer.Watch(HEAD, lambda: UP[0], answers.get, time)
    assert seen.reason() == ""
    time.sleep(vllm_peer.SILENCE_S - 1)
    answers[2] = UP[2]
    assert seen.reason() == ""
    answers[2] = None
    time.sleep(2)
    assert seen.reason() == ""


@pytest.mark.parametrize(
    "here",
    [
        Seen("run0", "inactive", "dead"),
        Seen("run0", "activating", "start-pre", WAITING),
        replace(UP[0], active="deactivating"),
        replace(UP[0], active="activating", sub="auto-restart"),
        replace(UP[0], phase=LEAVING),
    ],
)
def test_only_a_rank_that_had_met_the_others_is_restarted(here):
    assert watch(HEAD, {1: Seen("run1", "failed", "failed")}, here)[0].reason() == ""


def test_the_daemon_restarts_and_says_why():
    done, said = [], []
    seen, time = watch(HEAD, {1: Seen("run1", "failed")})

    def sleep(seconds):
        time.sleep(seconds)
        if time.now > 103:
            raise Ended

    with pytest.raises(Ended):
        vllm_peer.keep_together(seen, done.append, said.append, sleep)
    assert said[0] == "the run of rank 1 on n2 is over: vllm-tiny.service starts anew, with all others of its group"
    assert done == [False, False]
    leaving = {1: replace(UP[1], active="deactivating", phase=LEAVING)}
    done.clear()
    time.now = 0
    with pytest.raises(Ended):
        vllm_peer.keep_together(watch(HEAD, leaving)[0], done.append, said.append, sleep)
    assert set(done) == {True}
    done.clear()
    time.now = 0
    with pytest.raises(Ended):
        vllm_peer.keep_together(watch(HEAD, {})[0], done.append, said.append, sleep)
    assert done == []


class Ended(Exception):
    """Ends what would go on for ever."""


def test_a_node_that_is_busy_is_as_it_was():
    """systemctl that does not answer in time says nothing of the unit: it must not look as if that had ended."""
    looks, time = [None, UP[0], None, None], Time()

    def sleep(seconds):
        time.sleep(seconds)
        if not looks:
            raise Ended

    latest = vllm_peer.Latest(lambda: looks.pop(0), sleep)
    latest.renew()
    assert latest() is None
    with pytest.raises(Ended):
        latest.go_on()
    assert latest() == UP[0]
    assert vllm_peer.Watch(HEAD, lambda: None, {1: None}.get, time).reason() == ""


@pytest.mark.parametrize(
    ("change", "another"),
    [({}, False), ({"digest": "other"}, False), ({"addresses": ["127.0.0.1", "127.0.0.9", "127.0.0.3"]}, True)],
)
def test_a_daemon_ends_when_its_group_is_another(tmp_path, change, another):
    """And not for other options: while a rank stops for those, it has to answer."""
    record = tmp_path / "tiny.json"
    record.write_text(json.dumps({**RECORD, "group": {**RECORD["group"], **change}}))
    assert vllm_peer.is_another(HEAD, str(record)) is another
    vllm_peer.keep_together(watch(HEAD, {})[0], None, None, None, lambda: True)


@pytest.mark.parametrize("text", ["", "{"])
def test_a_record_that_is_being_written_ends_nothing(tmp_path, text):
    (tmp_path / "tiny.json").write_text(text)
    assert not vllm_peer.is_another(HEAD, str(tmp_path / "tiny.json"))


# -- gate and leave ---------------------------------------------------------------------------------------------------
def test_a_headless_rank_counts_as_started_when_its_head_does():
    time = Time()
    states = [None, replace(UP[0], active="activating"), replace(UP[0], met={**RUNS, "2": "other"}), UP[0]]
    assert vllm_peer.gate(THIRD, "run2", lambda _rank: states.pop(0), lambda: True, time.sleep)
    assert (states, time.now) == ([], 103)
    alive = [True, True, False]
    assert not vllm_peer.gate(THIRD, "run2", lambda _rank: None, lambda: alive.pop(0), time.sleep)


def test_a_rank_leaves_when_its_head_has_ended(monkeypatch):
    time, kept = Time(), []
    monkeypatch.setattr(vllm_peer.time, "sleep", time.sleep)
    states = [UP[0], replace(UP[0], active="deactivating"), None, Seen("run0", "inactive")]
    vllm_peer.leave(UP[2], lambda _rank: states.pop(0), lambda *phase: kept.append(phase), 60, time)
    assert (states, kept) == ([], [(LEAVING, RUNS)])


@pytest.mark.parametrize(("head", "seconds"), [(UP[0], 60), (None, vllm_peer.SILENCE_S)])
def test_a_stop_does_not_wait_for_ever(monkeypatch, head, seconds):
    time = Time()
    monkeypatch.setattr(vllm_peer.time, "sleep", time.sleep)
    vllm_peer.leave(UP[2], lambda _rank: head, lambda *_phase: None, 60, time)
    assert time.now == 100 + seconds


def test_a_rank_that_never_met_the_others_stops_at_once():
    vllm_peer.leave(WAITS[2], None, None, 60, None)
    vllm_peer.leave(None, None, None, 60, None)


# -- what nodes tell each other ---------------------------------------------------------------------------------------
def test_a_phase_counts_for_its_own_run_alone():
    shown = "ActiveState=active\nSubState=running\nInvocationID=run1\n"
    kept = json.dumps({"run": "run1", "phase": MET, "met": RUNS, "digest": "same"})
    assert vllm_peer.seen_here(shown, kept) == UP[1]
    for other in ("", kept.replace('"run": "run1"', '"run": "run0"')):
        assert vllm_peer.seen_here(shown, other) == Seen("run1", "active", "running")
    assert vllm_peer.seen_here("", "") == Seen()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"met": []}', "<html>"])
def test_what_is_no_answer_is_none(text):
    with pytest.raises(ValueError, match="no answer of a node|Expecting value"):
        vllm_peer.seen_in(text)


@pytest.fixture
def served():
    """A group whose head tells how it is, on a free port of loopback."""
    server = vllm_peer.server_of(HEAD, lambda: UP[0])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield replace(HEAD, port=server.server_address[1])
    server.shutdown()
    server.server_close()


def test_a_node_of_the_group_is_told(served):
    assert vllm_peer.asker(served)(0) == UP[0]
    assert vllm_peer.asker(replace(served, port=1))(0) is None


def test_a_node_that_knows_nothing_yet_gives_no_answer(served):
    served_by = vllm_peer.server_of(HEAD, lambda: None)
    threading.Thread(target=served_by.serve_forever, daemon=True).start()
    assert vllm_peer.asker(replace(served, port=served_by.server_address[1]))(0) is None
    served_by.shutdown()
    served_by.server_close()


def test_who_gives_up_asking_leaves_no_trace():
    class Gone:
        def write(self, _body):
            raise BrokenPipeError

    handler = type("Quiet", (vllm_peer.Answers,), {"group": HEAD, "look": staticmethod(lambda: UP[0])})
    asked = handler.__new__(handler)
    asked.client_address, asked.wfile, asked.requestline = ("127.0.0.1", 1), Gone(), "GET /"
    asked.request_version, asked.command = "HTTP/1.1", "GET"
    asked.do_GET()
    assert asked.close_connection


def test_others_are_told_nothing(served):
    served_by = vllm_peer.server_of(replace(HEAD, addresses=("127.0.0.1", "192.0.2.7", "192.0.2.8")), lambda: UP[0])
    served_by.RequestHandlerClass.group = replace(HEAD, addresses=("192.0.2.6",))
    threading.Thread(target=served_by.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", served_by.server_address[1], timeout=5)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (403, b"")
    assert vllm_peer.asker(replace(served, port=served_by.server_address[1]))(0) is None
    served_by.shutdown()
    served_by.server_close()


def test_a_group_of_addresses_of_version_6():
    six = replace(HEAD, addresses=("::1", "::2", "::3"))
    try:
        server = vllm_peer.server_of(six, lambda: UP[0])
    except OSError:
        pytest.skip("this machine has no IPv6")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert vllm_peer.asker(replace(six, port=server.server_address[1]))(0) == UP[0]
    server.shutdown()
    server.server_close()


# -- the program ------------------------------------------------------------------------------------------------------
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$LOG"
[ "$1" != show ] || printf 'ActiveState=activating\\nSubState=start-pre\\nInvocationID=run0\\n'
"""


@pytest.fixture
def node(tmp_path):
    """A node alone in a group of one other, which never answers; and how its program is run."""
    program = shutil.copy(vllm_peer.__file__, tmp_path / "vllm-peer.py")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    record = json.loads(json.dumps(RECORD))
    record["group"] |= {"nodes": ["n1", "n2"], "addresses": ["127.0.0.1", "127.0.0.1"], "state": f"{tmp_path}/state"}
    record["group"]["port"] = 9
    (tmp_path / "record.json").write_text(json.dumps(record))
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": f"{tmp_path}/log", "INVOCATION_ID": "run0"}

    def run(step, *more, record="record.json"):
        command = [sys.executable, "-I", program, step, f"--record={tmp_path / record}", *more]
        return subprocess.run(command, env=path, capture_output=True, text=True, check=False)

    run.folder = tmp_path
    return run


def test_a_start_without_the_others_ends_and_is_forgiven(node):
    done = node("meet", "--timeout-s=0")
    assert done.returncode == 1
    assert "vllm-peer: this start ends: rank 1 on n2 does not answer on 127.0.0.1 port 9.\n" in done.stdout
    assert json.loads((node.folder / "state").read_text())["phase"] == WAITING
    assert (node.folder / "log").read_text() == "reset-failed vllm-tiny.service\n"


def test_the_steps_of_a_headless_rank(node):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    done = node("gate", f"--pid={gone.pid}")
    assert (done.returncode, done.stdout) == (1, "vllm-peer: the engine ended before its head answered.\n")
    assert node("leave").returncode == 0


def test_each_step_is_told_apart(monkeypatch, tmp_path, capsys):
    """In this process, with what other nodes and systemd say taken as given."""
    record = tmp_path / "tiny.json"
    record.write_text(json.dumps({**RECORD, "group": {**RECORD["group"], "rank": 2, "state": f"{tmp_path}/state"}}))
    monkeypatch.setenv("INVOCATION_ID", "run2")
    met = {0: replace(UP[0], met=RUNS)}
    monkeypatch.setattr(vllm_peer, "asker", lambda _group: met.get)
    asked = []
    monkeypatch.setattr(vllm_peer, "output_of", lambda *words: asked.append(words) or "")

    def step(*words):
        return vllm_peer.main([*words, f"--record={record}"])

    assert step("meet") == 0
    assert json.loads((tmp_path / "state").read_text()) == {"run": "run2", "phase": MET, "met": RUNS, "digest": "same"}
    assert (step("gate"), step("leave")) == (0, 0)
    monkeypatch.setenv("MAINPID", "1")
    assert step("leave") == 0
    assert "vllm-peer: rank 0 on n1 answers.\n" in capsys.readouterr().out
    met.clear()
    assert step("meet", "--timeout-s=0") == 1
    assert asked[-1] == ("systemctl", "reset-failed", "vllm-tiny.service")
    monkeypatch.setattr(
        vllm_peer,
        "keep_together",
        lambda _watch, restart, _say, _sleep, changed: [restart(ordered) for ordered in (True, changed())],
    )
    monkeypatch.setattr(vllm_peer, "server_of", lambda *_words: threading.Event())
    monkeypatch.setattr(threading.Event, "serve_forever", lambda _self: None, raising=False)
    monkeypatch.setattr(vllm_peer.Latest, "go_on", lambda _self: None)
    assert step("serve") == 0
    again = [
        ("systemctl", "reset-failed", "vllm-tiny.service"),
        ("systemctl", "restart", "--no-block", "vllm-tiny.service"),
    ]
    assert asked[-5:] == [*again, *again, ("/usr/bin/docker", "kill", "vllm-tiny")]


def test_a_rank_that_has_ended_does_not_pass_its_gate(monkeypatch, capsys):
    monkeypatch.setattr(vllm_peer, "asker", lambda _group: lambda _rank: None)
    assert vllm_peer.pass_gate(HEAD, "run0", 2**22 + 1) == 1
    assert "the engine ended before its head answered" in capsys.readouterr().out


def test_a_program_that_hangs_or_is_missing_says_nothing():
    assert vllm_peer.output_of("echo", "a") == "a"
    assert vllm_peer.output_of("/no/such/program") == ""
    assert vllm_peer.text_of("/no/such/file") == ""


@pytest.mark.parametrize("text", ["", "{}", '{"name": "tiny"}'])
def test_an_instance_on_one_node_has_no_group(node, text):
    (node.folder / "other.json").write_text(text)
    done = node("serve", record="other.json")
    assert done.returncode == 1
    assert "is not the record of an engine over several nodes" in done.stdout
    assert vllm_peer.main(["serve", f"--record={node.folder / 'other.json'}"]) == 1


def test_an_answer_says_all_that_another_node_needs():
    assert vllm_peer.seen_in(json.dumps(asdict(UP[1]))) == UP[1]


def test_the_program_of_the_role_is_this_one():
    role = Path(__file__).parents[4] / "roles" / "vllm" / "vars" / "main.yml"
    assert f"programs/{Path(vllm_peer.__file__).name}" in role.read_text()
