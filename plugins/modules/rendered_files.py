# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rendered_files
short_description: Write any number of files from templates in one step
version_added: 1.0.0
description:
  - Renders templates on the controller, as M(ansible.builtin.template) does, and writes all of them in one call on the
    node. M(ansible.builtin.template) in a loop needs one call for each file.
  - A file is written under a temporary name and moved to its path after its validation has passed. So a file is never
    half written.
    When one validation fails, none of the files is written.
  - Missing folders are created with mode V(0755).
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.files
attributes:
  check_mode:
    description: Returns what would change. No file is validated, since the programs may not be installed yet.
    support: full
  diff_mode:
    description: >-
      Shows the lines that change. It shows no line of a file with O(files[].secret=true). A file with
      O(files[].template=false) is a program, and is shown as one line with its size and its hash.
    support: full
options:
  pending:
    description: The work that a change requires, noted on the node before the first file changes.
    type: dict
    aliases: [owed]
    suboptions:
      path:
        description: The file to note it in. The task that does the work removes the file.
        type: path
        required: true
      what:
        description: The line to write into the file.
        type: str
        required: true
seealso:
  - module: ansible.builtin.template
"""

EXAMPLES = r"""
- name: Write the files of every instance
  gpunode.llm.rendered_files:
    each: "{{ my_instances }}"
    item_var: instance
    files:
      - src: config.yaml.j2
        dest: /etc/my/{name}.yaml
      - src: secrets.env.j2
        dest: /etc/my/{name}.env
        secret: true
      - src: unit.service.j2
        dest: /etc/systemd/system/my-{name}.service
        validate: systemd-analyze verify --man=no %s
"""

RETURN = r"""
changed_files:
  description: The paths of the files that changed, or would change in check mode.
  type: list
  elements: str
  returned: always
  sample: [/etc/my/a.yaml]
"""


from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import files as node_files
from ..module_utils.units import files as units_files


def note(pending):
    """Note the pending work before a file changes: if the play is stopped, a later one does the work."""
    node_files.write_atomically(pending["path"], f"{pending['what']}\n")


def write(files, changed, pending):
    """Write all changed files, or none if one of them is not valid."""
    folders = {file.folder for file in changed}
    for file in files:
        if file.folder in folders:
            file.stage()
    for file in changed:
        file.check()
    if changed and pending:
        note(pending)
    for file in changed:
        file.land()


def main():
    module = AnsibleModule(
        argument_spec={
            **units_files.OPTIONS,
            "pending": {
                "type": "dict",
                "aliases": ["owed"],
                "options": {
                    "path": {"type": "path", "required": True},
                    "what": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    files = units_files.wanted(module)
    changed = [file for file in files if file.changed]
    if not module.check_mode:
        write(files, changed, module.params["pending"])
    module.exit_json(
        changed=bool(changed),
        changed_files=[file.path for file in changed],
        diff=[file.diff() for file in changed],
    )


if __name__ == "__main__":
    main()
