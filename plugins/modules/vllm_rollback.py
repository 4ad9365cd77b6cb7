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
  - A unit that runs is not restarted, and one that has never answered is left alone, unless it took the place of
    others.
  - Returns when systemd has accepted the work. Hand RV(endpoints) to M(gpunode.llm.endpoint_ready).
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
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
  replaced:
    description:
      - Units that O(units) were to replace. Those that were stopped to make room are started again; before that
        O(newcomers), and whatever else of O(units) has never answered, are stopped and disabled. Their files stay.
    type: list
    elements: str
    default: []
  newcomers:
    description: Units that were not there before the change.
    type: list
    elements: str
    default: []
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
brought_back:
  description: The units that had been stopped to make room, and are started again.
  type: list
  elements: str
  returned: always
endpoints:
  description: Where those units answer, as M(gpunode.llm.endpoint_ready) takes it.
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


def note_of(unit):
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
        """A unit of ours that is active has answered."""
        told = self.run(*commands.show(units_unit.PROPERTIES, *units))
        return {name for name, shown in units_unit.parse_show(told).items() if shown.active == "active"}

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
            # First: where the image is gone there is nothing to go back to, and the files stay as they are.
            self.run(self.module.params["docker"], "tag", kept.image_id, kept.record.image)
        for path in paths:
            node_files.copy_atomically(kept.files[path], path)
        # The record goes back with what it tells of.
        node_files.write_atomically(kept.record.files.record, kept.record.text())

    def stood_down(self):
        """Those that made room, and are there to come back."""
        here = known.by_unit(known.instances((UNIT_DIR,)))
        noted = [unit for unit in self.module.params["replaced"] if os.path.exists(note_of(unit))]
        return [here[unit] for unit in noted if unit in here]

    def give_way(self, units):
        """End what took their place: it would come again with the next boot."""
        never = [unit for unit in units if self.kept(unit) is None]
        going = sorted({*never, *self.module.params["newcomers"]})
        if going:
            self.run("systemctl", "stop", *going)
            self.module.run_command(["systemctl", "reset-failed", *going])
            self.run("systemctl", "disable", "--quiet", *going)

    def start(self, units):
        self.run("systemctl", "daemon-reload")
        running = self.running(units)
        stopped = [unit for unit in units if unit not in running]
        if stopped:
            # It fails for a unit that systemd does not hold in memory, which has no count of starts either.
            self.module.run_command(["systemctl", "reset-failed", *stopped])
            self.run("systemctl", "restart", "--no-block", *stopped)


def taken_back(rollback, units):
    """What differed, by unit, and where those answer."""
    rows, endpoints = [], []
    for unit in units:
        kept = rollback.kept(unit)
        if kept is None:
            continue
        paths, image_moved = kept.differing(rollback.module.sha256), rollback.image_moved(kept)
        if not paths and not image_moved:
            continue
        rows.append({"unit": unit, "differed": [*paths, *([kept.record.image] if image_moved else [])]})
        endpoints.append(kept.record.endpoint)
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
    back = rollback.stood_down()
    rows, endpoints = taken_back(rollback, module.params["units"])
    endpoints += [one.endpoint for one in back]
    back = [one.unit for one in back]
    if not module.check_mode:
        if back:
            rollback.give_way(module.params["units"])
        if rows or back:
            rollback.start([*(row["unit"] for row in rows), *back])
        for unit in back:
            os.unlink(note_of(unit))
    told = "".join(f"{row['unit']}: {path}\n" for row in rows for path in row["differed"])
    told += "".join(f"{unit}: stopped\n" for unit in back)
    module.exit_json(
        changed=bool(rows or back),
        rolled_back=rows,
        brought_back=back,
        endpoints=endpoints,
        diff={"before": told, "after": told and "as it was kept\n"},
    )


if __name__ == "__main__":
    main()
