# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the release of the image apply; an unknown release is reported."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.release import tag_release
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    findings,
    one,
    outcome,
    warnings,
)

NEWEST = max(CATALOG.engines)
DIGEST = "@sha256:" + "0" * 64
OWN = {"0.35.0": {"images": [{"image": "site/llm:blue", "device": "cuda"}], "flags": {"only-in-35": ["int", 1]}}}


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("vllm/vllm-openai:v0.33.0", "0.33.0"),
        ("vllm/vllm-openai:0.33.0", "0.33.0"),
        ("vllm/vllm-openai:v0.33.0-cu129", "0.33.0"),
        ("vllm/vllm-openai:v0.33.0_site.2", "0.33.0"),
        ("vllm/vllm-openai:v0.33.0rc1", "0.33.0rc1"),
        ("registry.example:5000/mirror/vllm-openai-cpu:v0.32.0", "0.32.0"),
        (f"vllm/vllm-openai:v0.32.0{DIGEST}", "0.32.0"),
        (f"vllm/vllm-openai{DIGEST}", ""),
        ("registry.example:5000/vllm", ""),
        ("nvcr.io/nvidia/vllm:26.05-py3", ""),
        ("site/vllm:nightly-0123456", ""),
        ("site/vllm:v0.33", ""),
    ],
)
def test_the_release_in_a_name(image: str, release: str) -> None:
    assert tag_release(image) == release


@pytest.mark.parametrize("image", ["vllm/vllm-openai:v0.32.0", f"mirror.example/vllm:v0.32.0{DIGEST}"])
def test_options_are_those_of_the_images_release(image: str) -> None:
    """watchdog-config came with 0.33.0."""
    taken = {"extra_args": {"watchdog-config": {}}}
    assert "vLLM 0.32.0 has no option watchdog-config" in findings("1xH100", model="8b", image=image, **taken)
    assert one("1xH100", model="8b", image="vllm/vllm-openai:v0.33.0", **taken).config["watchdog-config"] == {}
    assert warnings("1xH100", model="8b", image=image) == warnings("1xH100", model="8b")


def test_each_instance_has_the_release_of_its_own_image() -> None:
    wanted = {"extra_args": {"watchdog-config": {}}}
    models = [{"model": "8b", **wanted}, {"model": "8b", "name": "older", "image": "site/vllm:v0.32.0", **wanted}]
    made = outcome("2xH100", models=models)
    (finding,) = made.findings
    assert finding.startswith("vLLM 0.32.0 has no option watchdog-config.")


def test_options_that_a_model_brings_are_checked_too() -> None:
    catalog = load_catalog(extra_models={"8b": {"vllm": {"watchdog-config": {}}}})
    assert "has no option watchdog-config" in findings("1xH100", catalog, model="8b", image="site/vllm:v0.32.0")
    assert one("1xH100", catalog, model="8b").config["watchdog-config"] == {}


def test_a_release_of_the_users_own_counts() -> None:
    catalog = load_catalog(extra_engines=OWN)
    for image in ("site/llm:blue", "mirror.example/vllm:v0.35.0"):
        assert one("1xH100", catalog, model="8b", image=image, extra_args={"only-in-35": 2}).config["only-in-35"] == 2


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("site/vllm:v0.31.0", ("site/vllm:v0.31.0 is vLLM 0.31.0", "vllm_extra_engines", f"planned as for {NEWEST}")),
        (f"site/vllm{DIGEST}", ("does not name its vLLM release", "vllm_engine", f"planned as for {NEWEST}")),
        ("site/vllm:nightly", ("does not name its vLLM release", "vllm_engine", f"planned as for {NEWEST}")),
    ],
)
def test_an_unknown_release_is_noted_once(image: str, words: tuple[str, ...]) -> None:
    made = outcome("2xH100", models=["8b", {"model": "8b", "name": "second"}], image=image)
    assert made.plan
    (message,) = [warning for warning in made.plan.warnings if image in warning]
    for part in words:
        assert part in message


def test_an_option_of_a_release_that_nobody_knows_is_refused_with_the_way_out() -> None:
    message = findings("1xH100", model="8b", image="site/vllm:v0.99.0", extra_args={"only-in-99": 1})
    assert f"vLLM {NEWEST} has no option only-in-99" in message
    assert "vllm_extra_engines, as in {'0.99.0': {}}" in message


def test_a_named_release_wins_with_a_note_if_the_image_has_another() -> None:
    assert warnings("1xH100", model="8b", image=f"site/vllm{DIGEST}", engine=NEWEST) == warnings("1xH100", model="8b")
    message = warnings("1xH100", model="8b", image="site/vllm:v0.31.0", engine=NEWEST)
    assert f"site/vllm:v0.31.0 is vLLM 0.31.0 by its tag, but vllm_engine is {NEWEST}" in message


def test_a_release_without_images_of_its_own_is_not_served_as_another() -> None:
    """What a user leaves out of an entry is the newest release's, its images too."""
    catalog = load_catalog(extra_engines={"0.34.0": {}})
    message = warnings("1xH100", catalog, model="8b")
    assert "vllm/vllm-openai:v0.33.0 is vLLM 0.33.0" in message
    assert "0.34.0" in message


def test_an_image_at_ones_own_risk() -> None:
    """A nightly image has options that no release had, and the plan warns once."""
    nightly = {"image": "vllm/vllm-openai:nightly-0123456", "engine": "unplanned", "extra_args": {"of-tomorrow": 1}}
    planned = one("1xH100", model="8b", **nightly)
    assert planned.config["of-tomorrow"] == 1
    assert planned.kv_cache_tokens == one("1xH100", model="8b").kv_cache_tokens
    (warning,) = (text for text in warnings("1xH100", model="8b", **nightly).splitlines() if "nightly" in text)
    assert warning == (
        "vllm/vllm-openai:nightly-0123456 runs at your own risk (vllm_engine: unplanned): memory is planned as for "
        f"{NEWEST}, and its options are not checked."
    )
    known = {**nightly, "engine": NEWEST}
    assert "has no option of-tomorrow" in findings("1xH100", model="8b", **known)
    assert "set vllm_image" in findings("1xH100", model="8b", engine="unplanned")
