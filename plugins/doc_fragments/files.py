# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are rendered on the controller."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  files:
    description: The files.
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
          - C({field}) stands for that field of an item of O(each); there is one such file then for each item.
        type: path
        required: true
      of:
        description: The C(name) of the item of O(each) that it is of, where O(files[].dest) has no field.
        type: str
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
        description: Whether O(files[].src) is rendered. Otherwise it is taken as it is.
        type: bool
        default: true
      present:
        description: Whether the file is there. With V(false) it is not to be there, and O(files[].src) is not read.
        type: bool
        default: true
      content:
        description: The text. The action plugin fills it in.
        type: str
  secrets:
    description: The texts of the secret files, by path. The action plugin fills it in.
    type: dict
    default: {}
  each:
    description: Items to have files for.
    type: list
    elements: dict
    default: []
  item_var:
    description: The name under which a template finds its item.
    type: str
    default: item
"""
