# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What GPUs a node has: one `nvidia-smi -q -x` call and a scan of the PCI bus. Makes no decisions.

This file is used twice. The module ``gpu_info`` imports it; and the role vllm puts it on the node, where units with
GPUs run it as ``ExecStartPre=``, so that an engine is not started into memory that its predecessor still holds, nor
onto NVSwitches whose fabric still comes up.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

NVIDIA = "0x10de"
#: The share of its GPUs' memory that vLLM takes where nobody says otherwise.
UTILIZATION = 0.92
# Run nvidia-smi: exit status, stdout, stderr. None where there is no nvidia-smi.
Run = Optional[Callable[[], Tuple[int, str, str]]]
# The name of the container that a process runs in, "" outside of any.
OwnerOf = Callable[[int], str]


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds GPU memory."""

    pid: int
    name: str
    used_mib: Optional[int] = None
    owner: str = ""


@dataclass(frozen=True)
class MigSlice:
    """A MIG device: a slice of a GPU with memory of its own. Drivers differ in whether they say its UUID here."""

    index: int
    uuid: str = ""
    memory_mib: Optional[int] = None
    reserved_mib: Optional[int] = None
    used_mib: Optional[int] = None
    processes: Tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver reports it; None where it reports nothing usable."""

    index: int
    name: str
    memory_mib: Optional[int] = None
    reserved_mib: Optional[int] = None
    used_mib: Optional[int] = None
    architecture: str = ""
    compute_capability: str = ""
    uuid: str = ""
    pci_bus_id: str = ""
    mig: bool = False
    mig_pending: bool = False
    fabric_state: str = ""
    fabric_status: str = ""

    lost: bool = False
    recovery_action: str = ""
    processes: Tuple[GpuProcess, ...] = ()
    slices: Tuple[MigSlice, ...] = ()


#: A slice is numbered from here: the GPU's index and one, so many times, and its own index.
SLICES = 1000


def label(index: int) -> str:
    """What the container toolkit calls a GPU or a slice by its index.

    >>> label(3), label(1002)
    ('3', '0:2')
    """
    gpu, part = divmod(index, SLICES)
    return f"{gpu - 1}:{part}" if gpu else str(index)


def index_of(name: str) -> int:
    """The index of what has this label. Raises ValueError for any other text."""
    gpu, colon, part = name.partition(":")
    return (int(gpu) + 1) * SLICES + int(part) if colon else int(gpu)


def slices(gpu: Gpu) -> Tuple[Gpu, ...]:
    """The slices of a GPU, each as a GPU of its own."""
    return tuple(
        replace(
            gpu,
            index=(gpu.index + 1) * SLICES + part.index,
            uuid=part.uuid,
            memory_mib=part.memory_mib,
            reserved_mib=part.reserved_mib,
            used_mib=part.used_mib,
            mig=False,
            mig_pending=False,
            processes=part.processes,
            slices=(),
        )
        for part in gpu.slices
    )


@dataclass(frozen=True)
class PciGpu:
    """A GPU on the PCI bus, whether or not a driver has it."""

    address: str
    device_id: str
    driver: str = ""


@dataclass(frozen=True)
class PciScan:
    """NVIDIA devices on the PCI bus."""

    gpus: Tuple[PciGpu, ...] = ()
    nvswitches: int = 0


@dataclass(frozen=True)
class NodeGpus:
    """Everything that a node says about its GPUs. `state` is ok, or names what is wrong; `message` says it in words.

    ``host_memory_mib``: the memory of the node itself, which boards with unified memory share with it.
    """

    state: str
    message: str = ""
    gpus: Tuple[Gpu, ...] = ()
    driver_version: str = ""
    cuda_version: str = ""
    pci_gpus: Tuple[PciGpu, ...] = ()
    nvswitches: int = 0
    fabric_manager: Optional[bool] = None
    host_memory_mib: Optional[int] = None

    @property
    def devices(self) -> Tuple[Gpu, ...]:
        """What an engine can have: the GPUs, and in place of one that is sliced its slices."""
        return tuple(part for gpu in self.gpus for part in (slices(gpu) if gpu.mig else ()) or (gpu,))

    def as_dict(self) -> Dict[str, Any]:
        """Plain data, as a module returns it."""
        return asdict(self)


def gpu_from(plain: Dict[str, Any]) -> Gpu:
    """Build it from the data of `asdict`."""
    parts = tuple(MigSlice(**{**part, "processes": _processes_from(part)}) for part in plain.get("slices") or ())
    return Gpu(**{**plain, "processes": _processes_from(plain), "slices": parts})


def _processes_from(plain: Dict[str, Any]) -> Tuple[GpuProcess, ...]:
    return tuple(GpuProcess(**process) for process in plain.get("processes") or ())


def node_gpus_from(plain: Dict[str, Any]) -> NodeGpus:
    """Build it from the data of `as_dict`; on the controller."""
    gpus = tuple(gpu_from(gpu) for gpu in plain.get("gpus") or ())
    return NodeGpus(
        state=plain["state"],
        message=plain.get("message", ""),
        gpus=gpus,
        driver_version=plain.get("driver_version", ""),
        cuda_version=plain.get("cuda_version", ""),
        pci_gpus=tuple(PciGpu(**gpu) for gpu in plain.get("pci_gpus") or ()),
        nvswitches=plain.get("nvswitches", 0),
        fabric_manager=plain.get("fabric_manager"),
        host_memory_mib=plain.get("host_memory_mib"),
    )


def container_id(cgroup: str) -> str:
    """The container in a /proc/PID/cgroup, "" for none: docker-ID.scope with systemd's cgroups, /docker/ID without.

    On a node that is a container itself, the innermost one.
    """
    ids = re.findall(r"docker[-/]([0-9a-f]{64})", cgroup)
    return ids[-1] if ids else ""


def scan_pci(root: Path = Path("/sys/bus/pci/devices")) -> PciScan:
    """Display and 3D controllers (class 03) are GPUs; NVIDIA's bridges of class 0680 are NVSwitches."""
    gpus: List[PciGpu] = []
    switches = 0
    for device in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            if (device / "vendor").read_text().strip() != NVIDIA:
                continue
            kind = (device / "class").read_text().strip()
            number = (device / "device").read_text().strip()
        except OSError:  # a device that is being removed, or a kernel that hides it
            continue
        if kind.startswith("0x03"):
            driver = device / "driver"
            gpus.append(PciGpu(device.name, "10de:" + number[2:], driver.resolve().name if driver.exists() else ""))
        elif kind.startswith("0x0680"):
            switches += 1
    return PciScan(tuple(gpus), switches)


def _text(node: ET.Element, path: str) -> str:
    """The text of a field, "" for the many ways in which nvidia-smi says that there is none."""
    value = (node.findtext(path) or "").strip()
    return "" if value.strip("[]").casefold() in ("n/a", "none", "not supported", "unknown error") else value


def _mib(node: ET.Element, path: str) -> Optional[int]:
    match = re.match(r"(\d+) MiB$", _text(node, path))
    return int(match.group(1)) if match else None


def _process(node: ET.Element, owner_of: OwnerOf) -> GpuProcess:
    pid = int(_text(node, "pid") or 0)
    return GpuProcess(pid, _text(node, "process_name"), _mib(node, "used_memory"), owner_of(pid))


def _slice(node: ET.Element, gpu: ET.Element, owner_of: OwnerOf) -> MigSlice:
    of = [_text(node, name) for name in ("gpu_instance_id", "compute_instance_id")]
    mine = (
        process
        for process in gpu.iterfind("processes/process_info")
        if [_text(process, name) for name in ("gpu_instance_id", "compute_instance_id")] == of
    )
    return MigSlice(
        index=int(_text(node, "index") or 0),
        uuid=_text(node, "uuid"),
        memory_mib=_mib(node, "fb_memory_usage/total"),
        reserved_mib=_mib(node, "fb_memory_usage/reserved"),
        used_mib=_mib(node, "fb_memory_usage/used"),
        processes=tuple(_process(process, owner_of) for process in mine),
    )


def _gpu(index: int, node: ET.Element, owner_of: OwnerOf) -> Gpu:
    everything = " ".join(text for text in (_text(node, "product_name"), _text(node, "fb_memory_usage/total")))
    return Gpu(
        index=index,
        name=_text(node, "product_name"),
        memory_mib=_mib(node, "fb_memory_usage/total"),
        reserved_mib=_mib(node, "fb_memory_usage/reserved"),
        used_mib=_mib(node, "fb_memory_usage/used"),
        architecture=_text(node, "product_architecture"),
        uuid=_text(node, "uuid"),
        pci_bus_id=node.get("id") or _text(node, "pci/pci_bus_id"),
        mig=_text(node, "mig_mode/current_mig") == "Enabled",
        mig_pending=_text(node, "mig_mode/pending_mig") == "Enabled",
        fabric_state=_text(node, "fabric/state"),
        fabric_status=_text(node, "fabric/status"),
        lost="lost" in everything.casefold(),
        recovery_action=_text(node, "gpu_recovery_action"),
        processes=tuple(_process(process, owner_of) for process in node.iterfind("processes/process_info")),
        slices=tuple(_slice(part, node, owner_of) for part in node.iterfind("mig_devices/mig_device")),
    )


def parse(xml: str, owner_of: OwnerOf = lambda pid: "") -> NodeGpus:
    """Read what `nvidia-smi -q -x` printed. Raises ValueError for anything else."""
    start = xml.find("<nvidia_smi_log")
    end = xml.rfind("</nvidia_smi_log>")
    if start < 0 or end < 0:
        raise ValueError("nvidia-smi -q -x printed no nvidia_smi_log element")
    try:
        root = ET.fromstring(xml[start : end + len("</nvidia_smi_log>")])
    except ET.ParseError as error:
        raise ValueError(f"nvidia-smi -q -x printed XML that cannot be read: {error}") from None
    gpus = tuple(_gpu(index, node, owner_of) for index, node in enumerate(root.iterfind("gpu")))
    return NodeGpus(
        state="ok" if gpus else "no_devices",
        message="" if gpus else REASONS["no_devices"],
        gpus=gpus,
        driver_version=_text(root, "driver_version"),
        cuda_version=_text(root, "cuda_version"),
    )


REASONS = {
    "no_gpu": "There is no NVIDIA GPU on this host: none on the PCI bus, and no nvidia-smi.",
    "no_devices": (
        "nvidia-smi found no devices: the driver is loaded but has no GPU. A GPU that is passed to a virtual machine, "
        "held by vfio-pci or too new for the driver looks like this; `dmesg | grep -i nvrm` says which."
    ),
    "driver_not_loaded": (
        "The NVIDIA driver is installed but does not run: nvidia-smi cannot talk to it. After a kernel update its "
        "module must be built again (`dkms status`, then `modprobe nvidia`), or the host has not been restarted yet."
    ),
    "driver_mismatch": (
        "The NVIDIA driver was updated while the old one is still loaded (driver/library version mismatch). "
        "Restart the host, or unload and load its modules."
    ),
    "gpu_lost": (
        "A GPU has fallen off the bus (`dmesg | grep -i xid` shows Xid 79). Restart the host; if it happens again, the "
        "board, its power or its slot is at fault."
    ),
}

# What nvidia-smi prints, on either stream, when it cannot list the GPUs.
SYMPTOMS = (
    ("driver/library version mismatch", "driver_mismatch"),
    ("couldn't communicate with the nvidia driver", "driver_not_loaded"),
    ("driver not loaded", "driver_not_loaded"),
    ("no devices were found", "no_devices"),
    ("is lost", "gpu_lost"),
    ("unable to determine the device handle", "gpu_lost"),
    ("fallen off the bus", "gpu_lost"),
)


def _listed(gpus: Tuple[PciGpu, ...]) -> str:
    return ", ".join(
        f"{gpu.address} ({gpu.device_id}{', held by ' + gpu.driver if gpu.driver else ''})" for gpu in gpus
    )


def _without_tool(pci: PciScan) -> NodeGpus:
    if not pci.gpus:
        return NodeGpus("no_gpu", REASONS["no_gpu"])
    count = "1 NVIDIA GPU is" if len(pci.gpus) == 1 else f"{len(pci.gpus)} NVIDIA GPUs are"
    message = (
        f"{count} on the PCI bus, but nvidia-smi is not there, so no NVIDIA driver is installed: {_listed(pci.gpus)}. "
        "Install the data-centre driver (on Ubuntu nvidia-driver-580-server, and nvidia-fabricmanager-580 of the same "
        "version on NVSwitch boards) and restart the host."
    )
    return NodeGpus("no_driver", message, pci_gpus=pci.gpus, nvswitches=pci.nvswitches)


def _failed(status: int, output: str) -> NodeGpus:
    folded = output.casefold()
    for symptom, state in SYMPTOMS:
        if symptom in folded:
            return NodeGpus(state, REASONS[state])
    first = (output.strip().splitlines() or ["nothing"])[0]
    return NodeGpus("failed", f"nvidia-smi -q -x ended with status {status} and said: {first}")


def _with_tool(status: int, out: str, err: str, owner_of: OwnerOf) -> NodeGpus:
    try:
        seen = parse(out, owner_of)
    except ValueError as error:
        if status or "no devices were found" in out.casefold():
            return _failed(status, out + "\n" + err)
        return NodeGpus("unreadable", f"{error}. Its first bytes: {out[:80]!r}")
    return _failed(status, out + "\n" + err) if status and not seen.gpus else seen


def look(
    run: Run,
    pci: PciScan,
    owner_of: OwnerOf = lambda pid: "",
    fabric_manager: Optional[bool] = None,
    host_memory_mib: Optional[int] = None,
) -> NodeGpus:
    """Combine the driver's view with the PCI bus. Never raises: a problem is a state with a message."""
    if run is None:
        return _without_tool(pci)
    seen = _with_tool(*run(), owner_of=owner_of)
    message = seen.message
    unlisted = _unlisted(seen.gpus, pci.gpus) if seen.gpus else ()
    if unlisted:
        message = f"On the PCI bus, but not listed by nvidia-smi: {_listed(unlisted)}."
    return NodeGpus(
        state=seen.state,
        message=message,
        gpus=seen.gpus,
        driver_version=seen.driver_version,
        cuda_version=seen.cuda_version,
        pci_gpus=pci.gpus,
        nvswitches=pci.nvswitches,
        fabric_manager=fabric_manager,
        host_memory_mib=host_memory_mib,
    )


def _unlisted(gpus: Tuple[Gpu, ...], pci: Tuple[PciGpu, ...]) -> Tuple[PciGpu, ...]:
    listed = {gpu.pci_bus_id.casefold()[-12:] for gpu in gpus}  # nvidia-smi writes the domain with eight digits
    return tuple(gpu for gpu in pci if gpu.address.casefold()[-12:] not in listed)


def _holders(gpu: Gpu) -> str:
    held = [f"{process.name or 'a process'} (pid {process.pid})" for process in gpu.processes]
    return f", held by {', '.join(held)}" if held else ""


def named(seen: NodeGpus, name: str) -> Optional[Gpu]:
    """The GPU or slice of that UUID or index; None where the node lists none, or has lost it."""
    return next((gpu for gpu in seen.devices if name in (gpu.uuid, label(gpu.index)) and not gpu.lost), None)


def not_ready(seen: NodeGpus, names: Sequence[str], utilization: float) -> str:
    """Why an engine that takes this share of these GPUs cannot start on them yet; empty where it can.

    What a driver does not report, as memory on boards that share it with the host, is no reason to wait.
    """
    if seen.state != "ok":
        return seen.message or seen.state
    for name in names:
        gpu = named(seen, name)
        if gpu is None:
            return f"there is no GPU {name}: nvidia-smi lists {len(seen.gpus)}, and `nvidia-smi -L` names them."
        which = name if name == label(gpu.index) else f"{label(gpu.index)} ({name})"
        if gpu.fabric_state == "In Progress":
            return f"the NVSwitch fabric of GPU {which} is not up yet: systemctl status nvidia-fabricmanager."
        if gpu.memory_mib is not None and gpu.used_mib is not None:
            free, wanted = gpu.memory_mib - gpu.used_mib - (gpu.reserved_mib or 0), gpu.memory_mib * utilization
            if free < wanted:
                room = f"{free} of {gpu.memory_mib} MiB free, and {wanted:.0f} are needed"
                return f"GPU {which} has {room}{_holders(gpu)}."
    return ""


def wait_until_ready(
    look_again: Callable[[], str], timeout_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> str:
    """Check every two seconds until the GPUs are ready; return the problem that remains when the time is up."""
    end = clock() + timeout_s
    why = look_again()
    while why and clock() < end:
        sleep(2)
        why = look_again()
    return why


QUERY = ("-q", "-x")


def nvidia_smi(run: Callable[[Sequence[str]], Tuple[int, str, str]], tool: Optional[str]) -> Run:
    """nvidia-smi, called in a module's own way; ``tool``: its path, None where it is not there."""
    return (lambda: run([tool, *QUERY])) if tool else None


def _ask() -> Tuple[int, str, str]:
    # A unit runs this, with no module around it.
    ask = ["nvidia-smi", *QUERY]
    try:
        done = subprocess.run(ask, check=False, capture_output=True, timeout=120)  # pylint: disable=ansible-bad-function
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Wait until an engine can start on its GPUs.")
    parser.add_argument("gpus", nargs="+", help="their UUIDs, or their indices as nvidia-smi counts them")
    parser.add_argument(
        "--utilization", type=float, default=UTILIZATION, help="the share of their memory that it takes"
    )
    parser.add_argument("--timeout-s", type=float, default=120)
    options = parser.parse_args(argv)

    def look_again() -> str:
        return not_ready(look(_ask, PciScan()), options.gpus, options.utilization)

    why = wait_until_ready(look_again, options.timeout_s, time.monotonic, time.sleep)
    if why:
        sys.stdout.write(f"vllm-gpus: after {options.timeout_s:.0f} s the GPUs are not ready: {why}\n")
    return 1 if why else 0


if __name__ == "__main__":
    raise SystemExit(main())
