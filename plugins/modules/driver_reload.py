# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: driver_reload
short_description: Load the NVIDIA driver that is installed
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
description:
  - Unloads the kernel modules of another version, and loads those for the running kernel. Services of the driver, such
    as C(nvidia-persistenced), are stopped before and started after it.
  - Fails if a program still uses the driver. The old one is then loaded, and the node must be restarted.
attributes:
  check_mode:
    description: Changes nothing, and returns whether it would.
    support: full
  diff_mode:
    description: Shows the loaded version, before and after.
    support: full
options: {}
"""

EXAMPLES = r"""
- name: Load the installed driver
  gpunode.llm.driver_reload:
"""

RETURN = r"""
before:
  description: The version that was loaded. Empty if none was.
  type: str
  returned: success
after:
  description: The version that is loaded now.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import driver as node_driver, files as node_files


def main():
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    run = module.run_command

    def now():
        return node_driver.loaded(node_files.text_of(node_driver.LOADED))["version"]

    before, wanted = now(), node_driver.on_disk(run)["version"]
    due = before != wanted
    if due and not module.check_mode:
        why = node_driver.reload(run)
        if why:
            module.fail_json(
                msg=f"The NVIDIA driver {wanted} is installed, and {before or 'none'} is loaded: {why.rstrip('.')}."
            )
    after = wanted if module.check_mode else now()
    module.exit_json(changed=due, before=before, after=after, diff={"before": f"{before}\n", "after": f"{after}\n"})


if __name__ == "__main__":
    main()
