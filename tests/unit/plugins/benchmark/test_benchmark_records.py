# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record is read as it is; what is none is refused in one sentence that names the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import record
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import records


def changed(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy in which one place, such as ``points.0.ttft_ms``, has another value."""
    copy = json.loads(json.dumps(content))
    *folders, last = path.split(".")
    inner: Any = copy
    for key in folders:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[last] = value
    return dict(copy)


@pytest.mark.parametrize("content", [records.record(), records.without_gpu(), records.tune()], ids=lambda c: c["id"])
def test_a_record_is_kept_as_it_is(content: dict[str, Any], tmp_path: Path) -> None:
    content["more"] = {"of a later release": 1}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert record.read(str(path)) == content


def test_what_is_missing_may_be_where_it_may_be_null() -> None:
    content = records.record()
    for key in ("client_cpu_share", "others", "power_w", "tokens_per_joule", "goodput_requests_per_s"):
        for point in content["points"]:
            del point[key]
    del content["quality"], content["label"], content["goals"]
    assert record.checked(content, "it") is content


def test_a_point_where_nothing_completed_is_no_fault() -> None:
    content = changed(records.record(), "points.0.ttft_ms", None)
    assert record.checked(content, "it") is content


@pytest.mark.parametrize("content", [None, [], "text", {}, {"schema": "1"}, {"points": []}])
def test_what_has_no_schema_is_no_record(content: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^a\.json is no record of a benchmark or a tune: it has no number `schema`\.$"
    ):
        record.checked(content, "a.json")


def test_a_newer_schema_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        ValueError, match=r"^a\.json has schema 2, and this release of gpunode\.llm reads schema 1: use"
    ):
        record.checked({**records.record(), "schema": 2}, "a.json")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("id", "../../etc/passwd", "id must be a name of letters, digits, dots and dashes, not '../../etc/passwd'"),
        ("points", {}, "points must be a list, not {}"),
        ("points.3.output_tokens_per_s", None, "points[3].output_tokens_per_s must be a number, not nothing"),
        ("points.3.output_tokens_per_s", float("nan"), "points[3].output_tokens_per_s must be a number, not nan"),
        ("points.0.failed", True, "points[0].failed must be a number, not True"),
        ("points.0.concurrency", 0, "points[0].concurrency must be a whole number from 1, not 0"),
        ("points.0.concurrency", 1.5, "points[0].concurrency must be a whole number from 1, not 1.5"),
        ("points.0.ttft_ms", 12.5, "points[0].ttft_ms must be a dictionary, not 12.5"),
        ("points.0.ttft_ms.p50", "x" * 90, f"points[0].ttft_ms.p50 must be a number, not '{'x' * 38}…"),
        ("model", "8b", "model must be a dictionary, not '8b'"),
        ("node.gpus.0.name", 3, "node.gpus[0].name must be a text, not 3"),
        ("profile.name", None, "profile.name must be a text, not nothing"),
    ],
)
def test_the_place_of_a_fault_is_named(path: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        record.checked(changed(records.record(), path, value), "a.json")
    assert str(caught.value) == f"a.json is no complete record of a benchmark or a tune: {words}."


def test_a_fault_of_a_tune_is_named() -> None:
    with pytest.raises(ValueError, match=r"candidates\[1\]\.state must be a text, not nothing\.$"):
        record.checked(changed(records.tune(), "candidates.1.state", None), "a.json")


@pytest.mark.parametrize(
    ("data", "words"), [(b"\xff\xfe", "it is not JSON."), (b"{", "it is not JSON."), (None, "cannot be read: No such")]
)
def test_a_file_that_holds_none_is_named(data: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=words) as caught:
        record.read(str(path))
    assert str(caught.value).startswith(f"{path} ")


def test_figures_are_medians_of_the_repeats() -> None:
    points = [{"concurrency": 4, "a": {"b": value}} for value in (3, 1, None, 8)] + [{"concurrency": 2, "a": None}]
    grouped = record.by_concurrency(points)
    assert list(grouped) == [2, 4]
    assert record.values(grouped[4], "a.b") == [3, 1, 8]
    assert record.middle(grouped[4], "a.b") == 3
    assert record.middle(grouped[2], "a.b") is None


@pytest.mark.parametrize(
    ("options", "gpus", "used"),
    [
        ({}, 1, 1),
        ({}, 8, 1),
        ({"tensor-parallel-size": 2, "data-parallel-size": "4"}, 8, 8),
        ({"tensor-parallel-size": 8}, 4, 4),
        ({"tensor-parallel-size": None, "pipeline-parallel-size": "two"}, 2, 1),
        ({}, 0, 0),
    ],
)
def test_the_gpus_of_an_instance_follow_from_its_options(options: dict[str, Any], gpus: int, used: int) -> None:
    content = records.record(node=records.node(gpus=[records.GPU] * gpus), engine=records.engine(**options))
    assert record.gpus_used(content) == used


def test_the_hardware_has_a_name() -> None:
    assert record.hardware(records.record()) == "1x NVIDIA H100 80GB HBM3"
    assert record.hardware(records.without_gpu()) == "Intel(R) Xeon(R) Platinum 8480+"
    assert record.hardware(records.record(node=records.node(gpus=[], cpu=None))) == "CPU"
