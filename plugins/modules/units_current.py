# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: units_current
short_description: Make sure that services run, enabled, from the files that are on disk
version_added: 1.0.0
description:
  - Enables and starts units that do not run, and restarts those that were started from other files than are on disk
    now. Any number of units takes one call.
  - Whether a restart is due is not a matter of what this play changed. A unit puts aside at its start
    what it starts from, and this is compared with the files. So a play that was stopped half-way is finished by the
    next one, and a service never restarts when nothing differs.
  - Returns when systemd has accepted the work, not when the service is ready. See M(gpunode.llm.endpoint_ready). For
    units with O(units[].reloads) it returns when systemd has done the work.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Says which units would be started or restarted.
    support: full
  diff_mode:
    description: Shows the action for each unit, with its reason.
    support: full
options:
  units:
    description: The units.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The unit's name with its suffix.
        type: str
        required: true
      files:
        description: The files that it starts from.
        type: list
        elements: path
        default: []
      started_from:
        description: The folder that holds them as they were at its start, each under its whole path.
        type: path
        required: true
      container:
        description: The name of the Docker container that it runs.
        type: str
      image:
        description:
          - The image of that container. When the name stands for another image by now, a restart is due.
        type: str
      reloads:
        description:
          - Whether the service takes up its files when it is told to reload, all but the unit itself, which must come
            first in O(units[].files). Its reload has to put the files aside as its start does.
          - Such a service is reloaded as well when its program was replaced, as an update of a package does.
        type: bool
        default: false
  would_change:
    description:
      - Files that this play would have changed, if it were not in check mode. This makes check mode exact.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Run what is on disk
  gpunode.llm.units_current:
    units:
      - name: vllm-8b.service
        files: [/etc/vllm/8b.yaml, /etc/vllm/8b.env, /etc/systemd/system/vllm-8b.service]
        started_from: /run/vllm-8b/started-from
"""

RETURN = r"""
units:
  description: What was done, for each unit.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The unit's name.
      type: str
    action:
      description: One of V(none), V(start), V(restart) and V(reload).
      type: str
    why:
      description: The reason.
      type: str
"""

import hashlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpunode.llm.plugins.module_utils import _units


def checksum(path):
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return None


class Units:
    def __init__(self, module):
        self.module = module
        self.wanted = module.params["units"]
        self.shown = self.show()

    def systemctl(self, *words):
        rc, out, err = self.module.run_command(["systemctl", *words])
        if rc != 0:
            self.module.fail_json(msg=f"systemctl {' '.join(words)} failed: {(err or out).strip()}", units=[])
        return out

    def show(self):
        names = [unit["name"] for unit in self.wanted]
        found = _units.parse_show(self.systemctl("show", f"--property={','.join(_units.PROPERTIES)}", *names))
        return {name: found.get(name, _units.Shown(name)) for name in names}

    def changed_file(self, unit):
        for path in unit["files"]:
            if path in self.module.params["would_change"]:
                return path
        return _units.stale_file(unit["started_from"], unit["files"], checksum)

    def moved(self, unit):
        """What a unit runs that is not what its name stands for by now."""
        if unit["reloads"]:
            return "its program was replaced" if self.program_replaced(unit) else ""
        return "its image's name stands for another image now" if self.image_moved(unit) else ""

    def program_replaced(self, unit):
        try:
            return os.readlink(f"/proc/{self.shown[unit['name']].pid}/exe").endswith(" (deleted)")
        except OSError:
            return False

    def image_moved(self, unit):
        docker = self.module.get_bin_path("docker")
        if not (docker and unit["container"] and unit["image"]):
            return False
        running = self.ask([docker, "container", "inspect", "--format={{.Image}}", unit["container"]])
        named = self.ask([docker, "image", "inspect", "--format={{.Id}}", unit["image"]])
        return bool(running and named and running != named)

    def ask(self, command):
        rc, out, _err = self.module.run_command(command)
        return out.strip() if rc == 0 else ""

    def decide(self, unit):
        shown = self.shown[unit["name"]]
        changed = self.changed_file(unit) if shown.runs else ""
        moved = self.moved(unit) if shown.runs and not changed else ""
        return _units.decide(shown, changed, moved, unit["reloads"])

    def apply(self, decisions, to_enable):
        if any(shown.needs_reload or shown.load == "not-found" for shown in self.shown.values()):
            self.systemctl("daemon-reload")
        if to_enable:
            self.systemctl("enable", "--quiet", *to_enable)
        self.reload([decision.name for decision in decisions if decision.action == "reload"])
        quick = {unit["name"] for unit in self.wanted if unit["reloads"]}
        due = [decision.name for decision in decisions if decision.action in ("start", "restart")]
        self.restart([name for name in due if name in quick])
        self.restart([name for name in due if name not in quick], "--no-block")

    def reload(self, names):
        if names:
            self.systemctl("reload", *names)

    def restart(self, due, *options):
        if due:
            # systemd limits how often a unit may start, to end crash loops. Starts that people ask for count too, so
            # the fifth deploy of an hour would be refused, with the unit stopped. This begins the count anew; it fails
            # for a unit that systemd does not hold in memory, which has no count either.
            self.module.run_command(["systemctl", "reset-failed", *due])
            self.systemctl("restart", *options, *due)


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "default": []},
                    "started_from": {"type": "path", "required": True},
                    "container": {"type": "str"},
                    "image": {"type": "str"},
                    "reloads": {"type": "bool", "default": False},
                },
            },
            "would_change": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    if not module.params["units"]:
        module.exit_json(changed=False, units=[])
    units = Units(module)
    decisions = [units.decide(unit) for unit in units.wanted]
    to_enable = [name for name, shown in units.shown.items() if not shown.enabled]
    if not module.check_mode:
        units.apply(decisions, to_enable)
    due = [decision for decision in decisions if decision.action != "none"]
    lines = [f"{decision.name}: {decision.action}, {decision.why}\n" for decision in due]
    lines += [f"{name}: enable\n" for name in to_enable]
    module.exit_json(
        changed=bool(lines),
        units=[{"name": one.name, "action": one.action, "why": one.why} for one in decisions],
        diff={"before": "", "after": "".join(lines)},
    )


if __name__ == "__main__":
    main()
