# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolkit at its version, the runtime in Docker, and a description of the GPUs that stays true."""

from __future__ import annotations

import json
import subprocess

from scenario import CHECKOUT, LAB, nodes, run_play

CONVERGE = str(CHECKOUT / "molecule/nvidia_container_toolkit/converge.yml")
PACKAGES = [
    "libnvidia-container-tools",
    "libnvidia-container1",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
]


def versions(host) -> set[str]:
    return {host.package(name).version for name in PACKAGES}


def devices(host) -> set[str]:
    return {word for word in host.run("nvidia-ctk cdi list").stdout.split() if word.startswith("nvidia.com/gpu=")}


def test_all_packages_are_pinned(host) -> None:
    assert versions(host) == {"1.20.0-1"}


def test_docker_has_the_runtime_and_cdi(host) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["runtimes"] == {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}
    assert config["features"] == {"buildkit": True, "cdi": True}  # the first was there before
    info = json.loads(host.run("docker info --format '{{json .}}'").stdout)
    assert "nvidia" in info["Runtimes"]


def test_gpus_are_described_before_docker_starts(host) -> None:
    assert host.service("gpunode-cdi").is_enabled
    assert "nvidia.com/gpu=0" in devices(host)


def test_a_description_that_was_lost_comes_back_with_the_node(host) -> None:
    """/var/run is empty after a restart; what starts before Docker writes it again."""
    host.run("rm /var/run/cdi/nvidia.yaml")
    assert host.run("systemctl start gpunode-cdi").rc == 0
    assert "nvidia.com/gpu=0" in devices(host)


# Enough of the node's own files for a container that runs for a moment.
TINY = (
    "tar -C / -c bin lib lib64 usr/lib64 usr/bin/true usr/lib/x86_64-linux-gnu/libc.so.6 "
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 | docker import - tiny:1"
)
RUN = "docker run --rm --network=none --device=nvidia.com/gpu=all tiny:1 /bin/true"
SPEC = "/var/run/cdi/nvidia.yaml"


def engine_unit() -> str:
    """A service that wants what the engines' unit wants, and starts a container with the GPUs."""
    template = (CHECKOUT / "roles/vllm/templates/vllm.service.j2").read_text()
    wants = [line for line in template.splitlines() if line.endswith("=gpunode-cdi-current.service")]
    return "\n".join(["[Unit]", *wants, "[Service]", "Type=oneshot", f"ExecStart=/usr/bin/{RUN}", ""])


def test_an_engine_starts_with_a_driver_that_was_replaced(host) -> None:
    """The libraries that the description names are gone with the driver that it was made for."""
    assert host.run(TINY).rc == 0
    assert host.run("printf %%s %s >/run/systemd/system/engine.service", engine_unit()).rc == 0
    assert host.run("systemctl daemon-reload && systemctl start engine").rc == 0
    made = host.run(f"stat -c %Y.%i {SPEC}").stdout
    assert host.run("systemctl start engine").rc == 0
    assert host.run(f"stat -c %Y.%i {SPEC}").stdout == made  # the same driver: left alone
    was = host.run("nvidia-smi --query-gpu=driver_version --format=csv,noheader").stdout.strip()
    host.run("sed -i 's,<driver_version>.*</,<driver_version>999.1.2</,' /etc/gpunode-lab/nvidia-smi.xml; nvidia-smi")
    stale = host.run(RUN)
    assert (stale.rc != 0, f"libcuda.so.{was}" in stale.stderr) == (True, True), stale.stderr
    started = host.run("systemctl start engine")
    assert started.rc == 0, host.run("journalctl -u engine -u gpunode-cdi-current --no-pager -n 40").stdout
    assert "libcuda.so.999.1.2" in host.file(SPEC).content_string
    assert host.run(RUN).rc == 0


def test_other_gpus_are_noticed(host) -> None:
    assert "nvidia.com/gpu=1" not in devices(host)
    subprocess.run([LAB, "fit", nodes()[0], "h200x2"], check=True, capture_output=True)
    result = run_play(CONVERGE)
    assert result.status == 0, result.text
    assert result.changed == 1
    assert {"nvidia.com/gpu=0", "nvidia.com/gpu=1"} <= devices(host)
    assert run_play(CONVERGE).changed == 0


def test_another_version_and_a_hold_are_one_variable_each(host) -> None:
    older = run_play(
        CONVERGE, "-e", "nvidia_container_toolkit_version=1.19.1-1", "-e", "nvidia_container_toolkit_hold=true"
    )
    assert older.status == 0, older.text
    assert versions(host) == {"1.19.1-1"}
    assert sorted(host.run("apt-mark showhold").stdout.split()) == PACKAGES
    back = run_play(CONVERGE)
    assert (back.status, versions(host)) == (0, {"1.20.0-1"}), back.text


def test_a_node_without_gpus_is_left_alone(host) -> None:
    """As a play over a mixed inventory does it: said, and nothing done."""
    host.run("mv /usr/bin/nvidia-smi /root/")
    result = run_play(CONVERGE)
    host.run("mv /root/nvidia-smi /usr/bin/")
    assert (result.status, result.changed) == (0, 0), result.text
    assert "has no GPU for containers" in result.words
