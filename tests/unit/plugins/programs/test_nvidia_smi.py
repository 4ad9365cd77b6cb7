# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi prints, and what the PCI bus shows, as GPUs or as a sentence."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs import gpu as programs_gpu
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import (
    PciGpu,
    PciScan,
    look,
    node_gpus_from,
    parse,
)

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures" / "nvidia_smi"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("derive_nvidia_smi", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


DERIVE = load(FIXTURES / "derive.py")

H100 = ("NVIDIA H100 80GB HBM3", 81559, "Hopper")
A100 = ("NVIDIA A100-SXM4-80GB", 81920, "Ampere")
BOARDS = {
    "h100x1": (1, *H100),
    "h200x2": (2, "NVIDIA H200", 143771, "Hopper"),
    "h200x2-busy": (2, "NVIDIA H200", 143771, "Hopper"),
    "h200x2-less-one": (1, "NVIDIA H200", 143771, "Hopper"),
    "a100-40x8": (8, "NVIDIA A100-SXM4-40GB", 40960, "Ampere"),
    "a100-80x8": (8, *A100),
    "a100-40-pciex1": (1, "NVIDIA A100-PCIE-40GB", 40960, "Ampere"),
    "a100-80-pciex2": (2, "NVIDIA A100 80GB PCIe", 81920, "Ampere"),
    "a100-80x8-mig": (8, *A100),
    "a100-80x2-slices": (2, *A100),
    "a100-80x1-slices-unnamed": (1, *A100),
    "h100x8": (8, *H100),
    "h100x8-fabric-in-progress": (8, *H100),
    "h100x8-one-lost": (8, *H100),
    "h100x8-less-one": (7, *H100),
    "h100x8-driver-535": (8, *H100),
    "h100x8-driver-575": (8, *H100),
    "h100-pciex2": (2, "NVIDIA H100 PCIe", 81559, "Hopper"),
    "h100-nvlx2": (2, "NVIDIA H100 NVL", 95830, "Hopper"),
    "h200x8": (8, "NVIDIA H200", 143771, "Hopper"),
    "gh200x1": (1, "NVIDIA GH200 480GB", 97871, "Hopper"),
    "b200x8": (8, "NVIDIA B200", 183359, "Blackwell"),
    "l40sx4": (4, "NVIDIA L40S", 46068, "Ada Lovelace"),
    "a10gx1": (1, "NVIDIA A10G", 23028, "Ampere"),
    "a10gx4": (4, "NVIDIA A10G", 23028, "Ampere"),
    "gb10x1": (1, "NVIDIA GB10", None, "Blackwell"),
    "v100x4": (4, "Tesla V100-SXM2-16GB", 16384, "Volta"),
    "mixed": (6, *A100),
}


def recorded(name: str) -> str:
    return (FIXTURES / name).read_text(encoding="utf-8")


def test_every_fixture_is_in_the_table() -> None:
    assert {path.stem for path in FIXTURES.glob("*.xml")} == set(BOARDS)
    assert len(BOARDS) >= 15


@pytest.mark.parametrize("board", sorted(DERIVE.BOARDS))
def test_derived_boards_are_what_the_script_makes(board: str) -> None:
    assert recorded(f"{board}.xml") == DERIVE.derive(board)


@pytest.mark.parametrize("board", BOARDS)
def test_boards(board: str) -> None:
    node = parse(recorded(f"{board}.xml"))
    count, name, memory, architecture = BOARDS[board]
    first = node.gpus[0]
    assert (len(node.gpus), first.name, first.memory_mib, first.architecture) == (count, name, memory, architecture)
    assert node.state == "ok"
    assert [gpu.index for gpu in node.gpus] == list(range(count))
    assert len({gpu.uuid for gpu in node.gpus}) == count
    assert node_gpus_from(node.as_dict()) == node


def test_recorded_hosts_are_read() -> None:
    node = parse(recorded("h200x2.xml"))
    gpu = node.gpus[1]
    assert (node.driver_version, node.cuda_version) == ("580.159.04", "13.0")
    assert (gpu.index, gpu.pci_bus_id, gpu.reserved_mib, gpu.used_mib) == (1, "00000000:00:07.0", 616, 0)
    assert (gpu.mig, gpu.mig_pending, gpu.fabric_state, gpu.fabric_status) == (False, False, "Completed", "Success")
    assert (gpu.processes, gpu.recovery_action, gpu.lost) == ((), "", False)


def test_conditions() -> None:
    assert [gpu.mig for gpu in parse(recorded("a100-80x8-mig.xml")).gpus] == [True, True] + [False] * 6
    assert {gpu.fabric_state for gpu in parse(recorded("h100x8-fabric-in-progress.xml")).gpus} == {"In Progress"}
    assert {gpu.fabric_state for gpu in parse(recorded("a100-80x8.xml")).gpus} == {""}
    lost = parse(recorded("h100x8-one-lost.xml")).gpus
    assert [gpu.lost for gpu in lost] == [False] * 3 + [True] + [False] * 4
    assert lost[3].recovery_action == "Reboot"
    assert parse(recorded("h100x8-driver-535.xml")).driver_version == "535.274.02"


def test_slices_of_a_gpu() -> None:
    """As NVIDIA's nvsmi_device_v12.dtd has them; older drivers leave out their UUIDs."""
    node = parse(recorded("a100-80x2-slices.xml"))
    assert [(part.index, part.uuid, part.memory_mib, part.used_mib) for part in node.gpus[0].slices] == [
        (0, "MIG-a1", 40192, 25),
        (1, "MIG-a2", 9728, 25),
        (2, "MIG-a3", 9728, 25),
    ]
    assert [programs_gpu.label(device.index) for device in node.devices] == ["0:0", "0:1", "0:2", "1"]
    assert [device.memory_mib for device in node.devices] == [40192, 9728, 9728, 81920]
    assert {programs_gpu.index_of(programs_gpu.label(device.index)) for device in node.devices} == {1000, 1001, 1002, 1}
    assert [device.uuid for device in parse(recorded("a100-80x1-slices-unnamed.xml")).devices] == ["", ""]


def test_a_slice_by_its_names() -> None:
    node = parse(recorded("a100-80x2-slices.xml"))
    for name in ("MIG-a2", "0:1"):
        found = programs_gpu.named(node, name)
        assert found
        assert found.memory_mib == 9728
    assert programs_gpu.named(node, "0:7") is None
    assert programs_gpu.not_ready(node, ["MIG-a2"], 0.92) == ""
    assert "GPU 0:1 has 9703 of 9728 MiB free" in programs_gpu.not_ready(node, ["0:1"], 1.0)


def test_processes_of_a_slice() -> None:
    process = (
        "<process_info><gpu_instance_id>2</gpu_instance_id><compute_instance_id>0</compute_instance_id><pid>9</pid>"
        "<process_name>python3</process_name><used_memory>8000 MiB</used_memory></process_info>"
    )
    xml = recorded("a100-80x2-slices.xml").replace("<processes>", "<processes>" + process, 1)
    assert [[process.pid for process in part.processes] for part in parse(xml).gpus[0].slices] == [[], [9], []]


def test_mig_that_waits_for_a_reset_is_not_on() -> None:
    xml = recorded("h100x1.xml").replace("<pending_mig>Disabled", "<pending_mig>Enabled")
    (gpu,) = parse(xml).gpus
    assert (gpu.mig, gpu.mig_pending) == (False, True)


def test_processes_and_their_owners() -> None:
    busy = parse(recorded("h200x2-busy.xml"), owner_of=lambda pid: f"container-of-{pid}").gpus
    process = busy[0].processes[0]
    assert (process.pid, process.name, process.used_mib) == (583, "python3", 8710)
    assert process.owner == "container-of-583"
    assert busy[0].used_mib == 8719
    assert busy[1].processes == ()
    assert parse(recorded("h200x2-busy.xml")).gpus[0].processes[0].owner == ""


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        ("", "no nvidia_smi_log element"),
        ("<nvidia_smi_log><gpu></nvidia_smi_log>", "cannot be read"),
    ],
)
def test_unreadable(xml: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(xml)


def test_no_gpu_in_the_xml() -> None:
    node = parse("<nvidia_smi_log><driver_version>580.95.05</driver_version></nvidia_smi_log>")
    assert (node.state, node.driver_version) == ("no_devices", "580.95.05")
    assert "found no devices" in node.message


@pytest.mark.parametrize(
    ("status", "out", "state", "says"),
    [
        (9, recorded("driver-not-loaded.txt"), "driver_not_loaded", "installed but does not run"),
        (6, recorded("no-devices.txt"), "no_devices", "no devices"),
        (0, recorded("no-devices.txt"), "no_devices", "no devices"),
        (18, recorded("driver-mismatch.txt"), "driver_mismatch", "Restart the host"),
        (15, recorded("gpu-handle-lost.txt"), "gpu_lost", "fallen off the bus"),
        (7, "Something new\nmore of it", "failed", "ended with status 7 and said: Something new"),
        (7, "", "failed", "said: nothing"),
        (0, "<gibberish/>", "unreadable", "Its first bytes: '<gibberish/>'"),
        (6, "<nvidia_smi_log></nvidia_smi_log>", "failed", "status 6"),
        (15, recorded("h100x8-one-lost.xml"), "ok", ""),
    ],
)
def test_a_driver_that_does_not_answer(status: int, out: str, state: str, says: str) -> None:
    node = look(lambda: (status, out, ""), PciScan())
    assert node.state == state
    assert says in node.message


def test_symptoms_on_either_stream() -> None:
    assert look(lambda: (9, "", recorded("driver-not-loaded.txt")), PciScan()).state == "driver_not_loaded"


def pci(*gpus: PciGpu, nvswitches: int = 0) -> PciScan:
    return PciScan(gpus, nvswitches)


FIRST = PciGpu("0000:00:06.0", "10de:2330", "nvidia")
SECOND = PciGpu("0000:00:07.0", "10de:2330", "vfio-pci")


@pytest.mark.parametrize(
    ("scan", "state", "says"),
    [
        (pci(), "no_gpu", "no NVIDIA GPU on this host"),
        (pci(FIRST), "no_driver", "1 NVIDIA GPU is on the PCI bus, but nvidia-smi is not there"),
        (pci(FIRST, SECOND), "no_driver", "2 NVIDIA GPUs are"),
    ],
)
def test_no_nvidia_smi(scan: PciScan, state: str, says: str) -> None:
    node = look(None, scan)
    assert node.state == state
    assert says in node.message
    assert node.pci_gpus == scan.gpus


def test_a_gpu_that_the_driver_does_not_list() -> None:
    node = look(lambda: (0, recorded("h100x1.xml"), ""), pci(FIRST, SECOND, nvswitches=4), fabric_manager=True)
    assert node.state == "ok"
    assert node.message == "On the PCI bus, but not listed by nvidia-smi: 0000:00:07.0 (10de:2330, held by vfio-pci)."
    assert (node.nvswitches, node.fabric_manager) == (4, True)


def test_all_listed() -> None:
    assert look(lambda: (0, recorded("h100x1.xml"), ""), pci(FIRST)).message == ""


def device(root: Path, address: str, vendor: str, kind: str, number: str = "0x2330", driver: str = "") -> None:
    folder = root / address
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(vendor + "\n")
    (folder / "class").write_text(kind + "\n")
    (folder / "device").write_text(number + "\n")
    if driver:
        (root / "drivers" / driver).mkdir(parents=True)
        (folder / "driver").symlink_to(root / "drivers" / driver)


def test_the_pci_bus(tmp_path: Path) -> None:
    device(tmp_path, "0000:00:02.0", "0x8086", "0x030000")
    device(tmp_path, "0000:00:06.0", "0x10de", "0x030200", driver="nvidia")
    device(tmp_path, "0000:00:07.0", "0x10de", "0x030200")
    device(tmp_path, "0000:00:08.0", "0x10de", "0x068000", number="0x22a3")
    device(tmp_path, "0000:00:09.0", "0x10de", "0x040300")  # the sound that comes with a display card
    (tmp_path / "0000:00:0a.0").mkdir()  # a device on its way out
    assert programs_gpu.scan_pci(tmp_path) == pci(FIRST, PciGpu("0000:00:07.0", "10de:2330"), nvswitches=1)


def test_no_pci_bus(tmp_path: Path) -> None:
    assert programs_gpu.scan_pci(tmp_path / "none") == pci()


@pytest.mark.parametrize(
    ("cgroup", "container"),
    [
        (f"0::/system.slice/docker-{'ab' * 32}.scope\n", "ab" * 32),
        (f"12:devices:/docker/{'0c' * 32}\n0::/\n", "0c" * 32),
        ("0::/system.slice/ssh.service\n", ""),
        ("", ""),
    ],
)
def test_the_container_of_a_process(cgroup: str, container: str) -> None:
    assert programs_gpu.container_id(cgroup) == container


def fresh(**changed: object) -> programs_gpu.NodeGpus:
    gpu = programs_gpu.Gpu(index=0, name="NVIDIA H100", memory_mib=81559, reserved_mib=500, used_mib=4)
    return programs_gpu.NodeGpus("ok", gpus=(gpu, replace(gpu, index=1, **changed)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "names", "says"),
    [
        (fresh(), ["0", "1"], ""),
        (fresh(used_mib=70000, processes=(programs_gpu.GpuProcess(42, "python3", 69996),)), ["0"], ""),
        (
            fresh(used_mib=70000, processes=(programs_gpu.GpuProcess(42, "python3", 69996),)),
            ["0", "1"],
            "GPU 1 has 11059 of 81559 MiB free, and 75034 are needed, held by python3 (pid 42).",
        ),
        (fresh(fabric_state="In Progress"), ["1"], "the NVSwitch fabric of GPU 1 is not up yet"),
        (fresh(fabric_state="Completed"), ["1"], ""),
        (fresh(used_mib=None), ["1"], ""),
        (fresh(), ["2"], "there is no GPU 2: nvidia-smi lists 2, and"),
        (fresh(), ["GPU-9"], "there is no GPU GPU-9: nvidia-smi lists 2, and `nvidia-smi -L` names them."),
        (programs_gpu.NodeGpus("driver_not_loaded", "The driver does not run."), ["0"], "The driver does not run."),
    ],
)
def test_the_conditions_of_a_start(seen: programs_gpu.NodeGpus, names: list[str], says: str) -> None:
    message = programs_gpu.not_ready(seen, names, 0.92)
    assert message.startswith(says)
    assert bool(message) == bool(says)


def test_a_start_waits_for_its_own_gpus_after_one_is_lost() -> None:
    before = parse(recorded("h100x8.xml"))
    own = [gpu.uuid for gpu in before.gpus[4:6]]
    after = without(before, 2)
    assert [programs_gpu.named(after, name).index for name in own] == [3, 4]  # type: ignore[union-attr]
    assert programs_gpu.not_ready(after, own, 0.92) == ""
    gone = before.gpus[2].uuid
    assert programs_gpu.not_ready(after, [gone], 0.92).startswith(f"there is no GPU {gone}: nvidia-smi lists 7")
    lost = parse(recorded("h100x8-one-lost.xml"))
    assert "there is no GPU 3: nvidia-smi lists 8" in programs_gpu.not_ready(lost, ["3"], 0.92)
    busy = programs_gpu.not_ready(
        parse(recorded("h200x2-busy.xml")), [parse(recorded("h200x2-busy.xml")).gpus[0].uuid], 0.95
    )
    assert busy.startswith("GPU 0 (GPU-")


def without(node: programs_gpu.NodeGpus, index: int) -> programs_gpu.NodeGpus:
    """A node that has lost a GPU and counts the rest anew, as after a boot."""
    rest = [gpu for gpu in node.gpus if gpu.index != index]
    return replace(node, gpus=tuple(replace(gpu, index=place) for place, gpu in enumerate(rest)))


def test_a_busy_board_as_it_was_recorded() -> None:
    assert "GPU 0 has 134436 of 143771 MiB free" in programs_gpu.not_ready(
        parse(recorded("h200x2-busy.xml")), ["0", "1"], 0.95
    )
    assert programs_gpu.not_ready(parse(recorded("h200x2.xml")), ["0", "1"], 0.92) == ""


@pytest.mark.parametrize(("looks", "why", "slept"), [(["a", "b", ""], "", 2), (["a"] * 9, "a", 5), ([""], "", 0)])
def test_the_wait_for_gpus_has_an_end(looks: list[str], why: str, slept: int) -> None:
    now = [0.0]
    states = iter(looks)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    assert programs_gpu.wait_until_ready(lambda: next(states), 10, lambda: now[0], sleep) == why
    assert now[0] == 2 * slept


def test_the_program_that_a_unit_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nexec cat {FIXTURES / 'h200x2-busy.xml'}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert programs_gpu.main(["--timeout-s=0", "--utilization=0.95", "0", "1"]) == 1
    assert capsys.readouterr().out.startswith("vllm-gpus: after 0 s the GPUs are not ready: GPU ")
    assert programs_gpu.main(["--timeout-s=0", "--utilization=0.01", "0", "1"]) == 0
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert programs_gpu.main(["--timeout-s=0", "0"]) == 1
