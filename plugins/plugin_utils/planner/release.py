# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which release of vLLM an image is of: its options are the ones that count, whatever the catalogue's newest is."""

from __future__ import annotations

import re

from .catalog import Catalog, EngineSpec

_TAG = re.compile(r"v?(\d+\.\d+\.\d+(?:rc\d+|\.post\d+|\.dev\d+)?)(?:[-_+].*)?")


def tagged(image: str) -> str:
    """The release that an image's tag names, v0.33.0-cu129 or 0.33.0; empty where it names none."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    match = _TAG.fullmatch(tag)
    return match.group(1) if match else ""


def _told(image: str, asked: EngineSpec, catalog: Catalog) -> str:
    """The release of an image, by the catalogue's lists or by its tag; empty where neither tells."""
    tag = tagged(image)
    listed = [engine.version for engine in catalog.engines.values() if image in (one.image for one in engine.images)]
    if tag in listed or not listed:
        return tag
    return asked.version if asked.version in listed else listed[0]


def of_wished(image: str, asked: EngineSpec, named: bool, catalog: Catalog) -> tuple[EngineSpec, str]:
    """The release whose options count for an image that the user chose, and what to know of that.

    ``asked``: the host's release; ``named``: the user named it.
    """
    told, reckoned = _told(image, asked, catalog), f"options and memory are reckoned as {asked.version} has them"
    if told == asked.version or (named and not told):
        return asked, ""
    if named:
        return asked, f"{image} is vLLM {told} by its name, and vllm_engine says {asked.version}: {reckoned}."
    if told in catalog.engines:
        return catalog.engines[told], ""
    known = ", ".join(catalog.engines)
    if told:
        return asked, (
            f"{image} is vLLM {told}, and the catalogue knows {known}: {reckoned}, and what {told} does not take ends"
            f" its start. Describe it in vllm_extra_engines, as in {{'{told}': {{}}}} where it is like the newest."
        )
    return asked, (
        f"{image} does not tell its release of vLLM: {reckoned}, and what it does not take ends its start. Name the"
        f" release with vllm_engine ({known})."
    )


def of_picked(image: str, engine: EngineSpec, catalog: Catalog) -> str:
    """What to know of an image that the catalogue gave: a user's entry without images has the newest release's."""
    told = _told(image, engine, catalog)
    if told in ("", engine.version):
        return ""
    return (
        f"{image} is vLLM {told} by its name, and serves as {engine.version}, whose options count: name the images of"
        f" {engine.version} in vllm_extra_engines, or set vllm_image."
    )
