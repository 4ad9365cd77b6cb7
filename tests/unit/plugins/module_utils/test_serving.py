# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What units and CDI specifications tell a plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import (
    Here,
    Serving,
    here_from,
    names_uuids,
    parse_unit,
    short_digest,
    started_from,
)

GOLDEN = Path(__file__).resolve().parents[2] / "roles" / "vllm" / "golden" / "405b-fp8.service"
UUIDS = tuple(f"GPU-0000000{number}-0000-0000-0000-00000000000{number}" for number in range(1, 9))
OLD = "[Service]\nExecStart=docker run \\\n  --device=nvidia.com/gpu=3 \\\n  i\n[X-gpunode]\nInstance=8b\nPort=8001\n"
BY_INDEX = 'kind: nvidia.com/gpu\ndevices:\n    - name: "0"\n'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOLDEN.read_text(encoding="utf-8"), Serving("405b-fp8", 8000, 8000, UUIDS)),
        (OLD, Serving("8b", 8001, None, ("3",))),
        ("[Service]\nExecStart=docker run --device=nvidia.com/gpu=0 i\n", None),
    ],
)
def test_units(text: str, found: Serving | None) -> None:
    assert parse_unit(text) == found


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([], None),
        (["kind: vendor.com/net\n"], None),
        ([BY_INDEX], False),
        ([BY_INDEX + "    - name: GPU-00000001-0000\n"], True),
        (['{"kind": "nvidia.com/gpu", "devices": [{"name": "GPU-1"}]}'], True),
    ],
)
def test_specifications(specs: list[str], said: bool | None) -> None:
    assert names_uuids(specs) is said


def test_the_way_back() -> None:
    one = Serving("8b", 8001, 8000, ("GPU-1",))
    assert here_from({"engines": [one.as_dict()], "cdi_uuids": None}) == Here((one,), True)
    assert here_from({"cdi_uuids": False}) == Here((), False)


def test_the_files_that_an_engine_was_started_from_have_short_digests(tmp_path: Path) -> None:
    aside = tmp_path / "vllm-8b" / "started-from"
    for name, text in (("etc/vllm/8b.yaml", "model: m"), ("etc/vllm/8b.env", "VLLM_API_KEY=sk-secret")):
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_text(text)
    found = started_from("8b", str(tmp_path))
    assert found == {
        "/etc/vllm/8b.yaml": short_digest(b"model: m"),
        "/etc/vllm/8b.env": short_digest(b"VLLM_API_KEY=sk-secret"),
    }
    assert {len(digest) for digest in found.values()} == {8}
    assert started_from("70b", str(tmp_path)) == {}
