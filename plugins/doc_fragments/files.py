# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options for files that the action plugin renders on the controller."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  files:
    description: The files to manage.
    type: list
    elements: dict
    required: true
    suboptions:
      src:
        description: The template. The search path is that of M(ansible.builtin.template).
        type: path
        required: true
      dest:
        description:
          - The absolute path on the node.
          - C({field}) stands for that field of an item of O(each). The module then writes one file for each item.
        type: path
        required: true
      of:
        description: The C(name) of the item of O(each) that the file belongs to, if O(files[].dest) has no field.
        type: str
      mode:
        description: The permissions. The default is V(0600) for a secret file and V(0644) for all others.
        type: str
      validate:
        description:
          - A command that checks the file before the module puts it in place. C(%s) stands for the path of a temporary
            copy with the final file name, and C(%d) for the folder of that copy.
          - The folder also holds all other files of this call with the same target folder, changed or not. So one file
            can include another by its bare name.
          - The module refuses the file if the command fails, or if the output of the command names the file. The
            command C(systemd-analyze verify) names a file in its output for a line that systemd would ignore.
        type: str
      secret:
        description: Whether the file is secret. The module never shows the text or the diff of a secret file.
        type: bool
        default: false
      template:
        description: Whether to render O(files[].src) as a template. Otherwise the module copies it unchanged.
        type: bool
        default: true
      present:
        description: Whether the file must exist. With V(false) the file must not exist, and O(files[].src) is not read.
        type: bool
        default: true
      content:
        description: The text of the file. The action plugin sets it.
        type: str
  secrets:
    description: The texts of the secret files, by path. The action plugin sets it.
    type: dict
    default: {}
  each:
    description: The items for which the module writes files.
    type: list
    elements: dict
    default: []
  item_var:
    description: The name of the variable that holds the item in a template.
    type: str
    default: item
"""
