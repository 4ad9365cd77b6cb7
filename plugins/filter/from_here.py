# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: from_here
short_description: A path on this machine as its user sees it
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Makes a path absolute as seen from the folder in which C(ansible-playbook) was started. Ansible itself sees a
    relative path from the folder of the playbook, which for a collection is where that was installed.
options:
  _input:
    description: The path. Relative, absolute, or with C(~) in front; an empty one stays empty.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write it where the user stands
  ansible.builtin.copy:
    content: "{{ status | to_nice_json }}"
    dest: "{{ json | gpunode.llm.from_here }}"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The absolute path.
  type: str
"""

import os


def from_here(path):
    return os.path.abspath(os.path.expanduser(str(path))) if path else ""


class FilterModule:
    def filters(self):
        return {"from_here": from_here}
