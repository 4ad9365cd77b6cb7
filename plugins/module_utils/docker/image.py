# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""References to container images, and the errors of ``docker pull``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Sequence

_REFERENCE = re.compile(
    r"(?P<repository>[a-z0-9][A-Za-z0-9._:/\[\]-]*?)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LAYER = re.compile(r"^(?P<layer>[0-9a-f]{12}): (?P<status>.+)$")


@dataclass(frozen=True)
class Reference:
    repository: str
    tag: str
    digest: str

    @property
    def registry(self) -> str:
        """The registry's host; Docker's own registry if the name does not start with a host."""
        first, slash, _rest = self.repository.partition("/")
        return first if slash and re.search(r"[.:]|^localhost$", first) else "docker.io"


@dataclass(frozen=True)
class Present:
    """An image that is on the node."""

    image_id: str
    digest: str
    size_bytes: int


def parse_reference(text: str) -> Reference:
    """A reference to one fixed image. Raises ValueError, which says what is wrong."""
    match = _REFERENCE.fullmatch(text)
    # "host:5000" alone would parse as repository and tag; a tag never contains a slash.
    if not match or match["repository"].endswith(("/", ":", ".")):
        raise ValueError(f"'{text}' is not the name of a container image (registry/name:tag or registry/name@sha256:…)")
    reference = Reference(match["repository"], match["tag"] or "", match["digest"] or "")
    if reference.digest:
        return reference
    if not reference.tag:
        raise ValueError(f"'{text}' names no release: Docker would use 'latest', which changes with every release")
    if reference.tag == "latest":
        raise ValueError(f"'{text}' changes with every release: give a release's tag or a digest (@sha256:…)")
    return reference


def parse_inspect(text: str, reference: Reference) -> Present:
    """Parse the output of ``docker image inspect``."""
    image: dict[str, Any] = json.loads(text)[0]
    digests = [entry.partition("@") for entry in image.get("RepoDigests") or []]
    # Docker leaves its own registry out of the names that it lists.
    names = {reference.repository, re.sub(r"^docker\.io/(library/)?", "", reference.repository)}
    listed = [digest for name, _at, digest in digests if name in names]
    return Present(
        image_id=image["Id"],
        digest=reference.digest or (listed[0] if listed else ""),
        size_bytes=int(image.get("Size") or 0),
    )


def progress(lines: Sequence[str]) -> str:
    """The progress of a pull, from its output so far."""
    status: dict[str, str] = {}
    for line in lines:
        match = _LAYER.match(line)
        if match:
            status[match["layer"]] = match["status"]
    if not status:
        return "asking the registry"
    there = sum(1 for word in status.values() if word in ("Pull complete", "Already exists"))
    fetched = there + sum(1 for word in status.values() if word == "Download complete")
    return f"{fetched} of {len(status)} layers downloaded, {there} unpacked"


@dataclass(frozen=True)
class PullError:
    sentence: str
    #: Whether a retry may succeed: docker keeps complete layers.
    passing: bool = False


# Order matters: the first matching pattern names the cause, so specific patterns come first.
_ERRORS: tuple[tuple[str, str, bool], ...] = (
    (
        r"no space left on device",
        "The disk with Docker's images is full. Free space (docker system df shows what images take), or move "
        "Docker's data-root, or containerd's root if Docker 29 keeps the images there",
        False,
    ),
    (r"no matching manifest for", "{image} was not built for this machine's processor architecture: {line}", False),
    (r"toomanyrequests|429 Too Many", "{registry} limits how often this address pulls: log in, or use a mirror", True),
    (
        r"manifest (for .*)?(unknown|not found)|manifest unknown|: not found$",
        "{registry} answers, but has no such image: check the name and the tag of {image}",
        False,
    ),
    (
        r"pull access denied|repository does not exist",
        "{registry} says that {image} does not exist or needs a login (docker login {registry}, as root on the node)",
        False,
    ),
    (
        r"unauthorized|authentication required|no basic auth credentials|denied:",
        "{registry} denies this node access to {image}: log in (docker login {registry}, as root on the node)",
        False,
    ),
    (
        r"x509|certificate signed by unknown authority|tls: failed to verify",
        "This node does not trust the certificate of {registry}: put its CA into "
        "/etc/docker/certs.d/{registry}/ca.crt or into the system's store. {line}",
        False,
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "{registry} speaks plain HTTP: list it under insecure-registries in Docker's daemon.json, or give it TLS",
        False,
    ),
    (
        r"no such host|server misbehaving|Temporary failure in name resolution",
        "{registry} cannot be reached: its name does not resolve on this node: {line}",
        True,
    ),
    (
        r"dial tcp|connection refused|i/o timeout|Client\.Timeout|TLS handshake timeout|network is unreachable"
        r"|no route to host|proxyconnect|context deadline exceeded",
        "{registry} cannot be reached from this node: check its route and its proxy, or name a mirror. {line}",
        True,
    ),
    (
        r"unexpected EOF|connection reset by peer|EOF$|50[0234] |Service Unavailable|Bad Gateway",
        "The transfer from {registry} was cut: {line}",
        True,
    ),
    (
        r"Cannot connect to the Docker daemon|Is the docker daemon running",
        "Docker does not run on this node: systemctl status docker",
        False,
    ),
)


def explain(image: str, lines: Sequence[str]) -> PullError:
    """Why a pull failed, from the end of its output, as one sentence with the remedy."""
    messages = [line for line in lines if not _LAYER.match(line)]
    registry = parse_reference(image).registry
    for pattern, sentence, passing in _ERRORS:
        for line in reversed(messages):
            if re.search(pattern, line, re.IGNORECASE):
                text = sentence.format(image=image, registry=registry, line=line.strip())
                return PullError(text.rstrip("."), passing)
    last = messages[-1].strip() if messages else "it printed nothing"
    return PullError(f"docker pull {image} failed: {last}")
