# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fresh nodes: containers that are machines, with systemd, ssh and a Docker of their own inside."""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import engine
from shell import CACHE, CHECKOUT, LAB, LabError, output, run, say, step, wait_for

PLATFORMS = {"debian12": "bookworm", "debian13": "trixie"}
NETWORK = f"{engine.PREFIX}-net"
KEY = CACHE / "ssh" / "id_ed25519"
BOARDS = CHECKOUT / "tests" / "fixtures" / "nvidia_smi"

# `--privileged` would do on most machines, but not on one that lacks a capability itself; this list does on both.
CAPABILITIES = [
    "SYS_ADMIN",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_PTRACE",
    "SYS_MODULE",
    "DAC_READ_SEARCH",
    "IPC_LOCK",
    "SYS_CHROOT",
    "SYS_NICE",
    "MKNOD",
    "AUDIT_WRITE",
    "SYSLOG",
    "SYS_BOOT",
    "SYS_RAWIO",
]


def image(platform: str) -> str:
    """The node image of a platform, baked when it is not here.

    Raises:
        LabError: no such platform.
    """
    if platform not in PLATFORMS:
        raise LabError(f"no platform {platform!r}; there are {', '.join(PLATFORMS)}")
    codename = PLATFORMS[platform]
    return engine.bake(
        f"node-{codename}", engine.base(codename), LAB / "images" / "node.sh", changes=('CMD ["/lib/systemd/systemd"]',)
    )


def cgroup_mount() -> str:
    """systemd wants one cgroup v2 tree; a host on v1 keeps it beside the old ones."""
    top = Path("/sys/fs/cgroup")
    if (top / "unified" / "cgroup.controllers").exists() and not (top / "cgroup.controllers").exists():
        return "/sys/fs/cgroup/unified:/sys/fs/cgroup"
    return "/sys/fs/cgroup:/sys/fs/cgroup"


def key() -> str:
    """The public half of the lab's ssh key, made at the first call."""
    if not KEY.exists():
        KEY.parent.mkdir(parents=True, exist_ok=True)
        if not shutil.which("ssh-keygen"):
            engine.apt_install("openssh-client")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "gpunode-lab", "-f", KEY)
    return KEY.with_suffix(".pub").read_text()


def container(name: str) -> str:
    return f"{engine.PREFIX}-node-{name}"


def node_options(name: str) -> list[str]:
    """What a node's container is started with, apart from its name and image."""
    return [
        "--hostname",
        name,
        "--network",
        NETWORK,
        *(f"--cap-add={capability}" for capability in CAPABILITIES),
        *(f"--security-opt={option}=unconfined" for option in ("seccomp", "apparmor", "systempaths")),
        "--cgroupns=host",
        "-v",
        cgroup_mount(),
        "--tmpfs=/run",
        "--tmpfs=/run/lock",
        "--tmpfs=/tmp:exec",
        "-v",
        "/var/lib/docker",
        "-v",
        "/var/lib/containerd",
        "--shm-size=4g",
        # The stand-in's GPUs are device nodes with NVIDIA's numbers; nothing answers behind them.
        "--device-cgroup-rule=c 195:* rwm",
        "--device-cgroup-rule=c 238:* rwm",
        "--stop-signal=SIGRTMIN+3",
        "-p",
        "127.0.0.1::22",
        "--label",
        f"{engine.PREFIX}.node={name}",
    ]


def create(name: str, platform: str = "debian12", board: str | None = None) -> None:
    """Make a fresh node, or do nothing where one of that name runs.

    Args:
        name: the node's host name.
        platform: one of ``PLATFORMS``.
        board: a file of tests/fixtures/nvidia_smi without ``.xml``: the node then has the stand-in nvidia-smi with
            those GPUs. Without it the node has no GPU.

    Raises:
        LabError: it does not come up.
    """
    box = container(name)
    if output("docker", "ps", "-aq", "-f", f"name=^{box}$"):
        run("docker", "start", box, stdout=subprocess.DEVNULL)
    else:
        tag = image(platform)
        public = key()
        with step(f"node {name} ({platform}, {board or 'no GPU'})"):
            run("docker", "run", "-d", "--name", box, *node_options(name), tag, stdout=subprocess.DEVNULL)
            admit = "cat >/home/lab/.ssh/authorized_keys && chown lab: /home/lab/.ssh/authorized_keys"
            run("docker", "exec", "-i", box, "sh", "-c", admit, input=public, text=True)
    wait_for(f"node {name} answers over ssh", 60, *ssh_command(name), "true")
    if board:
        fit_board(name, board)


def within(name: str, script: str, text: str) -> None:
    """Run a shell script as root on a node, with a text as its standard input.

    Over ssh, since `docker exec` cannot enter a node whose own Docker has taken over its control groups.
    """
    run(*ssh_command(name), f"sudo sh -c {shlex.quote(script)}", input=text, text=True)


def fit_board(name: str, board: str) -> None:
    """Put recorded GPUs into a node, in place of those it has."""
    recorded = BOARDS / f"{board}.xml"
    if not recorded.exists():
        raise LabError(f"no board {board!r}; there are {', '.join(sorted(p.stem for p in BOARDS.glob('*.xml')))}")
    within(
        name,
        "cat >/usr/bin/nvidia-smi && chmod 0755 /usr/bin/nvidia-smi",
        (LAB / "stand-ins" / "nvidia-smi").read_text(),
    )
    within(name, "mkdir -p /etc/gpunode-lab && cat >/etc/gpunode-lab/nvidia-smi.xml", recorded.read_text())


def remove(name: str) -> None:
    """End a node and everything on it; where no Docker runs, no node does."""
    if output("docker", "ps", "-aq", "-f", f"name=^{container(name)}$", check=False):
        run("docker", "rm", "-f", "-v", container(name), stdout=subprocess.DEVNULL)
        say(f"node {name} is gone")


def reboot(name: str) -> None:
    """Restart a node, as its power button would."""
    run("docker", "restart", "-t", "30", container(name), stdout=subprocess.DEVNULL)
    wait_for(f"node {name} answers over ssh", 60, *ssh_command(name), "true")


def names() -> list[str]:
    """The nodes that run; where no Docker runs, no node does."""
    form = f'{{{{.Label "{engine.PREFIX}.node"}}}}'
    return sorted(output("docker", "ps", "-f", f"label={engine.PREFIX}.node", "--format", form, check=False).split())


def address(name: str) -> tuple[str, int]:
    """Where this machine reaches a node's ssh."""
    host, _colon, port = output("docker", "port", container(name), "22/tcp").splitlines()[0].rpartition(":")
    return host, int(port)


def hostvars(name: str) -> dict[str, object]:
    """What an inventory says of a node."""
    host, port = address(name)
    unknown = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"  # a new key every time
    return {
        "ansible_host": host,
        "ansible_port": port,
        "ansible_user": "lab",
        "ansible_ssh_private_key_file": str(KEY),
        "ansible_ssh_common_args": unknown,
    }


def ssh_command(name: str) -> list[str]:
    host_vars = hostvars(name)
    return [
        "ssh",
        "-i",
        str(KEY),
        "-p",
        str(host_vars["ansible_port"]),
        *str(host_vars["ansible_ssh_common_args"]).split(),
        f"lab@{host_vars['ansible_host']}",
    ]


def keys() -> dict[str, str]:
    """The fingerprints of the keys that this machine's repositories were signed with, as the roles' variables."""
    of_hub = json.loads(output("docker", "exec", f"{engine.PREFIX}-lab", "cat", "/srv/vars.json", check=False) or "{}")
    return {name: value for name, value in of_hub.items() if name.endswith("_fingerprint")}


def spare_address() -> str:
    """An address in the lab's network that Docker, which counts from the other end, gives to no node."""
    form = "{{(index .IPAM.Config 0).Subnet}}"
    subnet = ipaddress.ip_network(output("docker", "network", "inspect", "-f", form, NETWORK))
    return str(subnet.broadcast_address - 9)


def inventory() -> str:
    """All running nodes as ansible's JSON inventory, or those that GPUNODE_LAB_NODES lists."""
    wanted = os.environ.get("GPUNODE_LAB_NODES", "").replace(",", " ").split()
    chosen = [name for name in names() if not wanted or name in wanted]
    every = {**keys(), **({"lab_spare_address": spare_address()} if chosen else {})}
    return json.dumps(
        {"all": {"hosts": chosen, "vars": every}, "_meta": {"hostvars": {name: hostvars(name) for name in chosen}}}
    )
