# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images in folders: which one is meant, and what Docker reads beside the layout."""

from __future__ import annotations

import json

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.docker import layout as docker_layout
from ansible_collections.gpunode.llm.plugins.module_utils.docker.image import parse_reference

A, B = "a" * 64, "b" * 64
MANIFEST = {"config": {"digest": f"sha256:{A}", "size": 3}, "layers": [{"digest": f"sha256:{B}", "size": 40}]}


@pytest.mark.parametrize(
    ("image", "name", "folder"),
    [
        ("vllm/vllm-openai:v0.33.0", "vllm/vllm-openai:v0.33.0", "vllm-vllm-openai-v0.33.0"),
        (f"vllm/vllm-openai:v1@sha256:{A}", "vllm/vllm-openai:v1", "vllm-vllm-openai-v1"),
        (f"r.test:5000/x@sha256:{A}", "r.test:5000/x:sha256-aaaaaaaaaaaa", "r.test-5000-x-sha256-aaaaaaaaaaaa"),
    ],
)
def test_names(image, name, folder):
    assert docker_layout.loaded_name(parse_reference(image)) == name
    assert docker_layout.layout_name(name) == folder


@pytest.mark.parametrize(("machine", "expected"), [("x86_64", f"sha256:{A}"), ("aarch64", f"sha256:{B}")])
def test_the_image_of_this_machine(machine, expected):
    entries = [
        {"digest": "sha256:0", "platform": {"os": "unknown", "architecture": "unknown"}},
        {"digest": f"sha256:{A}", "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": f"sha256:{B}", "platform": {"os": "linux", "architecture": "arm64"}},
    ]
    assert docker_layout.choose({"manifests": entries}, machine) == expected
    assert docker_layout.choose(MANIFEST, machine) == ""


def test_no_image_for_this_machine():
    with pytest.raises(ValueError, match="linux on riscv64"):
        docker_layout.choose({"manifests": []}, "riscv64")


def test_docker_reads_the_same_blobs():
    image = docker_layout.parse_manifest(MANIFEST)
    assert image.size == 43
    assert json.loads(docker_layout.docker_manifest(image, "x:1")) == [
        {"Config": f"blobs/sha256/{A}", "RepoTags": ["x:1"], "Layers": [f"blobs/sha256/{B}"]}
    ]


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/x", f"sha512:{A}{B}", f"sha256:{A}/../x", "", None])
def test_a_registry_names_no_other_files(digest):
    with pytest.raises(ValueError, match="digest"):
        docker_layout.parse_manifest({"config": {"digest": digest, "size": 3}, "layers": []})
    with pytest.raises(ValueError, match="digest"):
        docker_layout.choose(
            {"manifests": [{"digest": digest, "platform": {"os": "linux", "architecture": "amd64"}}]}, "x86_64"
        )


@pytest.mark.parametrize("raw", [{}, {"schemaVersion": 1, "fsLayers": []}, {"config": 1, "layers": []}])
def test_a_manifest_of_old(raw):
    with pytest.raises(ValueError, match="of an obsolete type"):
        docker_layout.parse_manifest(raw)


@pytest.mark.parametrize(("name", "full"), [("vllm/x:1", "docker.io/vllm/x:1"), ("r.test:5000/x:1", "r.test:5000/x:1")])
def test_containerd_reads_the_name(name, full):
    index = json.loads(docker_layout.named_index({"manifests": [{"digest": "d", "annotations": {"k": "v"}}]}, name))
    assert index["manifests"][0]["annotations"] == {"k": "v", "io.containerd.image.name": full}
