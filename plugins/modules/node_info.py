# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: Collect the state of a node at the start of a play
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
description:
  - Locks the node for a run, returns the result of M(gpunode.llm.gpu_info), and answers the last questions of
    M(gpunode.llm.preflight_check) and M(gpunode.llm.units_settled) again. If these modules ask the same questions in
    this play, they use the answers and make no call on the node.
options:
  lock:
    description:
      - The run that locks the node, as for M(gpunode.llm.node_lock). If another run holds the lock, the module returns
        only RV(lock).
    type: dict
  nonce:
    description: A random text of this play, which seals the digests. If not set, RV(answers) is empty.
    type: str
seealso:
  - module: gpunode.llm.gpu_info
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Collect the state of the node
  gpunode.llm.node_info:
  register: node
"""

RETURN = r"""
lock:
  description: The holder of the lock, as M(gpunode.llm.node_lock) returns it.
  returned: if O(lock) is set
  type: dict
answers:
  description:
    - The last question of each module, by the name of the module. Each has the sealed C(digest) of the question and the
      current C(answer). A question is missing if no module asked it since the node's start, or if the node alone
      cannot answer it.
  returned: unless another run holds the lock
  type: dict
gpus:
  description: The GPUs. This key and the others are those of M(gpunode.llm.gpu_info).
  returned: unless another run holds the lock
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import first as node_first


def main() -> None:
    module = AnsibleModule(argument_spec=node_first.OPTIONS, supports_check_mode=True)
    module.exit_json(**node_first.answer(module))


if __name__ == "__main__":
    main()
