# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_rollback
short_description: Take instances that do not answer back to what they last answered from
version_added: 1.0.0
description:
  - A unit of the role P(gpunode.llm.vllm#role) keeps what it was started from, once it has answered. Files and images
    that differ from that are taken back to it, and what does not run is started again.
  - A unit that runs is not restarted, and one that has never answered is left alone.
  - Returns when systemd has accepted the work. Hand RV(endpoints) to M(gpunode.llm.endpoint_ready).
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Says which units would be taken back.
    support: full
  diff_mode:
    description: Shows the files of each.
    support: full
options:
  units:
    description: The units, by their names with the suffix.
    type: list
    elements: str
    required: true
  kept_dir:
    description: The folder in which units keep what they answered from.
    type: path
    default: /var/lib/gpunode/vllm
  docker:
    description: Docker's client.
    type: path
    default: /usr/bin/docker
seealso:
  - module: gpunode.llm.units_current
"""

EXAMPLES = r"""
- name: Take back what does not answer
  gpunode.llm.vllm_rollback:
    units: [vllm-8b.service]
  register: back

- name: Wait until it answers again
  gpunode.llm.endpoint_ready:
    endpoints: "{{ back.endpoints }}"
"""

RETURN = r"""
rolled_back:
  description: What was taken back.
  type: list
  elements: dict
  returned: always
  contains:
    unit:
      description: The unit.
      type: str
    differed:
      description: Its files, and the image's name, that were not what it had last answered from.
      type: list
      elements: str
endpoints:
  description: Where those units answer, as M(gpunode.llm.endpoint_ready) takes it.
  type: list
  elements: dict
  returned: always
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpunode.llm.plugins.module_utils import _rollback, _units


class Rollback:
    def __init__(self, module):
        self.module = module

    def run(self, *command):
        rc, out, err = self.module.run_command(list(command))
        if rc != 0:
            self.module.fail_json(
                msg=f"{' '.join(command)} failed: {(err or out).strip()}", rolled_back=[], endpoints=[]
            )
        return out.strip()

    def running(self, units):
        """A unit of ours that is active has answered."""
        told = self.run("systemctl", "show", f"--property={','.join(_units.PROPERTIES)}", *units)
        return {name for name, shown in _units.parse_show(told).items() if shown.active == "active"}

    def kept(self, unit):
        name = unit[len("vllm-") : -len(".service")]
        try:
            return _rollback.read_kept(os.path.join(self.module.params["kept_dir"], name), unit)
        except (OSError, ValueError):
            return None

    def image_moved(self, kept):
        rc, out, _err = self.module.run_command(
            [self.module.params["docker"], "image", "inspect", "--format={{.Id}}", kept.image]
        )
        return bool(kept.image_id) and (rc != 0 or out.strip() != kept.image_id)

    def restore(self, kept, paths, image_moved):
        if image_moved:
            # First: where the image is gone there is nothing to go back to, and the files stay as they are.
            self.run(self.module.params["docker"], "tag", kept.image_id, kept.image)
        for path in paths:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            temporary = f"{path}.kept"
            shutil.copy2(kept.files[path], temporary)
            os.replace(temporary, path)

    def start(self, units):
        self.run("systemctl", "daemon-reload")
        running = self.running(units)
        stopped = [unit for unit in units if unit not in running]
        if stopped:
            self.run("systemctl", "reset-failed", *stopped)
            self.run("systemctl", "restart", "--no-block", *stopped)


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "kept_dir": {"type": "path", "default": "/var/lib/gpunode/vllm"},
            "docker": {"type": "path", "default": "/usr/bin/docker"},
        },
        supports_check_mode=True,
    )
    rollback = Rollback(module)
    rows, endpoints = [], []
    for unit in module.params["units"]:
        kept = rollback.kept(unit)
        if kept is None:
            continue
        paths, image_moved = kept.differing(module.sha256), rollback.image_moved(kept)
        if not paths and not image_moved:
            continue
        rows.append({"unit": unit, "differed": [*paths, *([kept.image] if image_moved else [])]})
        endpoints.append(kept.endpoint)
        if not module.check_mode:
            rollback.restore(kept, paths, image_moved)
    if rows and not module.check_mode:
        rollback.start([row["unit"] for row in rows])
    told = "".join(f"{row['unit']}: {path}\n" for row in rows for path in row["differed"])
    module.exit_json(
        changed=bool(rows),
        rolled_back=rows,
        endpoints=endpoints,
        diff={"before": told, "after": told and "as it was kept\n"},
    )


if __name__ == "__main__":
    main()
