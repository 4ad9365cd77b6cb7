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
  - Runs C(nvidia-smi -q -x) once, and reads the PCI bus, so that GPUs without a driver are seen as well.
  - Never fails for want of GPUs. What is missing or broken is in RV(state), in words in RV(message); deciding whether
    that matters is left to M(gpunode.llm.serving_plan).
seealso:
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Look at the GPUs
  gpunode.llm.gpu_info:
  register: node

- name: Show the first one
  ansible.builtin.debug:
    msg: "{{ node.gpus[0].name }}, {{ node.gpus[0].memory_mib }} MiB, driver {{ node.driver_version }}"
  when: node.state == 'ok'
"""

RETURN = r"""
state:
  description:
    - V(ok) where at least one GPU is listed.
    - V(no_gpu), no GPU on the PCI bus and no nvidia-smi. V(no_driver), GPUs on the PCI bus and no nvidia-smi.
    - V(driver_not_loaded), V(driver_mismatch), V(no_devices), V(gpu_lost), V(failed) or V(unreadable), nvidia-smi is
      there and cannot list the GPUs.
  returned: always
  type: str
  sample: ok
message:
  description: What is wrong and what to do about it, empty where all is well.
  returned: always
  type: str
  sample: ""
gpus:
  description: The GPUs in the order of their index, which is also their name for the container toolkit.
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Number of the GPU.
      type: int
    name:
      description: Product name.
      type: str
    memory_mib:
      description: All memory; null where the driver reports none.
      type: int
    reserved_mib:
      description: What the driver keeps of it.
      type: int
    used_mib:
      description: What is in use.
      type: int
    architecture:
      description: Architecture, for example Hopper.
      type: str
    compute_capability:
      description: Always empty, since nvidia-smi's XML does not hold it.
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
      description: State of the NVSwitch fabric, empty where there is none.
      type: str
    fabric_status:
      description: Result of joining the fabric.
      type: str
    lost:
      description: Whether the GPU has fallen off the bus.
      type: bool
    recovery_action:
      description: What the driver wants done to recover the GPU, mostly empty.
      type: str
    processes:
      description: Processes on the GPU, with C(pid), C(name), C(used_mib) and C(owner), the name of the container.
      type: list
      elements: dict
driver_version:
  description: Version of the NVIDIA driver.
  returned: always
  type: str
  sample: 580.159.04
cuda_version:
  description: The newest CUDA that this driver serves.
  returned: always
  type: str
  sample: "13.0"
pci_gpus:
  description: GPUs on the PCI bus, with C(address), C(device_id) and the kernel C(driver) that holds them.
  returned: always
  type: list
  elements: dict
nvswitches:
  description: How many NVSwitches are on the PCI bus.
  returned: always
  type: int
  sample: 0
fabric_manager:
  description: Whether Fabric Manager runs; null where the PCI bus shows no NVSwitch.
  returned: always
  type: bool
host_memory_mib:
  description: All memory of the node itself, which GPUs with unified memory share with it; null where it does not say.
  returned: always
  type: int
  sample: 2063952
engines:
  description:
    - The engines that the role P(gpunode.llm.vllm#role) put on this node, by their units. Each has a C(name), its
      C(port), the port that this was counted from (C(port_base)), the names of its C(gpus) for the container
      toolkit, and in C(started_from) a short digest of each file that it was started from, where it runs.
  returned: always
  type: list
  elements: dict
cdi_uuids:
  description: Whether the node's CDI specification names GPUs by UUID; null where there is none yet.
  returned: always
  type: bool
system:
  description:
    - What the roles of this collection want to know of the node's system besides, under the names of the facts that
      M(ansible.builtin.setup) gathers.
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
