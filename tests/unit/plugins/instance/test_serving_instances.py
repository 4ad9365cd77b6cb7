# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What units and CDI specifications tell a plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names
from ansible_collections.gpunode.llm.plugins.module_utils.instance.record import Record
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import (
    NodeServing,
    Serving,
    engines,
    names_uuids,
    serving_from,
    short_digest,
    started_from,
)

BY_INDEX = 'kind: nvidia.com/gpu\ndevices:\n    - name: "0"\n'


def test_what_a_plan_must_know_of_an_engine() -> None:
    record = Record("8b", "vllm-8b.service", model="a/8b", port=8001, port_base=8000, gpus=("GPU-1", "3"))
    assert engines([record]) == [Serving("8b", 8001, 8000, ("GPU-1", "3"), "a/8b")]


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([], None),
        (["kind: vendor.com/net\n"], None),
        ([BY_INDEX], False),
        ([BY_INDEX + "    - name: GPU-00000001-0000\n"], True),
        (['{"kind": "nvidia.com/gpu", "devices": [{"name": "GPU-1"}]}'], True),
    ],
)
def test_specifications(specs: list[str], expected: bool | None) -> None:
    assert names_uuids(specs) is expected


def test_the_way_back() -> None:
    engine = Serving("8b", 8001, 8000, ("GPU-1",), "a/8b")
    assert serving_from({"engines": [engine.as_dict()], "cdi_uuids": None}) == NodeServing((engine,), True)
    assert serving_from({"cdi_uuids": False}) == NodeServing((), False)


def test_the_files_that_an_engine_was_started_from_have_short_digests(tmp_path: Path) -> None:
    aside = tmp_path / names.started_from("vllm-8b.service").lstrip("/")
    files = {"yaml": "model: m", "env": "VLLM_API_KEY=sk-secret", "json": "{}"}
    for name, text in ((f"etc/vllm/8b.{end}", text) for end, text in files.items()):
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_text(text)
    found = started_from("8b", str(tmp_path))
    # Not the record: an engine is not started from it.
    assert found == {
        "/etc/vllm/8b.yaml": short_digest(b"model: m"),
        "/etc/vllm/8b.env": short_digest(b"VLLM_API_KEY=sk-secret"),
    }
    assert {len(digest) for digest in found.values()} == {8}
    assert started_from("70b", str(tmp_path)) == {}
