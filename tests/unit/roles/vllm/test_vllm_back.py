# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vllm-back.sh against a systemctl that answers from files: what is a stop by hand, and what is started again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import known, names
from ansible_collections.gpunode.llm.plugins.module_utils.instance.record import Record

SCRIPT = Path(__file__).parents[4] / "roles" / "vllm" / "files" / "vllm-back.sh"
#: As systemctl prints a list: a name with a backslash in quotation marks and with two of them. Jobs stand as they are.
REQUIRES = r"""-.mount system.slice docker.service sysinit.target "mnt-my\\x2dweights.mount" run.mount"""
PLAIN = r"-.mount system.slice docker.service mnt-my\x2dweights.mount run.mount"
OURS = "[Service]\n[X-gpunode]\nInstance=a\n"
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$FAKE/calls"
case $1 in
list-jobs) cat "$FAKE/jobs" 2>/dev/null || echo 'No jobs running.' ;;
show) case $2 in *Requires) cat "$FAKE/requires" ;; *) cat "$FAKE/state" ;; esac ;;
is-active)
    [ "$2" != --quiet ] || { [ ! -e "$FAKE/down-$3" ]; exit; }
    cat "$FAKE/is-$2" 2>/dev/null || echo inactive
    exit 3
    ;;
is-enabled) [ ! -e "$FAKE/disabled-$3" ] ;;
esac
"""


class Node:
    """A node of files."""

    def __init__(self, folder: Path) -> None:
        self.units, self.marks, self.fake = folder / "units", folder / "run" / "stopped-by-hand", folder / "fake"
        for path in (self.units, self.fake):
            path.mkdir()
        program = self.fake / "systemctl"
        program.write_text(SYSTEMCTL)
        self.requires(REQUIRES)
        program.chmod(0o755)
        text = (
            SCRIPT.read_text()
            .replace("/etc/systemd/system", str(self.units))
            .replace("/run/gpunode", str(folder / "run"))
            .replace("=/run/${", f"={folder}/run/${{")
            .replace(f"={names.CONFIG_DIR}", f"={folder}/records")
        )
        (folder / "records").mkdir()
        self.script = folder / "vllm-back.sh"
        self.script.write_text(text)

    def run(self, *words: str, result: str = "success") -> list[str]:
        """What it had systemctl do."""
        path = f"{self.fake}:{os.environ['PATH']}"
        env = {"PATH": path, "FAKE": str(self.fake), "SERVICE_RESULT": result}
        subprocess.run(["/bin/sh", str(self.script), *words], env=env, check=True)
        calls = (self.fake / "calls").read_text().splitlines() if (self.fake / "calls").exists() else []
        (self.fake / "calls").unlink(missing_ok=True)
        return [call for call in calls if call.split()[0] not in ("show", "list-jobs", "is-active", "is-enabled")]

    def requires(self, text: str) -> None:
        (self.fake / "requires").write_text(text + "\n")

    def jobs(self, **kinds: str) -> None:
        lines = [
            f"{number} {unit.replace('_', '.')} {kind} running\n" for number, (unit, kind) in enumerate(kinds.items())
        ]
        (self.fake / "jobs").write_text("".join(lines).replace("mnt.mount", r"mnt-my\x2dweights.mount"))

    @property
    def marked(self) -> bool:
        return (self.marks / "a.service").exists()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_record_is_put_aside_where_it_is_looked_for(node: Node, tmp_path: Path) -> None:
    """Beside what the unit itself puts aside, and for root alone as that is."""
    record = tmp_path / "records" / "a.json"
    aside = tmp_path / names.started_from("vllm-a.service").lstrip("/")
    node.run("started", "vllm-a.service")
    assert not aside.exists()
    record.write_text(Record("a", "vllm-a.service", port=8001).text())
    node.run("started", "vllm-a.service")
    (copy,) = [path for path in aside.rglob("*") if path.is_file()]
    assert copy == aside / str(record).lstrip("/")
    assert aside.stat().st_mode & 0o777 == 0o700
    read_back = known.in_copies(str(aside), "vllm-a.service")
    assert read_back is not None
    assert read_back.port == 8001


def test_a_unit_with_a_record_is_one_of_ours(node: Node, tmp_path: Path) -> None:
    """As one is that an earlier release wrote, which says so itself; nobody else's is."""
    for name, text in (("old", OURS), ("new", "[Service]\n"), ("theirs", "[Service]\n")):
        (node.units / f"vllm-{name}.service").write_text(text)
    (tmp_path / "records" / "new.json").write_text("{}")
    started = [line.split()[-1] for line in node.run("all") if " start " in line]
    assert started == ["vllm-new.service", "vllm-old.service"]


@pytest.mark.parametrize(
    ("jobs", "by_hand"),
    [
        ({"a_service": "stop"}, True),
        ({"a_service": "stop", "docker_service": "stop"}, False),
        ({"a_service": "stop", "docker_service": "restart"}, False),
        ({"a_service": "stop", "mnt_mount": "stop"}, False),
        ({"a_service": "stop", "docker_service": "start"}, True),
        ({"a_service": "stop", "other_service": "stop"}, True),
        ({"a_service": "restart"}, False),
        ({}, False),
    ],
)
def test_a_stop_is_by_hand_where_nothing_that_it_requires_stops(
    node: Node, jobs: dict[str, str], by_hand: bool
) -> None:
    node.jobs(**jobs)
    node.run("stopped", "a.service")
    assert node.marked is by_hand


@pytest.mark.parametrize(
    ("kind", "result", "anew"), [("stop", "success", True), ("restart", "success", True), ("stop", "exit-code", False)]
)
def test_an_end_in_order_is_no_failed_start(node: Node, kind: str, result: str, anew: bool) -> None:
    node.jobs(a_service=kind)
    assert node.run("stopped", "a.service", result=result) == (["reset-failed a.service"] if anew else [])


@pytest.mark.parametrize(
    ("state", "jobs", "down", "by_hand"),
    [
        ("inactive", {}, "", True),
        ("failed", {}, "", True),
        ("activating", {}, "", False),
        ("inactive", {"a_service": "start"}, "", False),
        ("failed", {}, "docker.service", False),
        ("failed", {"docker_service": "stop"}, "", False),
    ],
)
def test_an_end_without_a_command_is_looked_at_as_well(
    node: Node, state: str, jobs: dict[str, str], down: str, by_hand: bool
) -> None:
    node.jobs(**jobs)
    (node.fake / "state").write_text(state)
    if down:
        (node.fake / f"down-{down}").touch()
    node.run("ended", "a.service")
    assert node.marked is by_hand


@pytest.mark.parametrize("text", [REQUIRES, PLAIN])
def test_a_start_takes_the_mark_away_and_links_what_brings_it_back(node: Node, text: str) -> None:
    node.requires(text)
    (node.units / "gpunode-engines.service").touch()
    node.jobs(a_service="stop")
    node.run("stopped", "a.service")
    assert node.run("started", "a.service") == ["daemon-reload"]
    assert not node.marked
    links = sorted(path.parent.name for path in node.units.glob("*.wants/gpunode-engines.service"))
    assert links == ["docker.service.wants", r"mnt-my\x2dweights.mount.wants"]
    assert node.run("started", "a.service") == []  # no reload where nothing is new
    node.run("forget")
    assert [path.name for path in node.units.iterdir()] == ["gpunode-engines.service"]


def test_an_enabled_engine_that_was_not_stopped_by_hand_is_started(node: Node) -> None:
    for name in ("a", "b", "c"):
        (node.units / f"vllm-{name}.service").write_text(OURS)
    (node.units / "vllm-theirs.service").write_text("[Service]\n")
    (node.fake / "disabled-vllm-b.service").touch()
    node.marks.mkdir(parents=True)
    (node.marks / "vllm-c.service").touch()
    assert node.run("all") == ["--no-block start vllm-a.service"]
    node.jobs(docker_service="stop")
    assert node.run("all") == []  # a start would take Docker's stop back
    node.jobs()
    for state, starts in (("activating", 0), ("active", 0), ("failed", 1)):
        (node.fake / "is-vllm-a.service").write_text(state)
        assert len(node.run("all")) == starts, state  # the pause after a crash is not cut short
    (node.fake / "down-docker.service").touch()
    assert node.run("all") == []  # Docker stays as somebody left it


def test_engines_that_start_side_by_side_link_the_same(node: Node) -> None:
    """Each of them found no link, and the other one's is there when it makes its own."""
    text = node.script.read_text()
    quicker = 'ln -s /elsewhere "$units/$other.wants/$back"; ln '
    assert text.count("        ln ") == 1
    node.script.write_text(text.replace("        ln ", f"        {quicker}"))
    assert node.run("started", "a.service") == ["daemon-reload"]
    assert (
        node.units / "docker.service.wants" / "gpunode-engines.service"
    ).readlink() == node.units / "gpunode-engines.service"
    assert (node.units / r"mnt-my\x2dweights.mount.wants" / "gpunode-engines.service").is_symlink()
