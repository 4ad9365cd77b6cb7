# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the ranks of one engine together that runs over several nodes. Needs nothing but Python's standard library.

vLLM itself does not: when a headless rank ends, the head goes on with /health at 200 and answers nothing any more; when
the head ends, a headless rank waits for ever with its GPUs; and a rank that was started anew does not join a run that
others began without it. So all ranks start together, and when one of them ends, all start anew. The role puts this
program on each node of a group, where units run it:

    serve   gpunode-peer@NAME.service: tell the other nodes how this rank is, look at theirs every few seconds, and have
            systemd restart the rank of this node once the run of another one is over
    meet    ExecStartPre of a rank: wait until every other rank waits here, too, with the same configuration
    gate    ExecStartPost of a headless rank: wait until the head answers, so that it starts when the engine does
    leave   ExecStop of a headless rank: wait until the head has finished its requests and ended

A run of a unit has an ID of systemd's (InvocationID). The ranks that met are known by these IDs, so no answer of an
older or newer run is taken for one of this run. Nodes tell each other how they are, and none of it is a command.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

#: Seconds between two looks, and how long one question may take.
LOOK_S, ANSWER_S = 2, 5
#: Seconds without an answer after which a node counts as gone: one that is only busy must not cost minutes of a start.
SILENCE_S = 30
#: Seconds for which a start waits for a rank that cannot come: systemd gave it up, or it has another configuration.
HOPELESS_S = 10
#: The phases of a run: it waits for the others, it has met them, it is to stop.
WAITING, MET, LEAVING = "waiting", "met", "leaving"
HEAD = 0
#: Why a rank starts anew although all others still run: then requests in flight can finish.
STOPS = "is about to stop"

Sleep = Callable[[float], None]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Group:
    """The group of an instance and the place of this node in it, from the record of the instance."""

    name: str
    unit: str
    rank: int
    nodes: Tuple[str, ...]
    addresses: Tuple[str, ...]
    #: The port on which each node tells of its rank.
    port: int
    #: The file with the phase of this node's run; it goes with the run.
    state: str
    #: A digest of what must be the same on all nodes.
    digest: str
    docker: str = "docker"

    @property
    def others(self) -> List[int]:
        return [rank for rank in range(len(self.nodes)) if rank != self.rank]

    def named(self, rank: int) -> str:
        """A rank in words."""
        return f"rank {rank} on {self.nodes[rank]}"


@dataclass(frozen=True)
class Seen:
    """How a rank is: systemd's words on its unit, and the phase of its run with the runs that it met, by rank."""

    run: str = ""
    active: str = "inactive"
    sub: str = ""
    phase: str = ""
    met: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def up(self) -> bool:
        """Whether its run is not over; a unit in the pause before its next start still has the ID of its last run."""
        return self.active in ("active", "activating", "reloading", "deactivating") and "auto-restart" not in self.sub


#: How another rank is; None if its node does not answer.
Ask = Callable[[int], Optional[Seen]]
#: How the rank of this node is; None if systemd does not say.
Look = Callable[[], Optional[Seen]]


def group_in(record: str) -> Group:
    """The group in the text of a record. Raises ValueError or KeyError if it has none."""
    value = json.loads(record)
    known = value["group"]
    return Group(
        name=value["name"],
        unit=value["unit"],
        rank=int(known["rank"]),
        nodes=tuple(known["nodes"]),
        addresses=tuple(known["addresses"]),
        port=int(known["port"]),
        state=known["state"],
        digest=known["digest"],
        docker=known["docker"],
    )


def seen_in(text: str) -> Seen:
    """What another node told. Raises ValueError if that is no such answer."""
    value = json.loads(text)
    if not isinstance(value, dict) or not isinstance(value.get("met"), dict):
        raise ValueError("this is no answer of a node")
    known = {name: str(value.get(name, "")) for name in ("run", "active", "sub", "phase", "digest")}
    return Seen(met={str(rank): str(run) for rank, run in value["met"].items()}, **known)


def seen_here(shown: str, kept: str) -> Seen:
    """How the rank of this node is, from what systemctl shows of its unit and the file with the phase of its run."""
    unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    run = unit.get("InvocationID", "")
    try:
        phase = json.loads(kept)
    except ValueError:
        phase = {}
    if phase.get("run") != run:  # of a run that is over
        phase = {}
    return Seen(
        run=run,
        active=unit.get("ActiveState", "inactive"),
        sub=unit.get("SubState", ""),
        phase=phase.get("phase", ""),
        met=phase.get("met", {}),
        digest=phase.get("digest", ""),
    )


def over(partner: Seen, run: str) -> bool:
    """Whether that run of another rank is over."""
    return partner.run != run or not partner.up


# -- the daemon -------------------------------------------------------------------------------------------------------
@dataclass
class Watch:
    """Why the rank of this node must start anew, looked for again and again."""

    group: Group
    look: Look
    ask: Ask
    clock: Clock
    #: Since when each rank has not answered.
    silent: Dict[int, float] = field(default_factory=dict)

    def reason(self) -> str:
        """In words; empty while all is well, and while there is nothing that could be restarted."""
        here = self.look()
        if here is None or here.phase != MET or here.active not in ("active", "activating") or not here.up:
            self.silent.clear()
            return ""
        reasons = [self.of_rank(rank, here.met.get(str(rank), "")) for rank in self.group.others]
        return next(filter(None, reasons), "")

    def of_rank(self, rank: int, run: str) -> str:
        name, partner = self.group.named(rank), self.ask(rank)
        if partner is None:
            since = self.silent.setdefault(rank, self.clock())
            quiet = self.clock() - since
            return f"{name} has not answered for {quiet:.0f} s" if quiet >= SILENCE_S else ""
        self.silent.pop(rank, None)
        if over(partner, run):
            return f"the run of {name} is over"
        if partner.phase == LEAVING and self.group.rank == HEAD:
            return f"{name} {STOPS}"
        return ""


class Answers(BaseHTTPRequestHandler):
    """Tells a node of the group how the rank of this node is, and others nothing."""

    group: Group
    look: Look

    def do_GET(self) -> None:  # pylint: disable=invalid-name
        known = self.client_address[0] in self.group.addresses
        seen = type(self).look() if known else None
        body = json.dumps(asdict(seen)).encode() if seen else b""
        self.send_response(200 if seen else 503 if known else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        try:
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # who asked has given up
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # pylint: disable=redefined-builtin
        """Say nothing: every node asks every other one every few seconds."""


def server_of(group: Group, look: Look) -> ThreadingHTTPServer:
    """A server on this node's address in the group."""
    address = group.addresses[group.rank]
    handler = type("Handler", (Answers,), {"group": group, "look": staticmethod(look)})
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = type("Server", (ThreadingHTTPServer,), {"address_family": family, "daemon_threads": True})
    server: ThreadingHTTPServer = kind((address, group.port), handler)
    return server


def keep_together(
    watch: Watch,
    restart: Callable[[bool], None],
    say: Callable[[str], None],
    sleep: Sleep,
    changed: Callable[[], bool] = lambda: False,
) -> None:
    """Look until the group is another one: systemd then starts this program anew."""
    while not changed():
        reason = watch.reason()
        if reason:
            say(f"{reason}: {watch.group.unit} starts anew, with all others of its group")
            restart(reason.endswith(STOPS))
        sleep(LOOK_S)


def before_meeting(partner: Seen) -> str:
    """What a rank is at that does not meet this one yet."""
    if partner.phase == WAITING and partner.active == "activating":
        return "waits for all ranks"
    return "is still in its last run" if partner.phase else "is about to start"


# -- the steps of a unit ----------------------------------------------------------------------------------------------
@dataclass
class Meeting:
    """The start of a rank: it waits for the others."""

    group: Group
    run: str
    ask: Ask
    keep: Callable[[str, Mapping[str, str]], None]
    say: Callable[[str], None]
    clock: Clock
    sleep: Sleep

    def meet(self, timeout_s: float) -> bool:
        """Wait until all ranks of the group start; False if one of them cannot, or none comes in time."""
        self.keep(WAITING, {})
        began, hopeless_since, said = self.clock(), None, ""
        while True:
            met, obstacle, hopeless = self.head() if self.group.rank == HEAD else self.headless()
            if met:
                self.keep(MET, met)
                self.say(f"all {len(self.group.nodes)} ranks start")
                return True
            if obstacle != said:
                self.say(f"waits: {obstacle}")
            said, now = obstacle, self.clock()
            hopeless_since = (hopeless_since or now) if hopeless else None
            if now - began >= timeout_s or (hopeless_since and now - hopeless_since >= HOPELESS_S):
                self.say(f"this start ends: {obstacle}")
                return False
            self.sleep(1)

    def head(self) -> Tuple[Dict[str, str], str, bool]:
        """The runs that met, or what is in the way, and whether that will not change by itself."""
        met = {str(HEAD): self.run}
        for rank in self.group.others:
            partner = self.ask(rank)
            obstacle, hopeless = self.obstacle(rank, partner)
            if obstacle or partner is None:
                return {}, obstacle, hopeless
            if partner.phase != WAITING or partner.active != "activating":
                return {}, f"{self.group.named(rank)} {before_meeting(partner)}", False
            met[str(rank)] = partner.run
        return met, "", False

    def headless(self) -> Tuple[Dict[str, str], str, bool]:
        head = self.ask(HEAD)
        obstacle, hopeless = self.obstacle(HEAD, head)
        if obstacle or head is None:
            return {}, obstacle, hopeless
        if head.phase == MET and head.met.get(str(self.group.rank)) == self.run:
            return dict(head.met), "", False
        return {}, f"{self.group.named(HEAD)} {before_meeting(head)}", False

    def obstacle(self, rank: int, partner: Optional[Seen]) -> Tuple[str, bool]:
        name = self.group.named(rank)
        if partner is None:
            return f"{name} does not answer on {self.group.addresses[rank]} port {self.group.port}", False
        if partner.active == "failed":
            return f"{name} has failed, `journalctl -eu {self.group.unit}` on that node says why", True
        if not partner.up:
            return f"{name} does not run", False
        if partner.phase == WAITING and partner.digest != self.group.digest:
            return f"{name} has another configuration, image or environment: run the playbook for all nodes", True
        return "", False


def gate(group: Group, run: str, ask: Ask, alive: Callable[[], bool], sleep: Sleep) -> bool:
    """Wait until the head of this run answers, and its unit counts as started; False if this rank ends before."""
    while alive():
        head = ask(HEAD)
        with_us = head is not None and head.met.get(str(group.rank)) == run
        if head and with_us and not over(head, head.met[str(HEAD)]) and head.active == "active":
            return True
        sleep(1)
    return False


def leave(
    here: Optional[Seen], ask: Ask, keep: Callable[[str, Mapping[str, str]], None], timeout_s: float, clock: Clock
) -> None:
    """Wait until the head has ended, which finishes its requests first. It ends since this rank says that it leaves."""
    if here is None or here.phase != MET:
        return
    keep(LEAVING, here.met)
    began = heard = clock()
    while clock() - began < timeout_s and clock() - heard < SILENCE_S:
        head = ask(HEAD)
        if head and over(head, here.met.get(str(HEAD), "")):
            return
        heard = clock() if head else heard
        time.sleep(0.5)


# -- this node --------------------------------------------------------------------------------------------------------
def output_of(*command: str) -> str:
    """Run a command with a time limit; empty if it fails."""
    try:
        # A unit runs this, with no module around it.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command, check=False, capture_output=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def text_of(path: str) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""


def looker(group: Group) -> Look:
    def look() -> Optional[Seen]:
        shown = output_of("systemctl", "show", "--property=ActiveState,SubState,InvocationID", group.unit)
        return seen_here(shown, text_of(group.state)) if shown else None

    return look


class Latest:
    """How the rank of this node was a moment ago: a question is answered at once, however busy the node is.

    What systemd does not say in time is as it was: nothing is restarted for that.
    """

    def __init__(self, look: Look, sleep: Sleep) -> None:
        self.look, self.sleep = look, sleep
        self.seen: Optional[Seen] = None

    def __call__(self) -> Optional[Seen]:
        return self.seen

    def renew(self) -> None:
        self.seen = self.look() or self.seen

    def go_on(self) -> None:
        while True:
            self.renew()
            self.sleep(1)


def asker(group: Group) -> Ask:
    """Ask a node over plain HTTP, never through a proxy."""

    def ask(rank: int) -> Optional[Seen]:
        connection = http.client.HTTPConnection(group.addresses[rank], group.port, timeout=ANSWER_S)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            return seen_in(response.read(1 << 16).decode("utf-8")) if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    return ask


def keeper(group: Group, run: str) -> Callable[[str, Mapping[str, str]], None]:
    """Write the phase of this run, at once or not at all."""

    def keep(phase: str, met: Mapping[str, str]) -> None:
        new = f"{group.state}.new"
        with open(new, "w", encoding="utf-8") as stream:
            stream.write(json.dumps({"run": run, "phase": phase, "met": met, "digest": group.digest}))
        os.replace(new, group.state)

    return keep


def say(sentence: str) -> None:
    sys.stdout.write(f"vllm-peer: {sentence}.\n")
    sys.stdout.flush()


def forgive(unit: str) -> None:
    """Start the count of failed starts anew: a start that waits for another node does not end a loop of crashes."""
    output_of("systemctl", "reset-failed", unit)


def is_another(group: Group, record: str) -> bool:
    """Whether the nodes, addresses or ports of the group have changed; other options do not concern the daemon."""
    try:
        now = group_in(text_of(record))
    except (ValueError, KeyError):  # it is being written, or the instance is on its way to be removed
        return False
    return replace(now, digest="") != replace(group, digest="")


def serve(group: Group, record: str) -> None:
    """Tell and watch until systemd stops it, or the group has changed."""
    latest = Latest(looker(group), time.sleep)
    server = server_of(group, latest)
    for work in (latest.go_on, server.serve_forever):
        threading.Thread(target=work, daemon=True).start()

    def restart(in_order: bool) -> None:
        forgive(group.unit)
        output_of("systemctl", "restart", "--no-block", group.unit)
        if not in_order:  # what waits for a rank that is gone does not finish
            output_of(group.docker, "kill", group.unit[: -len(".service")])

    watch = Watch(group, latest, asker(group), time.monotonic)
    keep_together(watch, restart, say, time.sleep, lambda: is_another(group, record))


def meet(group: Group, run: str, timeout_s: float) -> int:
    meeting = Meeting(group, run, asker(group), keeper(group, run), say, time.monotonic, time.sleep)
    if meeting.meet(timeout_s):
        return 0
    forgive(group.unit)
    return 1


def pass_gate(group: Group, run: str, pid: int) -> int:
    def alive() -> bool:
        return not pid or os.path.exists(f"/proc/{pid}")

    passed = gate(group, run, asker(group), alive, time.sleep)
    say(f"{group.named(HEAD)} answers" if passed else "the engine ended before its head answered")
    return 0 if passed else 1


def main(argv: Any = None) -> int:
    parser = argparse.ArgumentParser(description="Keep the ranks of one engine together that runs over several nodes.")
    parser.add_argument("step", choices=["serve", "meet", "gate", "leave"])
    parser.add_argument("--record", required=True, help="the record of the instance")
    parser.add_argument("--timeout-s", type=float, default=600, help="how long to wait")
    parser.add_argument("--pid", type=int, default=0, help="give up when this process is gone")
    options = parser.parse_args(argv)
    try:
        group = group_in(text_of(options.record))
    except (ValueError, KeyError):
        say(f"{options.record} is not the record of an engine over several nodes")
        return 1
    run = os.environ.get("INVOCATION_ID", "")
    if options.step == "serve":
        serve(group, options.record)
        return 0
    if options.step == "leave" and not os.environ.get("MAINPID"):
        return 0  # systemd also calls this where the engine has ended by itself
    if options.step == "leave":
        leave(looker(group)(), asker(group), keeper(group, run), options.timeout_s, time.monotonic)
        return 0
    return meet(group, run, options.timeout_s) if options.step == "meet" else pass_gate(group, run, options.pid)


if __name__ == "__main__":
    raise SystemExit(main())
