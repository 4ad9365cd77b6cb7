# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of images, the progress of a pull, and why a pull fails."""

from __future__ import annotations

import json

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.docker import image as docker_image

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest", "registry"),
    [
        ("vllm/vllm-openai:v0.33.0", "vllm/vllm-openai", "v0.33.0", "", "docker.io"),
        ("debian:12", "debian", "12", "", "docker.io"),
        ("localhost/x:1", "localhost/x", "1", "", "localhost"),
        ("reg.example:5000/a/b:v1", "reg.example:5000/a/b", "v1", "", "reg.example:5000"),
        (f"reg.example:5000/a/b@{DIGEST}", "reg.example:5000/a/b", "", DIGEST, "reg.example:5000"),
        (f"a/b:latest@{DIGEST}", "a/b", "latest", DIGEST, "docker.io"),
    ],
)
def test_reference(text, repository, tag, digest, registry):
    found = docker_image.parse_reference(text)
    assert (found.repository, found.tag, found.digest, found.registry) == (repository, tag, digest, registry)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("vllm/vllm-openai", "names no release"),
        ("reg.example:5000/a/b", "names no release"),
        ("vllm/vllm-openai:latest", "changes with every release"),
        ("", "not the name"),
        ("a b:1", "not the name"),
        ("--help:1", "not the name"),
        ("a/:1", "not the name"),
        (f"a@{DIGEST}0", "not the name"),
        ("a;reboot:1", "not the name"),
    ],
)
def test_refused(text, why):
    with pytest.raises(ValueError, match=why):
        docker_image.parse_reference(text)


@pytest.mark.parametrize(
    ("image", "digests", "digest"),
    [
        ("vllm/x:v1", [f"vllm/x@{DIGEST}"], DIGEST),
        ("docker.io/vllm/x:v1", [f"vllm/x@{DIGEST}"], DIGEST),
        ("docker.io/library/debian:12", [f"debian@{DIGEST}"], DIGEST),
        ("mirror:5000/vllm/x:v1", [f"vllm/x@{DIGEST}"], ""),
        (f"mirror:5000/vllm/x@{DIGEST}", [], DIGEST),
        ("vllm/x:v1", None, ""),
    ],
)
def test_inspect(image, digests, digest):
    text = json.dumps([{"Id": "sha256:1", "RepoDigests": digests, "Size": 7}])
    present = docker_image.parse_inspect(text, docker_image.parse_reference(image))
    assert present == docker_image.Present("sha256:1", digest, 7)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], "asking the registry"),
        (["v1: Pulling from vllm/x"], "asking the registry"),
        (
            ["aaaaaaaaaaaa: Pulling fs layer", "bbbbbbbbbbbb: Already exists", "aaaaaaaaaaaa: Download complete"],
            "2 of 2 layers downloaded, 1 unpacked",
        ),
        (["aaaaaaaaaaaa: Pulling fs layer"] * 3, "0 of 1 layers downloaded, 0 unpacked"),
    ],
)
def test_progress(lines, text):
    assert docker_image.progress(lines) == text


@pytest.mark.parametrize(
    ("line", "message", "passing"),
    [
        ("Error response from daemon: manifest for a/b:v1 not found: manifest unknown", "no such", False),
        ("Error response from daemon: manifest unknown", "no such image", False),
        ('failed to resolve reference "reg.example/a/b:v1": reg.example/a/b:v1: not found', "no such image", False),
        (
            "Error response from daemon: pull access denied for a/b, repository does not exist or may require "
            "'docker login': denied: requested access to the resource is denied",
            "does not exist or needs a login",
            False,
        ),
        ("Error response from daemon: unauthorized: authentication required", "denies this node access", False),
        ("Error response from daemon: Get https://reg.example/v2/: no basic auth credentials", "denies", False),
        ("toomanyrequests: You have reached your pull rate limit.", "limits how often", True),
        ('Get "https://reg.example/v2/": dial tcp: lookup reg.example on 10.0.0.2:53: no such host', "resolve", True),
        ('Get "https://reg.example/v2/": dial tcp 10.1.1.1:443: connection refused', "cannot be reached", True),
        ('Get "https://reg.example/v2/": net/http: TLS handshake timeout', "cannot be reached", True),
        ('Get "https://reg.example/v2/": x509: certificate signed by unknown authority', "does not trust", False),
        ("http: server gave HTTP response to HTTPS client", "plain HTTP", False),
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "is full", False),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "architecture", False),
        ("unexpected EOF", "was cut", True),
        ("received unexpected HTTP status: 503 Service Unavailable", "was cut", True),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "does not run", False),
        ("something nobody has seen", "something nobody has seen", False),
    ],
)
def test_explain(line, message, passing):
    error = docker_image.explain("reg.example/a/b:v1", ["v1: Pulling from a/b", "aaaaaaaaaaaa: Waiting", line])
    assert message in error.sentence
    assert error.passing is passing


def test_a_pull_without_output():
    assert "it printed nothing" in docker_image.explain("a/b:v1", []).sentence
