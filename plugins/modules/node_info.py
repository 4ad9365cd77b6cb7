# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: Ask a node the first question of a play
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
description:
  - Takes the node for a play, says what M(gpunode.llm.gpu_info) says, and answers once more what
    M(gpunode.llm.preflight_check) and M(gpunode.llm.units_settled) asked last. Where they are to ask the same again in
    this play, they have their answer and no call of their own.
options:
  lock:
    description:
      - Take the node for a play, as M(gpunode.llm.node_lock) does. Where another play has it, only that is reported.
    type: dict
  nonce:
    description: A random text of this play, under which digests are sealed. Without one, RV(answers) is empty.
    type: str
seealso:
  - module: gpunode.llm.gpu_info
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Ask the node
  gpunode.llm.node_info:
  register: node
"""

RETURN = r"""
lock:
  description: Who has the node now, as M(gpunode.llm.node_lock) returns it.
  returned: where O(lock) is set
  type: dict
answers:
  description:
    - What was asked last, by the name of the module, each with the sealed C(digest) of the question and the C(answer)
      to it now. A question that nobody asked since the node's start, or that others than the node must be asked for, is
      missing.
  returned: where the node is this play's
  type: dict
gpus:
  description: This and the rest is what M(gpunode.llm.gpu_info) returns.
  returned: where the node is this play's
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
