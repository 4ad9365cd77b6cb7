# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since the screen is the controller's.

DOCUMENTATION = r"""
module: show
short_description: Show a text as it stands
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Shows lines without quotes and without YAML around them, after an empty one. With M(ansible.builtin.debug) a table
    is a list of quoted strings, and is not seen at all where Ansible does not show what is C(ok).
  - What it shows is shown the same with C(--check), and once for each node; with C(run_once) once for all of them.
  - Nothing is shown where there are no lines, or with C(no_log).
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  text:
    description: The text, or its lines as a list.
    type: raw
    required: true
attributes:
  action:
    description: Runs on the controller alone.
    support: full
"""

EXAMPLES = r"""
- name: Show the table
  gpunode.llm.show:
    text: "{{ report.table + report.notes }}"
  run_once: true
"""

RETURN = r"""
"""
