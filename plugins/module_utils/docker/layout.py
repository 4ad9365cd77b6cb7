# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container image as a folder: the OCI layout, and beside it the list by which Docker of any age loads it.

Blobs lie under their SHA-256, so a copy that was interrupted goes on with the next layer. Docker's classic store does
not read the layout's own index; ``manifest.json``, as ``docker save`` writes it, tells it the same of the same blobs.
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
    """A part of an image, by its digest.

    Raises:
        Refused: a registry or a layout gives a digest or a size that is none.
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
    """What a manifest names."""

    config: Blob
    layers: tuple[Blob, ...]

    @property
    def size(self) -> int:
        return sum(blob.size for blob in (self.config, *self.layers))


def layout_name(image: str) -> str:
    """The folder of an image among others.

    >>> layout_name("vllm/vllm-openai:v0.33.0")
    'vllm-vllm-openai-v0.33.0'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", image).strip("-")


def layouts(source: str) -> list[str]:
    """The images in a folder of them."""
    if not os.path.isdir(source):
        return []
    return sorted(name for name in os.listdir(source) if os.path.exists(os.path.join(source, name, MANIFEST)))


def loaded_name(reference: Reference) -> str:
    """The name under which Docker has the image once it was loaded: a digest without a tag is no name for it."""
    return f"{reference.repository}:{reference.tag or reference.digest.replace(':', '-')[:19]}"


def choose(index: Mapping[str, Any], machine: str) -> str:
    """The digest of the image for this machine in a list of images; empty where this is no list."""
    entries = index.get("manifests")
    if entries is None:
        return ""
    wanted = ARCHITECTURES.get(machine, machine)
    for entry in entries:
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", wanted):
            return paths.image_digest(entry["digest"])
    raise ValueError(f"the image was not built for linux on {wanted}")


def parse_manifest(raw: Mapping[str, Any]) -> Image:
    def blob(entry: Mapping[str, Any]) -> Blob:
        return Blob(entry["digest"], entry["size"])

    try:
        return Image(blob(raw["config"]), tuple(blob(layer) for layer in raw["layers"]))
    except (KeyError, TypeError):
        raise ValueError("the registry gives a manifest of a kind that is no longer in use") from None


def docker_manifest(image: Image, name: str) -> str:
    """What ``docker load`` reads."""
    entry = {"Config": image.config.path, "RepoTags": [name], "Layers": [layer.path for layer in image.layers]}
    return json.dumps([entry], indent=1) + "\n"


def named_index(index: Mapping[str, Any], name: str) -> str:
    """The layout's index with the name under which containerd takes the image."""
    first = name.partition("/")[0]
    full = name if "/" in name and re.search(r"[.:]|^localhost$", first) else f"docker.io/{name}"
    entries = [
        {**entry, "annotations": {**entry.get("annotations", {}), "io.containerd.image.name": full}}
        for entry in index["manifests"]
    ]
    return json.dumps({**index, "manifests": entries}) + "\n"


def sizes(folder: str) -> Iterator[int]:
    """The bytes of all files in a layout, those on their way included."""
    for at, _folders, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(at, name)).st_size
            except OSError:  # renamed meanwhile
                continue
