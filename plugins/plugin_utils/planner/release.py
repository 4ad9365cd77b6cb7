# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the vLLM release of an image. That release's options apply, not those of the catalogue's newest."""

from __future__ import annotations

import re

from .catalog import Catalog, EngineSpec

_TAG = re.compile(r"v?(\d+\.\d+\.\d+(?:rc\d+|\.post\d+|\.dev\d+)?)(?:[-_+].*)?")


def tag_release(image: str) -> str:
    """The release in an image's tag, such as v0.33.0-cu129 or 0.33.0; empty if there is none."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    match = _TAG.fullmatch(tag)
    return match.group(1) if match else ""


def _image_release(image: str, default: EngineSpec, catalog: Catalog) -> str:
    """The release of an image, from its tag or from the catalogue; empty if unknown."""
    tag = tag_release(image)
    listed = [
        engine.version for engine in catalog.engines.values() if image in (build.image for build in engine.images)
    ]
    if tag in listed or not listed:
        return tag
    return default.version if default.version in listed else listed[0]


def chosen_image_release(image: str, default: EngineSpec, explicit: bool, catalog: Catalog) -> tuple[EngineSpec, str]:
    """The release whose options apply to an image that the user chose, and a note, or "".

    ``default``: the host's release; ``explicit``: the user set vllm_engine.
    """
    if default.unplanned:
        return default, (
            f"{image} runs at your own risk (vllm_engine: unplanned): memory is planned as for {default.version}, and "
            "its options are not checked."
        )
    release, assumed = (
        _image_release(image, default, catalog),
        f"options and memory are planned as for {default.version}",
    )
    if release == default.version or (explicit and not release):
        return default, ""
    if explicit:
        return default, f"{image} is vLLM {release} by its tag, but vllm_engine is {default.version}: {assumed}."
    if release in catalog.engines:
        return catalog.engines[release], ""
    known = ", ".join(catalog.engines)
    if release:
        return default, (
            f"{image} is vLLM {release}, but the catalogue has {known}: {assumed}, and an option that"
            f" {release} does not accept stops its start. Add it to vllm_extra_engines, as in {{'{release}': {{}}}}."
        )
    return default, (
        f"{image} does not name its vLLM release: {assumed}, and an option that it does not accept stops its start. Set"
        f" vllm_engine to its release ({known})."
    )


def catalog_image_note(image: str, engine: EngineSpec, catalog: Catalog) -> str:
    """A note if a catalogue image is of another release: an extra engine without images uses the newest's."""
    release = _image_release(image, engine, catalog)
    if release in ("", engine.version):
        return ""
    return (
        f"{image} is vLLM {release} by its tag, but is used as {engine.version}, whose options apply: set the images of"
        f" {engine.version} in vllm_extra_engines, or set vllm_image."
    )
