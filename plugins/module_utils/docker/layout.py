# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container image as a folder in the OCI layout, with the manifest.json that every version of Docker can load.

Blobs are named after their SHA-256, so an interrupted copy resumes with the next layer. Docker's classic store does not
read the layout's own index. ``manifest.json``, in the format of ``docker save``, describes the same blobs for it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from .. import paths
from .image import Reference

MANIFEST = "manifest.json"
RECORD = "image.json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Blob:
    """A part of an image, with its digest.

    Raises:
        Refused: a registry or a layout gives an invalid digest or size.
    """

    digest: str
    size: int

    def __post_init__(self) -> None:
        paths.image_digest(self.digest)
        paths.size(self.size)

    @property
    def path(self) -> str:
        return os.path.join("blobs", *self.digest.split(":"))


@dataclass(frozen=True)
class Image:
    """The blobs of an image, from its manifest."""

    config: Blob
    layers: tuple[Blob, ...]

    @property
    def size(self) -> int:
        return sum(blob.size for blob in (self.config, *self.layers))


def layout_name(image: str) -> str:
    """The folder's name for an image.

    >>> layout_name("vllm/vllm-openai:v0.33.0")
    'vllm-vllm-openai-v0.33.0'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", image).strip("-")


def layouts(source: str) -> list[str]:
    """The image folders in a folder."""
    if not os.path.isdir(source):
        return []
    return sorted(name for name in os.listdir(source) if os.path.exists(os.path.join(source, name, MANIFEST)))


def loaded_name(reference: Reference) -> str:
    """The image's name in Docker after loading: Docker gives no name to an image known only by its digest."""
    return f"{reference.repository}:{reference.tag or reference.digest.replace(':', '-')[:19]}"


def choose(index: Mapping[str, Any], machine: str) -> str:
    """The digest of the image for this machine in an index; empty if this is not an index."""
    entries = index.get("manifests")
    if entries is None:
        return ""
    wanted = ARCHITECTURES.get(machine, machine)
    for entry in entries:
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", wanted):
            return paths.image_digest(entry["digest"])
    raise ValueError(f"the image has no variant for linux on {wanted}")


def parse_manifest(raw: Mapping[str, Any]) -> Image:
    def blob(entry: Mapping[str, Any]) -> Blob:
        return Blob(entry["digest"], entry["size"])

    try:
        return Image(blob(raw["config"]), tuple(blob(layer) for layer in raw["layers"]))
    except (KeyError, TypeError):
        raise ValueError("the registry gives a manifest of an obsolete type") from None


def docker_manifest(image: Image, name: str) -> str:
    """The manifest.json that ``docker load`` reads."""
    entry = {"Config": image.config.path, "RepoTags": [name], "Layers": [layer.path for layer in image.layers]}
    return json.dumps([entry], indent=1) + "\n"


def named_index(index: Mapping[str, Any], name: str) -> str:
    """The layout's index, with the name that containerd gives the image."""
    first = name.partition("/")[0]
    full = name if "/" in name and re.search(r"[.:]|^localhost$", first) else f"docker.io/{name}"
    entries = [
        {**entry, "annotations": {**entry.get("annotations", {}), "io.containerd.image.name": full}}
        for entry in index["manifests"]
    ]
    return json.dumps({**index, "manifests": entries}) + "\n"


def sizes(folder: str) -> Iterator[int]:
    """The sizes of all files in a layout, partial ones included."""
    for at, _folders, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(at, name)).st_size
            except OSError:  # renamed in between
                continue
