# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node knows of its instances: by their records, and by the units of releases that wrote none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import known, names, old_unit, record
from ansible_collections.gpunode.llm.plugins.module_utils.instance.record import Files, Record
from ansible_collections.gpunode.llm.plugins.module_utils.programs import vllm_wait
from ansible_collections.gpunode.llm.plugins.plugin_utils import service

OLD = """[Service]
ExecStartPre=/usr/bin/python3 vllm-gpus.py --utilization=0.9 --timeout-s=120 0 1
ExecStart=docker run \\
  --device=nvidia.com/gpu=3 \\
  i
TimeoutStartSec=300
[X-gpunode]
# Image=not this
Instance=a
Image=i=1
Config=/etc/vllm/a.yaml
Port=8001
[Install]
Image=no
"""
ONE = Record("a", "vllm-a.service", "i:1", "org/a", "main", "org/a", "::1", 8001, 8000, ("GPU-1",), 600)


def test_written_files_are_read_back() -> None:
    written = replace(ONE, files=Files(config="/etc/vllm/a.yaml", record="/etc/vllm/a.json"))
    assert record.parse(written.text()) == written
    assert json.loads(written.text())["schema"] == record.SCHEMA
    assert written.endpoint == {
        "name": "a",
        "unit": "vllm-a.service",
        "host": "::1",
        "port": 8001,
        "model": "org/a",
        "env_file": "",
        "timeout_s": 600,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 1}',
        '{"name": "a", "unit": "b"}',
        '{"schema": 1, "about": "Written by Ansible (gpunode.llm.vllm)", "name": 5, "unit": "b"}',
        '{"schema": 1, "about": "somebody else\'s", "name": "a", "unit": "b"}',
    ],
)
def test_a_file_of_others_is_no_record(text: str) -> None:
    """A chat template or the like of an operator's may lie beside the records."""
    assert record.parse(text) is None


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(record.NewerRecord, match="The record of a on the node has schema 2; this release"):
        record.parse(ONE.text().replace('"schema": 1', '"schema": 2'))


def test_new_keys_of_the_same_schema_are_ignored() -> None:
    assert record.parse(ONE.text().replace('"schema": 1', '"schema": 1, "more": 2')) == ONE


def test_an_instances_files_are_removed_with_the_record_last() -> None:
    some = Files("/c.yaml", "/c.env", cache="relative", unit="/u.service", record="/c.json")
    assert some.all() == ["/c.yaml", "/c.env", "/u.service", "/c.json"]


@pytest.mark.parametrize(("start_s", "gpu_s", "limit_s", "patience_s"), [(900, 0, 960, 1020), (300, 600, 660, 1320)])
def test_each_limit_is_longer_than_what_it_waits_for(start_s: int, gpu_s: int, limit_s: int, patience_s: int) -> None:
    assert record.start_limit_s(start_s, gpu_s) == limit_s
    assert record.patience_s(limit_s, gpu_s) == patience_s


# -- units of releases that wrote no records, until release 1.1 -------------------------------------------------------
def test_an_old_unit_gives_the_same_record() -> None:
    read_back = old_unit.record_of("/etc/systemd/system/vllm-a.service", OLD, "model: org/a\nrevision: 'main'\n")
    assert read_back == Record(
        name="a",
        unit="vllm-a.service",
        image="i=1",
        revision="main",
        port=8001,
        gpus=("3",),
        timeout_s=300 + 120 + record.MARGIN_S,
        files=Files(config="/etc/vllm/a.yaml", unit="/etc/systemd/system/vllm-a.service", record="/etc/vllm/a.json"),
    )


@pytest.mark.parametrize(
    "text", ["", "[Unit]\nInstance=a\n", "[Service]\nExecStart=docker run --device=nvidia.com/gpu=0 i\n"]
)
def test_a_foreign_unit_gives_no_record(text: str) -> None:
    assert old_unit.record_of("/etc/systemd/system/vllm-a.service", text) is None


# -- a node -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def node(tmp_path: Path) -> Path:
    for name in ("units", "records"):
        (tmp_path / name).mkdir()
    (tmp_path / "units" / "vllm-old.service").write_text(OLD.replace("Instance=a", "Instance=old"))
    (tmp_path / "units" / "vllm-theirs.service").write_text("[Service]\nExecStart=/bin/true\n")
    (tmp_path / "units" / "vllm-link.service").symlink_to("vllm-old.service")
    (tmp_path / "units" / "vllm-a.service").write_text(OLD)
    for name in ("a", "gone"):
        unit = f"vllm-{name}.service"
        written = replace(ONE, name=name, unit=unit, files=Files(unit=str(tmp_path / "units" / unit)))
        (tmp_path / "records" / f"{name}.json").write_text(written.text())
    (tmp_path / "records" / "template.json").write_text("{}")
    return tmp_path


def test_records_are_read_and_units_without_one_are_parsed(node: Path) -> None:
    found = known.instances([str(node / "units"), str(node / "none")], [str(node / "records"), str(node / "none")])
    assert [(written.name, written.port, written.image) for written in found] == [
        ("a", 8001, "i:1"),
        ("old", 8001, "i=1"),
    ]


def test_a_half_removed_instance_is_found_by_its_record(node: Path) -> None:
    found = known.instances([str(node / "units")], [str(node / "records")], without_unit=True)
    assert [written.name for written in found] == ["a", "old", "gone"]


@pytest.mark.parametrize("with_record", [True, False])
def test_copies_are_read_as_their_originals(tmp_path: Path, with_record: bool) -> None:
    """As a unit puts them aside at its start: the record with them, or only what earlier releases had."""
    aside = tmp_path / names.started_from("vllm-a.service").lstrip("/")
    files = {"/etc/systemd/system/vllm-a.service": OLD, "/etc/vllm/a.yaml": "revision: main\n"}
    if with_record:
        files["/etc/vllm/a.json"] = replace(ONE, revision="other").text()
    for path, text in files.items():
        (aside / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (aside / path.lstrip("/")).write_text(text)
    assert dict(known.copied(str(aside))) == {path: str(aside) + path for path in files}
    record = known.as_started(ONE, str(tmp_path))
    assert record is not None
    assert record.revision == ("other" if with_record else "main")
    assert known.as_started(replace(ONE, unit="vllm-b.service"), str(tmp_path)) is None


def test_what_the_gateway_listens_on(tmp_path: Path) -> None:
    unit, mine = tmp_path / names.GATEWAY_UNIT, tmp_path / "gateway.json"
    assert known.gateway_listens(str(mine), str(unit)) == []
    unit.write_text("[Service]\nExecStart=/bin/true\n[X-gpunode]\nListens=0.0.0.0 443, 127.0.0.1 9180\n")
    assert known.gateway_listens(str(mine), str(unit)) == [("0.0.0.0", 443), ("127.0.0.1", 9180)]
    mine.write_text(record.gateway_text([{"host": "::", "port": 8443}]))
    assert known.gateway_listens(str(mine), str(unit)) == [("::", 8443)]


# -- names ------------------------------------------------------------------------------------------------------------
def test_names_lead_there_and_back() -> None:
    assert names.name_of(names.unit_of("8b")) == "8b"
    assert names.container_of("8b") + ".service" == names.unit_of("8b")
    assert names.is_second(names.second_of("8b"))
    assert names.record_path("8b") == "/etc/vllm/8b.json"
    assert names.record_path(names.second_of("8b")) == "/run/gpunode/beside/8b-beside.json"


def test_a_record_lists_adapters_and_drafts_only_if_there_are_any() -> None:
    assert "beside" not in json.loads(ONE.text())
    adapted = replace(ONE, beside=("org/sql", "org/head"))
    assert record.parse(adapted.text()) == adapted
    instance = {"name": "8b", "port": 8000, "lora": [{"repo_id": "org/sql", "revision": "1" * 40}]}
    instance |= {"draft": {"repo_id": "org/head", "revision": "1" * 40}}
    assert service.record(service.made(instance, service.Settings())).beside == ("org/sql", "org/head")


def test_a_record_has_the_task_of_a_pooling_model_only() -> None:
    assert "task" not in json.loads(ONE.text())
    assert "task" not in ONE.endpoint
    assert record.GENERATE == vllm_wait.GENERATE
    pooling = replace(ONE, task="rerank")
    assert json.loads(pooling.text())["task"] == pooling.endpoint["task"] == "rerank"
    assert record.parse(pooling.text()) == pooling


GROUP = {"size": 2, "rank": 1, "nodes": ["n1", "n2"], "addresses": ["10.0.0.1", "10.0.0.2"], "port": 30501}


def test_a_rank_of_an_engine_over_several_nodes_is_recorded_with_its_group():
    rank = record.Record("a", "vllm-a.service", group=GROUP)
    read_back = record.parse(rank.text())
    assert read_back == rank
    assert (read_back.headless, replace(rank, group={**GROUP, "rank": 0}).headless) == (True, False)
    assert (rank.endpoint["rank"], rank.endpoint["head"]) == (1, "n1")
    alone = record.Record("a", "vllm-a.service")
    assert not alone.headless
    assert "group" not in alone.text()
