# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_room_info
short_description: Find free GPUs or memory for a second engine of an instance
version_added: 1.0.0
description:
  - Lists the instances that can run a second engine while the first is restarted. The second engine needs GPUs that no
    instance owns and no process uses. On the CPU it needs 1.5 times the memory that the running engine holds.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  instances:
    description:
      - All instances of the node, as P(gpunode.llm.serving_plan#module) returns them. The module reads C(name),
        C(port), C(gpu_indices) and C(config) of each.
    type: list
    elements: dict
    required: true
  restarted:
    description: The names of the units to restart, with their suffix.
    type: list
    elements: str
    required: true
  docker:
    description: The path of the Docker client.
    type: path
    default: /usr/bin/docker
seealso:
  - module: gpunode.llm.units_current
"""

EXAMPLES = r"""
- name: Find room for a second engine
  gpunode.llm.vllm_room_info:
    instances: "{{ plan.instances }}"
    restarted: [vllm-8b.service]
  register: room
"""

RETURN = r"""
rooms:
  description: One element for each instance that can run a second engine.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The instance's name.
      type: str
    port:
      description: A free port on 127.0.0.1.
      type: int
    gpu_indices:
      description: The indices of free GPUs, as many as the instance has.
      type: list
      elements: int
    gpu_uuids:
      description: The UUIDs of the same GPUs.
      type: list
      elements: str
"""

import glob
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import known, spare
from ..module_utils.node import commands, files as node_files, network
from ..module_utils.programs import gpu as programs_gpu


class Node:
    def __init__(self, module):
        self.module = module

    def gpus(self):
        tool = self.module.get_bin_path("nvidia-smi")
        return programs_gpu.look(programs_gpu.nvidia_smi(self.module.run_command, tool), programs_gpu.scan_pci())

    def held_bytes(self, container):
        """The bytes of memory that the processes of a container hold."""
        docker = self.module.params["docker"]
        held_by = commands.inspected(self.module.run_command, docker, "container", "{{.Id}}", container)
        processes = glob.glob("/proc/[0-9]*")
        texts = (
            tuple(node_files.text_of(f"{process}/{name}") for name in ("cgroup", "status")) for process in processes
        )
        return spare.held_bytes(held_by, texts)


def main():
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "required": True},
            "restarted": {"type": "list", "elements": "str", "required": True},
            "docker": {"type": "path", "default": "/usr/bin/docker"},
        },
        supports_check_mode=True,
    )
    node, instances, wants = Node(module), module.params["instances"], []
    for instance in instances:
        unit = f"vllm-{instance['name']}"
        if f"{unit}.service" in module.params["restarted"]:
            held = None if instance.get("gpu_indices") else node.held_bytes(unit)
            wants.append(spare.want(instance, held))
    seen = node.gpus()
    taken = [index for instance in instances for index in instance.get("gpu_indices") or []]
    # An instance that is stopped or no longer listed still owns its GPUs.
    owned = (programs_gpu.named(seen, name) for record in known.instances() for name in record.gpus)
    taken += [gpu.index for gpu in owned if gpu]
    own = {int(instance["port"]) for instance in instances}
    rooms = spare.find(
        wants,
        taken,
        seen,
        spare.available_bytes(node_files.text_of("/proc/meminfo")),
        lambda port: port not in own and network.port_is_free("127.0.0.1", port),
    )
    module.exit_json(changed=False, rooms=[asdict(room) for room in rooms])


if __name__ == "__main__":
    main()
