# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: units_removed
short_description: Remove services, their files and their state in systemd
version_added: 1.0.0
description:
  - Stops and disables units, removes their files, and resets their state in systemd. One call handles any number of
    units.
  - Without the reset, a failed unit stays in C(systemctl --failed) after its file is removed.
  - Removes files in the given order. As long as the last file exists, a later run can finish an interrupted removal.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Reports which units would be stopped and which files would be removed.
    support: full
  diff_mode:
    description: Shows one line for each stopped unit and each removed path.
    support: full
options:
  units:
    description: The units.
    type: list
    elements: dict
    required: true
    suboptions:
      unit:
        description: The unit's name with its suffix. With a C(*) in it, all that systemd holds under such a name.
        type: str
        required: true
      files:
        description: The files and folders of the unit, in the order of their removal. Missing ones are skipped.
        type: list
        elements: path
        default: []
seealso:
  - module: gpunode.llm.units_current
"""

EXAMPLES = r"""
- name: Remove a service
  gpunode.llm.units_removed:
    units:
      - unit: vllm-8b.service
        files: [/etc/vllm/8b.yaml, /etc/vllm/8b.env, /etc/systemd/system/vllm-8b.service]
"""

RETURN = r"""
ended:
  description: The units that ran or had failed, and are stopped and reset now.
  type: list
  elements: str
  returned: always
  sample: [vllm-8b.service]
removed:
  description: The paths that were removed.
  type: list
  elements: str
  returned: always
  sample: [/etc/vllm/8b.yaml]
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import commands
from ..module_utils.units import unit as units_unit


class Removal:
    def __init__(self, module):
        self.module = module
        names = [unit["unit"] for unit in module.params["units"]]
        units = units_unit.parse_show(self.systemctl(*commands.show(units_unit.PROPERTIES, *names)[1:]))
        # A pattern stands for whatever systemd holds under such a name.
        shown = (
            [*units.values()]
            if any("*" in name for name in names)
            else [units[name] for name in names if name in units]
        )
        self.ends = [unit.name for unit in shown if unit.runs or unit.active == "failed"]
        self.enabled = [unit.name for unit in shown if unit.enabled and unit.load != "not-found"]
        files = [path for unit in module.params["units"] for path in unit["files"]]
        # That it had stopped to make room, noted since, goes with it.
        notes = [os.path.join(units_unit.STOOD_DOWN, name) for name in names]
        self.files = [path for path in [*notes, *files] if os.path.lexists(path)]

    def systemctl(self, *words):
        rc, out, err = self.module.run_command(["systemctl", *words])
        if rc != 0:
            self.module.fail_json(msg=f"systemctl {' '.join(words)} failed: {(err or out).strip()}")
        return out

    def run(self):
        if self.ends:
            self.systemctl("stop", *self.ends)
            # A stop that fails leaves a failed unit as well. This one fails where systemd has let go of it already.
            self.module.run_command(["systemctl", "reset-failed", *self.ends])
        if self.enabled:
            self.systemctl("disable", "--quiet", *self.enabled)
        for path in self.files:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        if self.files:
            self.systemctl("daemon-reload")


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "unit": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    if not module.params["units"]:
        module.exit_json(changed=False, ended=[], removed=[])
    removal = Removal(module)
    lines = [f"{name}: runs, or has failed\n" for name in removal.ends] + [f"{path}\n" for path in removal.files]
    if lines and not module.check_mode:
        try:
            removal.run()
        except OSError as error:
            module.fail_json(msg=f"{error.filename} could not be removed: {error.strerror}.")
    module.exit_json(
        changed=bool(lines),
        ended=removal.ends,
        removed=removal.files,
        diff={"before": "".join(lines), "after": ""},
    )


if __name__ == "__main__":
    main()
