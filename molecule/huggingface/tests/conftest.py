# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub of this scenario's own with one repository of some size, and a way to fetch it that each case begins anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from scenario import Hub, Play, Running, begin_play, on_node, own_hub, repository, wait_until

REPO = "weights/tiny"
SHARDS = ("ballast-00000.bin", "ballast-00001.bin")
ENDPOINT = "http://huggingface.gpunode.test"
SHARD_MIB = 128
#: What site.yml does up to the weights, and the role alone.
CONVERGE, FETCH = "molecule/huggingface/converge.yml", "molecule/shared/weights.yml"
#: A link of this many bytes a second: long enough to break in the middle.
LINK = {"kind": "slow", "path": f"^/{REPO}/resolve/", "rate": 25e6}
#: From the byte `at` on, what is asked for stays in flight until the hub is told to let go.
HOLD = {"kind": "hold", "path": f"^/{REPO}/resolve/.*/ballast"}


@pytest.fixture(scope="session")
def server() -> Iterator[Hub]:
    with own_hub("huggingface") as hub, repository(REPO, len(SHARDS), SHARD_MIB, "gpunode/tiny-llama", hub):
        yield hub


@pytest.fixture
def hub(server: Hub) -> Iterator[Hub]:
    server.reset()
    yield server
    server.reset()


@dataclass
class Pull:
    """The case's own HF_HOME on the node, and plays that fetch into it."""

    hub: Hub
    home: str
    repo_id: str = REPO
    options: dict[str, Any] = field(default_factory=dict)

    def variables(self, **more: Any) -> list[str]:
        given: dict[str, Any] = {"huggingface_endpoint": ENDPOINT, "huggingface_home": self.home}
        given["case"] = {"repo_id": self.repo_id}
        given["huggingface_instances"] = [{"repo_id": self.repo_id, "ignore_patterns": ["original/*"]}]
        return ["-e", json.dumps({**given, **self.options, **more})]

    def run(self, playbook: str = FETCH, *args: str, **more: Any) -> Play:
        return self.begin(playbook, *args, **more).wait()

    def begin(self, playbook: str = FETCH, *args: str, **more: Any) -> Running:
        return begin_play(playbook, *self.variables(**more), *args)

    # -- what the hub knows -------------------------------------------------------------------------------------------
    def sizes(self) -> dict[str, int]:
        return self.hub.sizes(self.repo_id)

    def sent(self) -> dict[str, int]:
        return self.hub.sent()

    def gets(self, name: str) -> int:
        return self.hub.gets(name)

    def wait_for(self, share: float) -> None:
        """Until this share of all bytes has been sent."""
        wanted = share * sum(self.sizes().values())

        def passed() -> bool:
            return sum(self.sent().values()) >= wanted

        wait_until(passed)

    def twice(self) -> float:
        """The share of all bytes that was sent more than once, in per cent."""
        total = sum(self.sizes().values())
        return 100 * (sum(self.sent().values()) - total) / total

    # -- what the node knows ------------------------------------------------------------------------------------------
    @property
    def folder(self) -> str:
        return f"{self.home}/hub/models--{self.repo_id.replace('/', '--')}"

    def unit(self) -> str:
        """The unit that fetches."""
        listed = on_node("systemctl list-units --all --plain --no-legend gpunode-weights-* | cut -d' ' -f1")
        return listed.split()[0] if listed else ""

    def manifests(self) -> list[str]:
        return on_node(f"ls {self.folder}/manifests", check=False).split()


@pytest.fixture
def pull(hub: Hub, request: pytest.FixtureRequest) -> Iterator[Pull]:
    case = Pull(hub, f"/var/lib/cases/{re.sub('[^a-z0-9]+', '-', request.node.name)}")
    # As at the hub's end: little waits in the kernel for a puller that a busy machine holds up.
    on_node("sysctl -qw net.ipv4.tcp_rmem='4096 65536 262144'")
    yield case
    on_node(f"systemctl stop 'gpunode-weights-*'; rm -rf {case.home}")


def note(text: str) -> None:
    """The case's figure, in the run's output."""
    print(f"\n    {text}", flush=True)
