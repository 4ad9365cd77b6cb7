# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine under the lab, and images baked in it by content."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from shell import CACHE, LAB, LabError, digest, output, run, say, step, succeeds, wait_for

PREFIX = "gpunode-lab"
PIDFILE = CACHE / "dockerd.pid"


def ensure() -> None:
    """Use the Docker that runs; where none does and we may, install and start one.

    Raises:
        LabError: no engine runs and this is not a Debian machine with root.
    """
    if succeeds("docker", "info"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError("no Docker engine answers `docker info`: start Docker, or run this as root on Debian or Ubuntu")
    if not shutil.which("dockerd"):
        apt_install("docker.io", "iptables")
    with step("start dockerd"):
        Path("/var/run/docker.pid").unlink(missing_ok=True)  # a killed daemon leaves it, and the next refuses to start
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "dockerd.log").open("ab") as log:
            daemon = subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True)
        PIDFILE.write_text(str(daemon.pid))
        wait_for(f"dockerd answers (its log: {CACHE}/dockerd.log)", 60, "docker", "info")


def stop_if_ours() -> None:
    """End the daemon that ``ensure`` started, and no other."""
    if not PIDFILE.exists():
        return
    pid = int(PIDFILE.read_text())
    PIDFILE.unlink()
    try:
        if b"dockerd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            wait_for("dockerd stops", 60, "sh", "-c", f"! kill -0 {pid}")
    except (OSError, LabError) as gone:
        say(f"dockerd {pid}: {gone}")


def apt_install(*packages: str) -> None:
    """Install Debian packages on this machine."""
    with step(f"apt-get install {' '.join(packages)}"):
        quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        run("apt-get", "update", "-qq", **quiet)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, **quiet)


def image_exists(tag: str) -> bool:
    return succeeds("docker", "image", "inspect", tag)


def base(codename: str) -> str:
    """The bare Debian image: the one here, else pulled, else made with debootstrap. Returns its tag."""
    tag = f"{PREFIX}/base:{codename}"
    if image_exists(tag):
        return tag
    if succeeds("docker", "pull", "-q", f"debian:{codename}"):
        run("docker", "tag", f"debian:{codename}", tag)
        return tag
    if not shutil.which("debootstrap"):
        apt_install("debootstrap")
    with step(f"debootstrap {codename}"):
        root = Path(output("mktemp", "-d"))
        log = CACHE / f"debootstrap-{codename}.log"
        try:
            with log.open("w") as to:
                run(
                    "debootstrap",
                    "--variant=minbase",
                    "--include=ca-certificates",
                    codename,
                    root,
                    *mirror(),
                    stdout=to,
                )
            run("sh", "-c", f"tar -C {root} -c . | docker import - {tag} >/dev/null")
        finally:
            shutil.rmtree(root, ignore_errors=True)
    return tag


def mirror() -> list[str]:
    """The Debian mirror of this machine's own apt settings; nothing where it has none."""
    site = output(
        "sh",
        "-c",
        "apt-get indextargets --format '$(SITE)' 'Origin: Debian' 2>/dev/null | sort | uniq -c | "
        "sort -rn | awk '{print $2; exit}'",
        check=False,
    )
    return [site] if site.startswith("http") and "security" not in site else []


def pip_settings() -> list[str]:
    """``docker run`` options that give a container this machine's pip settings, and the folders that they name."""
    settings: dict[str, str] = {}
    for line in output(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _equals, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'\"")
    CACHE.mkdir(parents=True, exist_ok=True)
    conf = CACHE / "pip.conf"
    conf.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(settings.items())))
    words = [word for value in settings.values() for word in value.split()]
    # The pages of an index in a folder point to files beside that folder.
    paths = {str(Path(w[7:]).parent) if w.startswith("file:///") else w for w in words}
    mounts = [f"-v{path}:{path}:ro" for path in sorted(paths) if path.startswith("/") and Path(path).exists()]
    return [f"-v{conf}:/etc/pip.conf:ro", *mounts]


def bake(
    name: str, parent: str, recipe: Path, *inputs: Path, changes: tuple[str, ...] = (), options: tuple[str, ...] = ()
) -> str:
    """Run a recipe in a container of ``parent`` and keep the result, unless it was kept before.

    Args:
        name: the image's name; its tag is the digest of everything that goes in.
        recipe: a shell script; ``inputs`` lie beside it in /lab.
        changes: Dockerfile lines for ``docker commit``.
        options: further ``docker run`` options.

    Returns:
        The image's full tag.
    """
    parent_id = output("docker", "image", "inspect", "-f", "{{.Id}}", parent)
    tag = f"{PREFIX}/{name}:{digest(parent_id, recipe, inputs, ' '.join(changes))}"
    if image_exists(tag):
        return tag
    box = f"{PREFIX}-bake-{name}"
    if output("docker", "ps", "-aq", "-f", f"name=^{box}$"):
        run("docker", "rm", "-f", box, stdout=subprocess.DEVNULL)
    with step(f"bake {name} ({recipe.name})"):
        run(
            "docker",
            "run",
            "--name",
            box,
            *pip_settings(),
            *options,
            "-v",
            f"{LAB}:/lab:ro",
            parent,
            "sh",
            "-eu",
            f"/lab/{recipe.relative_to(LAB)}",
        )
        lines = [word for change in changes for word in ("--change", change)]
        run("docker", "commit", *lines, box, tag, stdout=subprocess.DEVNULL)
        run("docker", "rm", box, stdout=subprocess.DEVNULL)
    return tag
