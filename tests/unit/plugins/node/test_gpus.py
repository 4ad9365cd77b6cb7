# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gpu_info on a node of files: one call of nvidia-smi, and whose container a process is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.node import gpus as node_gpus
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import PciScan
from ansible_collections.gpunode.llm.plugins.modules import gpu_info

BOARDS = Path(__file__).resolve().parents[3] / "fixtures" / "nvidia_smi"
CONTAINER = "ab" * 32


@pytest.fixture(autouse=True)
def _no_memory_between_tests() -> None:
    node_gpus._container_name.cache_clear()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The node's files, by path; all others cannot be read."""
    there: dict[str, str] = {}
    monkeypatch.setattr(node_gpus.node_files, "text_of", lambda path: there.get(str(path), ""))
    return there


def test_the_owner_of_a_process(files: dict[str, str]) -> None:
    files["/proc/7/cgroup"] = f"0::/system.slice/docker-{CONTAINER}.scope\n"
    files[f"/var/lib/docker/containers/{CONTAINER}/config.v2.json"] = json.dumps({"Name": "/vllm-8b"})
    assert node_gpus.owner_of(7) == "vllm-8b"
    assert node_gpus.owner_of(8) == ""


def test_dockers_records_are_found_in_its_configured_folder(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_gpus, "data_root", lambda: "/big")
    files[f"/big/containers/{CONTAINER}/config.v2.json"] = '{"Name": "/x"}'
    assert node_gpus._container_name(CONTAINER) == "x"


@pytest.mark.parametrize("record", ["", "[]", '{"ID": 1}'])
def test_an_empty_record(files: dict[str, str], record: str) -> None:
    files[f"/var/lib/docker/containers/{CONTAINER}/config.v2.json"] = record
    assert node_gpus._container_name(CONTAINER) == ""


def test_fabric_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    glob = MagicMock(return_value=["1", "2"])
    monkeypatch.setattr(node_gpus.Path, "glob", glob)
    monkeypatch.setattr(node_gpus.node_files, "text_of", {"1": "bash\n", "2": "nv-fabricmanage\n"}.__getitem__)
    assert node_gpus.fabric_manager_runs()
    glob.return_value = ["1"]
    assert not node_gpus.fabric_manager_runs()


def ran(monkeypatch: pytest.MonkeyPatch, tool: str | None, nvswitches: int = 0) -> tuple[dict[str, Any], MagicMock]:
    module = MagicMock()
    module.get_bin_path.return_value = tool
    module.run_command.return_value = (0, (BOARDS / "h200x2.xml").read_text(encoding="utf-8"), "")
    monkeypatch.setattr(gpu_info, "AnsibleModule", lambda **options: module)
    monkeypatch.setattr(node_gpus.node_system, "facts", lambda run: {"ansible_nodename": "n"})
    monkeypatch.setattr(node_gpus, "scan_pci", lambda: PciScan((), nvswitches))
    monkeypatch.setattr(node_gpus, "fabric_manager_runs", lambda: False)
    gpu_info.main()
    return module.exit_json.call_args.kwargs, module


def test_one_call_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    result, module = ran(monkeypatch, "/usr/bin/nvidia-smi")
    module.run_command.assert_called_once_with(["/usr/bin/nvidia-smi", "-q", "-x"])
    assert (result["state"], len(result["gpus"]), result["fabric_manager"]) == ("ok", 2, None)
    assert result["system"] == {"ansible_nodename": "n"}


def test_no_nvidia_smi_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    result, module = ran(monkeypatch, None, nvswitches=4)
    module.run_command.assert_not_called()
    assert (result["state"], result["fabric_manager"]) == ("no_gpu", None)


def test_fabric_manager_is_looked_for_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(monkeypatch, "/usr/bin/nvidia-smi", nvswitches=4)[0]["fabric_manager"] is False


def test_the_memory_that_a_gpu_may_share_with_its_host() -> None:
    assert node_gpus.memory_mib("MemTotal:       125829120 kB\nMemFree:  1 kB\n") == 122880
    assert node_gpus.memory_mib("") is None
