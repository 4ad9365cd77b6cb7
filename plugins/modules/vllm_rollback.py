# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_rollback
short_description: Restore the last working files and image of instances that do not answer
version_added: 1.0.0
description:
  - When a unit of the role P(gpunode.llm.vllm#role) answers, it keeps a copy of the files that it was started from. The
    module restores the files and the image if they differ from this copy, and starts units that do not run.
  - The module does not restart a unit that runs, such as one whose new configuration was refused before it was stopped.
    It does not touch a unit that has never answered, unless that unit replaced others.
  - Returns when systemd has accepted the jobs. Pass RV(endpoints) to M(gpunode.llm.endpoint_ready) to wait for them.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Reports which units would be restored.
    support: full
  diff_mode:
    description: Shows the restored files of each unit.
    support: full
options:
  units:
    description: The units, by their names with the suffix.
    type: list
    elements: str
    required: true
  kept_dir:
    description: The folder in which units keep the copies of their last working files.
    type: path
    default: /var/lib/gpunode/vllm
  docker:
    description: The path of the docker command.
    type: path
    default: /usr/bin/docker
  replaced:
    description:
      - Units that O(units) had to replace. Those that were stopped to make room are started again. Before that, the
        module stops and disables O(newcomers) and those of O(units) that have never answered. Their files stay.
    type: list
    elements: str
    default: []
  newcomers:
    description: Units that did not exist before the change.
    type: list
    elements: str
    default: []
seealso:
  - module: gpunode.llm.units_current
"""

EXAMPLES = r"""
- name: Restore units that do not answer
  gpunode.llm.vllm_rollback:
    units: [vllm-8b.service]
  register: back

- name: Wait until it answers again
  gpunode.llm.endpoint_ready:
    endpoints: "{{ back.endpoints }}"
"""

RETURN = r"""
rolled_back:
  description: The restored units.
  type: list
  elements: dict
  returned: always
  contains:
    unit:
      description: The unit.
      type: str
    differed:
      description: The restored files, and the name of the image if it was restored.
      type: list
      elements: str
    ran:
      description: Whether the unit ran, so that it was not started.
      type: bool
brought_back:
  description: The units that were stopped to make room, and that this call started again.
  type: list
  elements: str
  returned: always
endpoints:
  description: The endpoints of the units that this call started, as M(gpunode.llm.endpoint_ready) takes them.
  type: list
  elements: dict
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import kept as instance_kept, known, names
from ..module_utils.node import commands, files as node_files
from ..module_utils.units import unit as units_unit

UNIT_DIR = names.UNIT_DIR


def stop_note(unit):
    return os.path.join(units_unit.STOOD_DOWN, unit)


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
        """The active units. A unit of the role vllm is active only after it has answered."""
        shown = self.run(*commands.show(units_unit.PROPERTIES, *units)) if units else ""
        return {name for name, unit in units_unit.parse_show(shown).items() if unit.active == "active"}

    def kept(self, unit):
        try:
            return instance_kept.read_kept(os.path.join(self.module.params["kept_dir"], names.name_of(unit)), unit)
        except (OSError, ValueError):
            return None

    def image_moved(self, kept):
        docker = self.module.params["docker"]
        named = commands.inspected(self.module.run_command, docker, "image", "{{.Id}}", kept.record.image)
        return bool(kept.image_id) and named != kept.image_id

    def restore(self, kept, paths, image_moved):
        if image_moved:
            # The image comes first: if it is gone, this fails and the files stay unchanged.
            self.run(self.module.params["docker"], "tag", kept.image_id, kept.record.image)
        for path in paths:
            node_files.copy_atomically(kept.files[path], path)
        # The record must match the restored files.
        node_files.write_atomically(kept.record.files.record, kept.record.text())

    def stood_down(self):
        """The instances that were stopped to make room and still exist."""
        here = known.by_unit(known.instances((UNIT_DIR,)))
        noted = [unit for unit in self.module.params["replaced"] if os.path.exists(stop_note(unit))]
        return [here[unit] for unit in noted if unit in here]

    def give_way(self, units):
        """Stop and disable the units that replaced them: they would start again at the next boot."""
        never = [unit for unit in units if self.kept(unit) is None]
        going = sorted({*never, *self.module.params["newcomers"]})
        if going:
            self.run("systemctl", "stop", *going)
            self.module.run_command(["systemctl", "reset-failed", *going])
            self.run("systemctl", "disable", "--quiet", *going)

    def start(self, stopped):
        self.run("systemctl", "daemon-reload")
        if stopped:
            # This fails for a unit that systemd has not loaded. Such a unit has no start counter to reset.
            self.module.run_command(["systemctl", "reset-failed", *stopped])
            self.run("systemctl", "restart", "--no-block", *stopped)


def restore_units(rollback, units, running):
    """Restore the units. Returns the differences of each unit, and the endpoints of those that do not run."""
    rows, endpoints = [], []
    for unit in units:
        kept = rollback.kept(unit)
        if kept is None:
            continue
        paths, image_moved = kept.differing(rollback.module.sha256), rollback.image_moved(kept)
        if not paths and not image_moved:
            continue
        differed = [*paths, *([kept.record.image] if image_moved else [])]
        rows.append({"unit": unit, "differed": differed, "ran": unit in running})
        endpoints += [] if unit in running else [kept.record.endpoint]
        if not rollback.module.check_mode:
            rollback.restore(kept, paths, image_moved)
    return rows, endpoints


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "kept_dir": {"type": "path", "default": names.KEPT_DIR},
            "replaced": {"type": "list", "elements": "str", "default": []},
            "newcomers": {"type": "list", "elements": "str", "default": []},
            "docker": {"type": "path", "default": "/usr/bin/docker"},
        },
        supports_check_mode=True,
    )
    rollback = Rollback(module)
    noted = rollback.stood_down()
    back = [record.unit for record in noted]
    running = rollback.running([*module.params["units"], *back])
    rows, endpoints = restore_units(rollback, module.params["units"], running)
    endpoints += [record.endpoint for record in noted]
    if not module.check_mode:
        if back:
            rollback.give_way(module.params["units"])
        if rows or back:
            rollback.start([unit for unit in (*(row["unit"] for row in rows), *back) if unit not in running])
        for unit in back:
            os.unlink(stop_note(unit))
    before = "".join(f"{row['unit']}: {path}\n" for row in rows for path in row["differed"])
    before += "".join(f"{unit}: stopped\n" for unit in back)
    module.exit_json(
        changed=bool(rows or back),
        rolled_back=rows,
        brought_back=back,
        endpoints=endpoints,
        diff={"before": before, "after": before and "as it was kept\n"},
    )


if __name__ == "__main__":
    main()
