# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node whose GPUs have no driver yet is planned for by their numbers on the PCI bus."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import NodeGpus, PciGpu
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import with_driver
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    FIXTURES,
    board,
    findings,
    one,
    warnings,
)


def bare(name: str, **changes: object) -> NodeGpus:
    """A recorded host, as it was before it had a driver."""
    xml = (FIXTURES / "nvidia_smi" / f"{name}.xml").read_text("utf-8")
    numbers = re.findall(r"<pci_device_id>(\w{4})10DE<", xml)
    on_pci = tuple(PciGpu(f"0000:{at:02x}:00.0", f"10de:{number.lower()}") for at, number in enumerate(numbers))
    seen = board(name)
    node = NodeGpus("no_driver", "No driver.", pci_gpus=on_pci, host_memory_mib=seen.host_memory_mib)
    return replace(node, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("h100x1", "8b"),
        ("h200x2", "70b"),
        ("h100x8", "405b-fp8"),
        ("h100-pciex2", "70b-fp8"),
        ("h100-nvlx2", "70b-fp8"),
        ("a100-80x8", "70b"),
        ("a100-40-pciex1", "8b"),
        ("a100-80-pciex2", "8b"),
        ("gh200x1", "8b"),
        ("gb10x1", "8b-fp8"),
        ("b200x8", "405b"),
        ("l40sx4", "8b"),
        ("a10gx1", "8b"),
    ],
)
def test_the_plan_is_that_of_the_same_host_with_a_driver(name: str, model: str) -> None:
    before, after = one(with_driver(bare(name), CATALOG), model=model), one(board(name), model=model)
    assert before.tensor_parallel_size == after.tensor_parallel_size
    assert before.data_parallel_size == after.data_parallel_size
    assert before.kv_cache_tokens == pytest.approx(after.kv_cache_tokens, rel=0.01)


def test_the_plan_says_what_it_is_from() -> None:
    assert "its GPUs are known from the PCI bus alone" in warnings(with_driver(bare("h100x1"), CATALOG), model="8b")


def test_a_board_that_serves_nothing_says_why() -> None:
    assert "V100" in findings(with_driver(bare("v100x4"), CATALOG), model="8b")


def test_a_board_that_the_catalogue_does_not_know_is_named() -> None:
    unknown = bare("h100x1", pci_gpus=(PciGpu("0000:01:00.0", "10de:2330"), PciGpu("0000:02:00.0", "10de:9999")))
    said = findings(with_driver(unknown, CATALOG), model="8b")
    assert "No driver. The catalogue does not know the GPU 10de:9999" in said
    assert "2330" not in said


@pytest.mark.parametrize("state", ["ok", "no_gpu", "gpu_lost", "failed"])
def test_a_driver_that_runs_is_believed(state: str) -> None:
    node = bare("h100x1", state=state)
    assert with_driver(node, CATALOG) is node


def test_a_node_without_boards_stays_as_it_is() -> None:
    node = NodeGpus("no_driver")
    assert with_driver(node, CATALOG) is node


def test_each_number_on_the_bus_is_one_board() -> None:
    numbers = [number for gpu in CATALOG.gpus.values() for number in gpu.pci]
    assert len(numbers) == len(set(numbers)) == len(CATALOG.gpus_on_pci)
    assert all(re.fullmatch(r"[0-9a-f]{4}", number) for number in numbers)
