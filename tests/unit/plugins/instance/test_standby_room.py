# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engines can run a second time beside themselves."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import spare
from ansible_collections.gpunode.llm.plugins.module_utils.programs import gpu as programs_gpu

FREE = {"memory_mib": 81559, "used_mib": 4, "reserved_mib": 551}
BUSY = {**FREE, "processes": (programs_gpu.GpuProcess(7, "python3", 500),)}
FULL = {**FREE, "used_mib": 70000}
GIB = 2**30


def board(*gpus):
    return programs_gpu.NodeGpus(
        "ok", gpus=tuple(programs_gpu.Gpu(index, "NVIDIA H100", **gpu) for index, gpu in enumerate(gpus))
    )


def find(wants, taken=(), seen=None, free_bytes=0, ports=lambda port: True):
    found = spare.find(wants, taken, seen or programs_gpu.NodeGpus("no_gpu"), free_bytes, ports)
    return {room.name: (room.port, room.gpu_indices) for room in found}


def test_spare_gpus_are_those_that_nobody_owns_or_uses():
    gpus = board(FREE, FREE, BUSY, FULL, {**FREE, "mig": True}, {**FREE, "lost": True}, FREE, FREE)
    assert find([spare.Want("a", 2)], [0, 1], gpus) == {"a": (18000, (6, 7))}
    assert find([spare.Want("a", 3)], [0, 1], gpus) == {}


def test_two_do_not_get_the_same():
    gpus = board(*[FREE] * 6)
    wants = [spare.Want("a", 2), spare.Want("b", 4), spare.Want("c", 1)]
    assert find(wants, [0, 1], gpus) == {"a": (18000, (2, 3)), "c": (18001, (4,))}


def test_an_engine_takes_its_share():
    gpus = board({**FREE, "used_mib": 30000})
    assert find([spare.Want("a", 1)], (), gpus) == {}
    assert find([spare.Want("a", 1, utilization=0.5)], (), gpus) == {"a": (18000, (0,))}


@pytest.mark.parametrize(("held", "free", "room"), [(2 * GIB, 3 * GIB, True), (2 * GIB, 2 * GIB, False)])
def test_an_engine_on_the_cpu_wants_memory(held, free, room):
    assert bool(find([spare.Want("a", 0, held_bytes=held)], free_bytes=free)) is room


def test_an_engine_that_keeps_kv_cache_in_the_nodes_memory_wants_that_too():
    instance = {"name": "a", "gpu_indices": [0], "kv_host_gib": 64}
    wants, gpus = [spare.want(instance, None)], board(FREE, FREE)
    assert find(wants, [0], gpus, free_bytes=63 * GIB) == {}
    assert find(wants, [0], gpus, free_bytes=64 * GIB) == {"a": (18000, (1,))}
    assert find([spare.want({**instance, "kv_host_gib": 0}, None)], [0], gpus) == {"a": (18000, (1,))}


def test_what_one_takes_the_next_does_not_have():
    wants = [spare.Want("a", 0, held_bytes=2 * GIB), spare.Want("b", 0, held_bytes=2 * GIB)]
    assert list(find(wants, free_bytes=5 * GIB)) == ["a"]


def test_of_what_holds_an_unknown_amount_there_is_no_second():
    assert find([spare.Want("a", 0)], free_bytes=100 * GIB) == {}


def test_a_port_that_is_taken_is_passed_over():
    wants = [spare.Want("a", 0, held_bytes=1)]
    assert find(wants, free_bytes=10, ports=lambda port: port >= 18005) == {"a": (18005, ())}
    assert find(wants, free_bytes=10, ports=lambda port: False) == {}


def test_memory_is_read_as_the_kernel_writes_it():
    assert spare.available_bytes("MemTotal:  9 kB\nMemAvailable:    2048 kB\n") == 2 * 2**20
    assert spare.available_bytes("") == 0


def test_a_container_s_memory_is_that_of_its_processes():
    one, other = "a" * 64, "b" * 64
    processes = [
        (f"0::/system.slice/docker-{one}.scope", "Name: vllm\nVmRSS:\t    1024 kB\n"),
        (f"0::/docker/{other}/docker/{one}", "VmRSS:\t    1024 kB\n"),
        (f"0::/docker/{other}", "VmRSS:\t    4096 kB\n"),
        ("0::/init.scope", "VmRSS:\t    4096 kB\n"),
        (f"0::/docker/{one}", "Name: a kernel's thread has none\n"),
    ]
    assert spare.held_bytes(one, processes) == 2 * 2**20
    assert spare.held_bytes("c" * 64, processes) is None
    assert spare.held_bytes("", processes) is None


def test_a_want_is_read_off_the_plan():
    plan = {"name": "70b", "gpu_indices": [0, 1], "config": {"gpu-memory-utilization": 0.9}}
    assert spare.want(plan, None) == spare.Want("70b", 2, 0.9, None)
    assert spare.want({"name": "tiny"}, 5) == spare.Want("tiny", 0, programs_gpu.UTILIZATION, 5)
