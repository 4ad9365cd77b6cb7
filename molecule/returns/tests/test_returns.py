# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes down with Docker or with a mount comes back, what somebody stopped does not, and each keeps its own GPU."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
from scenario import CHECKOUT, LAB, nodes, on_node, run_play, wait_until

VARS = f"@{CHECKOUT}/molecule/returns/vars/two.yml"
FIRST, SECOND = (f"GPU-0000000{number}-0000-0000-0000-00000000000{number}" for number in (1, 2))
WEIGHTS = "/mnt/weights"


def states(*names: str) -> list[str]:
    return on_node(f"systemctl is-active {' '.join(f'vllm-{name}' for name in names)}", check=False).split()


def both_serve() -> bool:
    return states("a", "b") == ["active", "active"]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    wait_until(both_serve)
    yield
    on_node("systemctl reset-failed docker; systemctl start docker && systemctl start vllm-a vllm-b")
    wait_until(both_serve)


def settled() -> None:
    """Whatever comes back has come back, or it was never asked to: nothing is queued and nothing is on its way."""

    def nothing_is_on_its_way() -> bool:
        units = "gpunode-engines gpunode-ended@vllm-a.service vllm-a vllm-b"
        shown = on_node(f"systemctl list-jobs --no-legend; systemctl is-active {units}", check=False)
        return not re.search(r"vllm-|gpunode-|activating", shown)

    wait_until(nothing_is_on_its_way)


def test_it_comes_back_when_docker_was_stopped_and_started() -> None:
    on_node("systemctl stop docker")
    assert "active" not in states("a", "b")
    on_node("systemctl start docker")
    wait_until(both_serve)


def test_it_comes_back_when_the_socket_brings_docker() -> None:
    on_node("systemctl stop docker.socket docker.service containerd")
    assert states("a", "b") == ["inactive", "inactive"]
    on_node("systemctl start docker.socket && docker info")
    wait_until(both_serve)


def test_an_engine_stopped_by_hand_stays_stopped_until_it_is_started() -> None:
    on_node("systemctl stop vllm-a")
    on_node("systemctl stop docker && systemctl reset-failed && systemctl start docker")
    wait_until(lambda: states("b") == ["active"])
    settled()
    assert states("a") == ["inactive"]
    on_node("systemctl start vllm-a && systemctl stop docker && systemctl reset-failed && systemctl start docker")
    wait_until(both_serve)


def test_an_engine_stopped_in_the_pause_after_a_crash_stays_stopped() -> None:
    """A unit that waits for its next start has no process, and no command that a stop would run."""
    on_node(
        "mkdir -p /run/systemd/system/vllm-a.service.d && cd /run/systemd/system/vllm-a.service.d &&"
        " printf '[Service]\\nRestartSec=300\\n' >slow.conf && systemctl daemon-reload && docker kill vllm-a"
    )
    try:
        wait_until(lambda: "auto-restart" in on_node("systemctl show --property=SubState vllm-a"))
        on_node("systemctl stop docker && systemctl reset-failed && systemctl start docker")
        wait_until(both_serve)  # nobody had stopped it
        on_node("docker kill vllm-a")
        wait_until(lambda: "auto-restart" in on_node("systemctl show --property=SubState vllm-a"))
        on_node("systemctl stop vllm-a")
        settled()
        on_node("systemctl stop docker && systemctl reset-failed && systemctl start docker")
        wait_until(lambda: states("b") == ["active"])
        settled()
        assert states("a") != ["active"]
    finally:
        on_node("rm -r /run/systemd/system/vllm-a.service.d && systemctl daemon-reload")


def test_a_disabled_engine_stays_stopped() -> None:
    on_node("systemctl disable vllm-b")
    try:
        on_node("systemctl stop docker && systemctl reset-failed && systemctl start docker")
        wait_until(lambda: states("a") == ["active"])
        settled()
        assert states("b") == ["inactive"]
    finally:
        on_node("systemctl enable vllm-b")


def test_an_engine_waits_for_the_mount_of_its_weights() -> None:
    shown = on_node("systemctl show --property=Requires,After vllm-a")
    assert all("mnt-weights.mount" in line for line in shown.splitlines())


def test_it_comes_back_with_a_mount_that_was_late() -> None:
    """As after a boot without the disk: the assertion fails, the mount comes, and nobody starts anything."""
    on_node(f"cp -a {WEIGHTS}/. /opt/disk && systemctl stop mnt-weights.mount")
    assert states("a", "b") == ["inactive", "inactive"]
    on_node("mv /etc/fstab /etc/fstab.whole && : >/etc/fstab && systemctl daemon-reload")
    try:
        refused = on_node("systemctl start vllm-a 2>&1", check=False)
        assert "ssert" in refused, refused
        # An empty disk is mounted where the whole one was: it comes in one step, as a real one does.
        on_node(f"mount --bind /opt/disk {WEIGHTS}")
        wait_until(both_serve)
    finally:
        on_node("mv /etc/fstab.whole /etc/fstab && systemctl daemon-reload")


def devices(name: str) -> list[str]:
    unit = on_node(f"cat /etc/systemd/system/vllm-{name}.service")
    return re.findall(r"--device=nvidia\.com/gpu=(\S+)", unit)


def seen_inside(name: str) -> list[str]:
    return re.findall(r"GPU-[0-9-]+", on_node(f"docker exec vllm-{name} nvidia-smi -L"))


def test_each_engine_has_its_gpu_by_uuid() -> None:
    assert (devices("a"), devices("b")) == ([FIRST], [SECOND])
    assert (seen_inside("a"), seen_inside("b")) == ([FIRST], [SECOND])


def test_an_engine_keeps_its_gpu_when_the_other_one_is_lost() -> None:
    """The first of two is gone, so that the second has index 0 now."""
    try:
        subprocess.run([LAB, "fit", nodes()[0], "h200x2-less-one"], check=True, capture_output=True)
        on_node("systemctl restart gpunode-cdi && systemctl restart vllm-b")
        assert seen_inside("b") == [SECOND]
        count = json.loads(on_node("nvidia-smi -q -x | grep -c '<gpu id'"))
        assert count == 1
        status = run_play("playbooks/status.yml")
        assert f"vllm-a.service needs GPU {FIRST}, which this node has lost" in status.words
        kept = run_play("site.yml", "-e", VARS, "-e", '{"models": [{"model": "tiny", "name": "b", "device": "cuda"}]}')
        assert kept.status == 0, kept.text
        assert devices("b") == [SECOND]
        waits = on_node(f"python3 /usr/local/lib/gpunode/vllm-gpus.py --timeout-s=0 {FIRST}", check=False)
        assert f"there is no GPU {FIRST}: nvidia-smi lists 1" in waits
    finally:
        subprocess.run([LAB, "fit", nodes()[0], "h200x2"], check=True, capture_output=True)
        on_node("systemctl restart gpunode-cdi; systemctl reset-failed vllm-a", check=False)
