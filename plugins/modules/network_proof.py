# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: network_proof
short_description: Measure the network between the nodes of one engine
version_added: 1.0.0
description:
  - Runs an all-reduce over all nodes of the engine, in the engine's own image and over the interface and the adapters
    that the engine will use, with NCCL on GPUs and with Gloo without. Fails if the nodes do not reach each other, or if
    the network is slower than the floor.
  - All nodes must run it at the same time. With O(step=start) a call starts it and returns, with O(step=end) another
    call waits for its end. Between the two, the play starts it on all nodes.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Starts nothing.
    support: full
  diff_mode:
    description: The module changes nothing that a diff could show.
    support: none
options:
  step:
    description: Whether to start the all-reduce on this node, or to wait for its end.
    type: str
    choices: [start, end]
    required: true
  name:
    description: The name of the engine, for messages.
    type: str
    required: true
  proof:
    description:
      - C(image), C(head) (the address of rank 0), C(port), C(rank), C(size), C(address) (of this node), C(interface),
        C(hcas) (the RDMA adapters), C(gpu) (the name of a GPU for the container toolkit, if there is one), and C(key),
        which stands for this network.
    type: dict
    required: true
  floor_gbit_s:
    description: The slowest network to accept, in Gbit/s.
    type: float
    default: 1
  docker:
    description: Docker's client.
    type: path
    default: /usr/bin/docker
"""

EXAMPLES = r"""
- name: Start to measure the network
  gpunode.llm.network_proof:
    step: start
    name: 405b
    proof: "{{ proof }}"
"""

RETURN = r"""
gbit_s:
  description: The bandwidth in Gbit/s, each way.
  type: float
  returned: with O(step=end)
backend:
  description: What was measured with, V(nccl) or V(gloo).
  type: str
  returned: with O(step=end)
said:
  description: The result in a sentence.
  type: str
  returned: with O(step=end), not in check mode
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.image import all_reduce, link_proof
from ..module_utils.units import job as units_job


def start(module):
    proof, docker = module.params["proof"], module.params["docker"]
    # What a play that was stopped may have left behind.
    units_job.forget(module.run_command, link_proof.UNIT)
    module.run_command([docker, "rm", "--force", link_proof.UNIT])
    try:
        units_job.start_or_attach(module.run_command, link_proof.job(docker, proof))
    except units_job.JobError as trouble:
        module.fail_json(msg=str(trouble))
    module.exit_json(changed=False)


def end(module):
    proof = module.params["proof"]
    run = module.run_command
    state = units_job.wait(run, link_proof.UNIT, all_reduce.TIMEOUT_S * 2)
    lines = units_job.log_tail(run, link_proof.UNIT, state.invocation)
    units_job.forget(run, link_proof.UNIT)
    answer = link_proof.answer_of(lines)
    trouble = link_proof.trouble(proof, module.params["name"], module.params["floor_gbit_s"], answer, lines)
    if trouble:
        module.fail_json(msg=trouble, **(answer or {}))
    link_proof.remember(proof["key"], answer)
    module.exit_json(changed=False, said=link_proof.praise(proof, module.params["name"], answer), **answer)


def main():
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["start", "end"], "required": True},
            "name": {"type": "str", "required": True},
            "proof": {"type": "dict", "required": True},
            "floor_gbit_s": {"type": "float", "default": 1},
            "docker": {"type": "path", "default": "/usr/bin/docker"},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, gbit_s=0.0, backend="")
    if module.params["step"] == "start":
        start(module)
    end(module)


if __name__ == "__main__":
    main()
