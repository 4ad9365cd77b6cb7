# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""References to container images, and what ``docker pull`` says about fetching them."""

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
        """The host that is asked; Docker's own registry where the name does not start with a host."""
        first, slash, _rest = self.repository.partition("/")
        return first if slash and re.search(r"[.:]|^localhost$", first) else "docker.io"


@dataclass(frozen=True)
class Present:
    """An image that is on the node."""

    image_id: str
    digest: str
    size_bytes: int


def parse_reference(text: str) -> Reference:
    """A reference that names one image for good, or a ValueError that says what is wrong with it."""
    match = _REFERENCE.fullmatch(text)
    # "host:5000" alone would read as repository and tag; a repository path never has a slash in its tag.
    if not match or match["repository"].endswith(("/", ":", ".")):
        raise ValueError(f"'{text}' is not the name of a container image (registry/name:tag or registry/name@sha256:…)")
    found = Reference(match["repository"], match["tag"] or "", match["digest"] or "")
    if found.digest:
        return found
    if not found.tag:
        raise ValueError(f"'{text}' names no release: Docker would take 'latest', which is another image every week")
    if found.tag == "latest":
        raise ValueError(f"'{text}' is another image every week: name a release's tag, or a digest (@sha256:…)")
    return found


def parse_inspect(text: str, reference: Reference) -> Present:
    """What ``docker image inspect`` printed."""
    image: dict[str, Any] = json.loads(text)[0]
    digests = [entry.partition("@") for entry in image.get("RepoDigests") or []]
    # Docker leaves its own registry's name out of what it lists.
    names = {reference.repository, re.sub(r"^docker\.io/(library/)?", "", reference.repository)}
    listed = [digest for name, _at, digest in digests if name in names]
    return Present(
        image_id=image["Id"],
        digest=reference.digest or (listed[0] if listed else ""),
        size_bytes=int(image.get("Size") or 0),
    )


def progress(lines: Sequence[str]) -> str:
    """Where a pull stands, from its output so far."""
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
    #: Whether the same pull may succeed when tried again: docker keeps the layers that it has completed.
    passing: bool = False


# Order matters: the first pattern that is found names the cause, so the specific ones come first.
_ERRORS: tuple[tuple[str, str, bool], ...] = (
    (
        r"no space left on device",
        "The disk that holds Docker's images is full: free space (docker system df shows what images take), or move "
        "Docker's data-root, and containerd's root where Docker 29 keeps the images there",
        False,
    ),
    (r"no matching manifest for", "{image} was not built for this machine's processor architecture: {line}", False),
    (r"toomanyrequests|429 Too Many", "{registry} limits how often this address pulls: log in, or use a mirror", True),
    (
        r"manifest (for .*)?(unknown|not found)|manifest unknown|: not found$",
        "{registry} is reached and has no such image: check the name and the tag of {image}",
        False,
    ),
    (
        r"pull access denied|repository does not exist",
        "{registry} says that {image} does not exist or needs a login (docker login {registry}, as root on the node)",
        False,
    ),
    (
        r"unauthorized|authentication required|no basic auth credentials|denied:",
        "{registry} refuses this node for {image}: log in (docker login {registry}, as root on the node)",
        False,
    ),
    (
        r"x509|certificate signed by unknown authority|tls: failed to verify",
        "{registry} shows a certificate that this node does not trust: put its CA into "
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
        "{registry} cannot be reached from this node: check its route, its proxy, or name a mirror. {line}",
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
    """Why a pull failed, from the end of its output, in a sentence with what to do."""
    said = [line for line in lines if not _LAYER.match(line)]
    registry = parse_reference(image).registry
    for pattern, sentence, passing in _ERRORS:
        for line in reversed(said):
            if re.search(pattern, line, re.IGNORECASE):
                text = sentence.format(image=image, registry=registry, line=line.strip())
                return PullError(text.rstrip("."), passing)
    last = said[-1].strip() if said else "it said nothing"
    return PullError(f"docker pull {image} failed: {last}")
