# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Report the NVIDIA GPUs of a node
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.reads_only
description:
  - Reports count, type, memory, driver, MIG mode, NVSwitch fabric state and running processes of all NVIDIA GPUs.
  - Runs C(nvidia-smi -q -x) once, and reads the PCI bus to find GPUs without a driver as well.
  - Does not fail if there are no GPUs or if they do not work. RV(state) and RV(message) report the problem.
    M(gpunode.llm.serving_plan) decides whether it matters.
seealso:
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Read the GPUs
  gpunode.llm.gpu_info:
  register: node

- name: Show the first GPU
  ansible.builtin.debug:
    msg: "{{ node.gpus[0].name }}, {{ node.gpus[0].memory_mib }} MiB, driver {{ node.driver_version }}"
  when: node.state == 'ok'
"""

RETURN = r"""
state:
  description:
    - V(ok) if nvidia-smi lists at least one GPU.
    - V(no_gpu) if there is no GPU on the PCI bus and no nvidia-smi.
    - V(no_driver) if there are GPUs on the PCI bus but no nvidia-smi.
    - V(driver_not_loaded), V(driver_mismatch), V(no_devices), V(gpu_lost), V(failed) or V(unreadable) if nvidia-smi is
      installed but cannot list the GPUs.
  returned: always
  type: str
  sample: ok
message:
  description: The problem and its remedy. Empty if there is no problem.
  returned: always
  type: str
  sample: ""
gpus:
  description: The GPUs, sorted by index. The container toolkit uses the index as the name of the GPU.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Index of the GPU.
      type: int
    name:
      description: Product name.
      type: str
    memory_mib:
      description: Total memory in MiB. Null if the driver does not report it.
      type: int
    reserved_mib:
      description: Memory in MiB that the driver reserves.
      type: int
    used_mib:
      description: Used memory in MiB.
      type: int
    architecture:
      description: Architecture, such as Hopper.
      type: str
    compute_capability:
      description: Always empty, because the XML of nvidia-smi does not contain it.
      type: str
    uuid:
      description: UUID.
      type: str
    pci_bus_id:
      description: Address on the PCI bus.
      type: str
    mig:
      description: Whether MIG mode is on.
      type: bool
    mig_pending:
      description: Whether MIG mode will be on after the next reset.
      type: bool
    fabric_state:
      description: State of the NVSwitch fabric. Empty if there is no fabric.
      type: str
    fabric_status:
      description: Result of joining the fabric.
      type: str
    lost:
      description: Whether the GPU has fallen off the bus.
      type: bool
    recovery_action:
      description: The action that the driver asks for to recover the GPU. Usually empty.
      type: str
    processes:
      description: Processes on the GPU, with C(pid), C(name), C(used_mib) and C(owner), the name of the container.
      type: list
      elements: dict
    slices:
      description:
        - The MIG devices, with C(index), C(uuid) where the driver says it, C(memory_mib), C(reserved_mib), C(used_mib)
          and C(processes).
      type: list
      elements: dict
driver_version:
  description: Version of the NVIDIA driver.
  returned: always
  type: str
  sample: 580.159.04
cuda_version:
  description: The newest CUDA version that this driver supports.
  returned: always
  type: str
  sample: "13.0"
pci_gpus:
  description: GPUs on the PCI bus, with C(address), C(device_id) and the kernel C(driver) that they are bound to.
  returned: always
  type: list
  elements: dict
nvswitches:
  description: Number of NVSwitches on the PCI bus.
  returned: always
  type: int
  sample: 0
fabric_manager:
  description: Whether Fabric Manager runs. Null if there is no NVSwitch on the PCI bus.
  returned: always
  type: bool
host_memory_mib:
  description: All memory of the node itself, which GPUs with unified memory share with it; null where it does not say.
  returned: always
  type: int
  sample: 2063952
engines:
  description:
    - The engines that the role P(gpunode.llm.vllm#role) installed on this node. Each has its C(name), its C(port), the
      first port of the numbering (C(port_base)), the names of its C(gpus) in the container toolkit, and the repository
      of its C(model), or the folder. If the engine runs, C(started_from) has a short digest of each file that it was
      started from.
  returned: always
  type: list
  elements: dict
cdi_uuids:
  description: Whether the CDI specification of the node names GPUs by UUID. Null if there is no specification yet.
  returned: always
  type: bool
system:
  description:
    - Further facts about the system that the roles of this collection need. The names are those of
      M(ansible.builtin.setup).
  returned: always
  type: dict
  sample: {"ansible_distribution": "Debian", "ansible_distribution_version": "12.11", "ansible_architecture": "x86_64"}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import gpus as node_gpus


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(**node_gpus.answer(module))


if __name__ == "__main__":
    main()
