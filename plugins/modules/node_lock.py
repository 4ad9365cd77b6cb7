# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_lock
short_description: Lock a node for one run of ansible-playbook
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
description:
  - Locks the node for this run of C(ansible-playbook), so that no second run changes the node at the same time. All
    plays of the run share the lock. M(gpunode.llm.serving_plan) also takes the lock, without an additional call.
  - If another run holds the lock, the module waits for up to O(timeout_s) seconds. Then it fails, with a message that
    names the holder and the time since when it holds the lock.
  - The lock ends when C(ansible-playbook) ends for any reason. A second process on the controller renews it every 10 s
    over the connection of the play. A lock that is not renewed for 60 s is void, for example after the controller
    failed. A restart of the node removes the lock.
  - The lock is the folder C(/run/gpunode/play) on the node. The module needs root.
options:
  timeout_s:
    description:
      - How long to wait for another run that holds the lock, in seconds. With V(0) the module fails as soon as it knows
        that the other run is alive, which takes little more than 10 s.
    type: float
    default: 0
  lock:
    description: The run that takes the lock. The action plugin sets this.
    type: dict
attributes:
  action:
    description: Waits on the controller, and starts there the process that renews the lock.
    support: full
  check_mode:
    description: Takes no lock, because check mode changes nothing on the node.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
seealso:
  - module: gpunode.llm.serving_plan
"""

EXAMPLES = r"""
- name: Lock the node, and wait up to ten minutes for another run
  gpunode.llm.node_lock:
    timeout_s: 600
"""

RETURN = r"""
lock:
  description: The holder of the lock.
  returned: success, except in check mode
  type: dict
  contains:
    id:
      description: The identifier of the run of C(ansible-playbook).
      type: str
    who:
      description: The user and the controller of the run.
      type: str
    play:
      description: The playbook of the run.
      type: str
    job:
      description: The job of AWX. Empty if AWX did not start the run.
      type: str
    since:
      description: The time at which the run took the lock, by the node's clock, in UTC.
      type: str
    beat:
      description: The node's uptime in seconds at the last renewal.
      type: str
    mine:
      description: Whether this run holds the lock.
      type: bool
    new:
      description: Whether this call took the lock.
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
