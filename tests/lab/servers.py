# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers that a node talks to: packages, images, the model hub. Each is a container on the nodes' network."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request

import engine
import nodes
from shell import LAB, digest, output, run, step, succeeds, wait_for

# As the nodes' inventory names them (inventories/lab/group_vars).
WEB, REGISTRY, HUB = "lab.gpunode.test", "registry.gpunode.test", "hub.gpunode.test"
ENGINE_IMAGE = "vllm/vllm-openai-cpu:v0.32.0"
STORE = f"{engine.PREFIX}-registry"


def vllm_image() -> str:
    """The GPU-less vLLM, some four minutes when it is not here."""
    return engine.bake(
        "vllm",
        engine.base("bookworm"),
        LAB / "images" / "vllm.sh",
        changes=(
            'ENTRYPOINT ["/opt/vllm/bin/vllm", "serve"]',
            "WORKDIR /root",
            "ENV PATH=/opt/vllm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
    )


def up() -> None:
    """Bring up what is not up; build what was not built."""
    if not succeeds("docker", "network", "inspect", nodes.NETWORK):
        run("docker", "network", "create", nodes.NETWORK, stdout=subprocess.DEVNULL)
    services = engine.bake(
        "services", engine.base("bookworm"), LAB / "images" / "services.sh", LAB / "images" / "registry.yml"
    )
    web = engine.bake(
        "web", services, LAB / "images" / "web.sh", LAB / "apt", LAB / "stand-ins", LAB / "images" / "nginx.conf"
    )
    serve(WEB, web, "nginx", "-c", "/etc/nginx/nginx.conf", "-g", "daemon off;")
    serve(
        REGISTRY,
        services,
        "docker-registry",
        "serve",
        "/etc/docker/registry/lab.yml",
        options=("-v", f"{STORE}:/srv", "-p", "127.0.0.1::5000"),
    )
    vllm = vllm_image()
    shell = {"options": ("--entrypoint=",), "changes": ("ENTRYPOINT []",)}
    model = engine.bake("model", vllm, LAB / "images" / "model.sh", LAB / "model", **shell)
    hub = engine.bake("hub", model, LAB / "images" / "hub.sh", LAB / "hub" / "server.py", **shell)
    serve(HUB, hub, "python3", "/srv/server.py", "--root", "/srv/hub", "--port", "80")
    push(vllm)


def serve(name: str, image: str, *command: str, options: tuple[str, ...] = ()) -> None:
    """Have a server run from this image with this command; one that runs from another is replaced.

    Nothing of the checkout is mounted: another clone, or none, may be there when Docker starts it again.
    """
    wanted = digest(image, *command, *options)
    box = f"{engine.PREFIX}-{name.split('.')[0]}"
    if output("docker", "ps", "-q", "-f", f"name=^{box}$", "-f", f"label={engine.PREFIX}={wanted}"):
        return
    if output("docker", "ps", "-aq", "-f", f"name=^{box}$"):
        run("docker", "rm", "-f", box, stdout=subprocess.DEVNULL)
    run(
        "docker",
        "run",
        "-d",
        "--restart=unless-stopped",
        "--name",
        box,
        "--network",
        nodes.NETWORK,
        "--network-alias",
        name,
        "--label",
        f"{engine.PREFIX}={wanted}",
        *options,
        image,
        *command,
        stdout=subprocess.DEVNULL,
    )


def push(image: str) -> None:
    """Put the engine's image into the registry under the name that the nodes ask for."""
    port = output("docker", "port", f"{engine.PREFIX}-registry", "5000/tcp").splitlines()[0].rpartition(":")[2]
    local, content = f"127.0.0.1:{port}", image.rpartition(":")[2]
    wait_for("the registry answers", 30, "curl", "-fsS", f"http://{local}/v2/")
    repository, _colon, release = ENGINE_IMAGE.partition(":")
    try:
        urllib.request.urlopen(f"http://{local}/v2/{repository}/manifests/{content}").close()
    except urllib.error.HTTPError:
        with step("push the engine's image to the registry"):
            # The release's tag first: the content's tag says that all is there.
            for tag in (release, content):
                run("docker", "tag", image, f"{local}/{repository}:{tag}")
                run("docker", "push", "-q", f"{local}/{repository}:{tag}", stdout=subprocess.DEVNULL)
                run("docker", "rmi", f"{local}/{repository}:{tag}", stdout=subprocess.DEVNULL)


def down() -> None:
    """End the servers; what they serve stays for the next time."""
    for box in output("docker", "ps", "-aq", "-f", f"label={engine.PREFIX}").split():
        run("docker", "rm", "-f", box, stdout=subprocess.DEVNULL)
    if succeeds("docker", "network", "inspect", nodes.NETWORK):
        run("docker", "network", "rm", nodes.NETWORK, stdout=subprocess.DEVNULL)


def purge() -> None:
    """Drop everything that was built."""
    for image in output(
        "docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "-f", f"reference={engine.PREFIX}/*"
    ).split():
        run("docker", "rmi", "-f", image, stdout=subprocess.DEVNULL)
    if succeeds("docker", "volume", "inspect", STORE):
        run("docker", "volume", "rm", STORE, stdout=subprocess.DEVNULL)
