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
    node, which M(ansible.builtin.template) in a loop needs a call each for.
  - A file is written beside its place and moved there when its validation has passed, so there is never half a file.
    When one validation fails, none of the files is written.
  - Folders that are missing are made, with mode V(0755).
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Says what would change. Nothing is validated then, since programs may not be installed yet.
    support: full
  diff_mode:
    description: Shows the lines that change, never those of a file with O(files[].secret=true).
    support: full
options:
  files:
    description: The files to write.
    type: list
    elements: dict
    required: true
    suboptions:
      src:
        description: The template, searched for where M(ansible.builtin.template) searches.
        type: path
        required: true
      dest:
        description:
          - The absolute path on the node.
          - C({field}) stands for that field of an item of O(each); the file is then written once for each item.
        type: path
        required: true
      mode:
        description: Permissions. Default V(0600) for a secret file and V(0644) for another.
        type: str
      validate:
        description:
          - A command that checks the file before it lands, with C(%s) for its path, which ends in the name that it will
            have, and C(%d) for its folder.
          - In that folder lie all files of this call that go to the same folder, changed or not, so that one of them
            may take in another by its bare name.
          - The file is refused when the command fails, and when what the command says names the file, as
            C(systemd-analyze verify) does for a line that systemd would ignore.
        type: str
      secret:
        description: Whether neither its text nor its difference is ever shown.
        type: bool
        default: false
      template:
        description: Whether O(files[].src) is rendered. Otherwise it is written as it is.
        type: bool
        default: true
      present:
        description: Whether the file is there. With V(false) it is removed, and O(files[].src) is not read.
        type: bool
        default: true
      content:
        description: The text. The action plugin fills it in.
        type: str
  secrets:
    description: The texts of the secret files, by path. The action plugin fills it in.
    type: dict
    default: {}
  owed:
    description: What must still be done for a change, written down before the first file changes.
    type: dict
    suboptions:
      path:
        description: The file to write it into. Whoever does it removes the file.
        type: path
        required: true
      what:
        description: The one line that the file gets.
        type: str
        required: true
  each:
    description: Items to write files for.
    type: list
    elements: dict
    default: []
  item_var:
    description: The name under which a template finds its item.
    type: str
    default: item
seealso:
  - module: ansible.builtin.template
"""

EXAMPLES = r"""
- name: Write what every instance needs
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
  description: The paths of the files that changed, or would in check mode.
  type: list
  elements: str
  returned: always
  sample: [/etc/my/a.yaml]
"""

import os
import re
import shlex
import stat

from ansible.module_utils.basic import AnsibleModule


class File:
    def __init__(self, module, entry):
        self.module = module
        self.path = entry["dest"]
        self.mode = int(entry["mode"] or "0644", 8)
        self.validate = entry["validate"]
        self.present = entry["present"]
        self.secret = entry["secret"]
        content = module.params["secrets"].get(self.path) if self.secret else entry["content"]
        self.text = (content or "") if self.present else None
        self.staged = ""
        self.before, self.mode_before = self.read()

    def read(self):
        try:
            with open(self.path, encoding="utf-8", errors="replace") as stream:
                return stream.read(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        except FileNotFoundError:
            return None, None

    @property
    def folder(self):
        return os.path.dirname(self.path)

    @property
    def changed(self):
        return (self.before, self.mode_before) != (self.text, self.mode if self.present else None)

    def diff(self):
        hidden = "(a secret file: its lines are not shown)\n"
        before, after = (self.before or "", self.text or "")
        if self.secret:
            before, after = ("", hidden) if before != after else ("", "")
        shown = {"before": before, "after": after, "before_header": self.path, "after_header": self.path}
        if self.before is not None and self.present and self.mode_before != self.mode:
            shown["before_header"] += f" (mode {self.mode_before:04o})"
            shown["after_header"] += f" (mode {self.mode:04o})"
        return shown

    def stage(self):
        """Write it where it is not seen yet, under the name that it will have."""
        if not self.present:
            return
        folder = os.path.join(self.module.tmpdir, f"files-{abs(hash(self.folder))}")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.staged = os.path.join(folder, os.path.basename(self.path))
        with open(os.open(self.staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            stream.write(self.text)
        os.chmod(self.staged, self.mode)

    def check(self):
        """Let its program read it."""
        if not (self.present and self.validate):
            return
        stands_for = {"%s": self.staged, "%d": os.path.dirname(self.staged)}
        words = [re.sub("%[sd]", lambda sign: stands_for[sign[0]], word) for word in shlex.split(self.validate)]
        rc, out, err = self.module.run_command(words)
        said = (err + out).strip()
        if rc != 0 or self.staged in said:
            said = said.replace(os.path.dirname(self.staged), self.folder)
            self.module.fail_json(
                msg=f"{self.path} would not be valid, so none of the files was written: {said or f'status {rc}'}",
                changed_files=[],
            )

    def land(self):
        if not self.present:
            os.unlink(self.path)
            return
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        self.module.atomic_move(self.staged, self.path)
        # A file that was there keeps its mode when another is moved over it.
        os.chmod(self.path, self.mode)


def note(owed):
    """Write down what is due for the change before there is one: a play that is stopped after it is finished later."""
    os.makedirs(os.path.dirname(owed["path"]), mode=0o755, exist_ok=True)
    with open(owed["path"], "w", encoding="utf-8") as stream:
        stream.write(f"{owed['what']}\n")


def write(files, changed, owed):
    """All that changed, or nothing where one is not valid."""
    folders = {file.folder for file in changed}
    for file in files:
        if file.folder in folders:
            file.stage()
    for file in changed:
        file.check()
    if changed and owed:
        note(owed)
    for file in changed:
        file.land()


def main():
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "src": {"type": "path", "required": True},
                    "dest": {"type": "path", "required": True},
                    "mode": {"type": "str"},
                    "validate": {"type": "str"},
                    "secret": {"type": "bool", "default": False, "no_log": False},
                    "template": {"type": "bool", "default": True},
                    "present": {"type": "bool", "default": True},
                    "content": {"type": "str"},
                },
            },
            # Not among the files' own options: of a nested option that is not to be logged, the text still reaches the
            # node's journal, which holds it with its line breaks escaped, where nothing finds it to blot it out.
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "owed": {
                "type": "dict",
                "options": {
                    "path": {"type": "path", "required": True},
                    "what": {"type": "str", "required": True},
                },
            },
            "each": {"type": "list", "elements": "dict", "default": []},
            "item_var": {"type": "str", "default": "item"},
        },
        supports_check_mode=True,
    )
    files = [File(module, entry) for entry in module.params["files"]]
    changed = [file for file in files if file.changed]
    if not module.check_mode:
        write(files, changed, module.params["owed"])
    module.exit_json(
        changed=bool(changed),
        changed_files=[file.path for file in changed],
        diff=[file.diff() for file in changed],
    )


if __name__ == "__main__":
    main()
