# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_lock
short_description: Have a node for one play alone
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
description:
  - Takes the node for this run of C(ansible-playbook), all of whose plays share it, so that no second one changes the
    node meanwhile. M(gpunode.llm.serving_plan) does the same in a call that it makes anyway.
  - Another play that has the node is waited for, or ends this one with a message that says whose it is and since when.
  - The lock ends with C(ansible-playbook), in whatever way that ends. A process beside it on the controller renews it
    every 10 s over the play's own connection; one that is not renewed for 60 s, since the whole controller is gone, is
    void. A node that was restarted is free.
  - It is the folder C(/run/gpunode/play) on the node, which takes root.
options:
  timeout_s:
    description:
      - How many seconds to wait for another play that has the node. With V(0) this one ends as soon as the other was
        seen to be alive, which takes little more than 10 s.
    type: float
    default: 0
  lock:
    description: Who takes it. The action plugin sets this.
    type: dict
attributes:
  action:
    description: Waits on the controller, and begins there the process that renews the lock.
    support: full
  check_mode:
    description: Takes nothing, since nothing is going to change.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
seealso:
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Have the node alone, and wait up to ten minutes for it
  gpunode.llm.node_lock:
    timeout_s: 600
"""

RETURN = r"""
lock:
  description: Who has the node now.
  returned: success, except in check mode
  type: dict
  contains:
    id:
      description: The run of C(ansible-playbook).
      type: str
    who:
      description: The user and the controller.
      type: str
    play:
      description: The playbook.
      type: str
    job:
      description: The job of AWX, empty where there is none.
      type: str
    since:
      description: The node's time when it was taken.
      type: str
    beat:
      description: The node's uptime in seconds at the last sign of life.
      type: str
    mine:
      description: Whether it is this run.
      type: bool
    new:
      description: Whether this call took it.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import lock as node_lock


def main():
    module = AnsibleModule(
        argument_spec={"timeout_s": {"type": "float", "default": 0}, "lock": {"type": "dict"}},
        supports_check_mode=True,
    )
    lock = module.params["lock"]
    module.exit_json(changed=False, **(node_lock.taken(module, lock) if lock else {}))


if __name__ == "__main__":
    main()
