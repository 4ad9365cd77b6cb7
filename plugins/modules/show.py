# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since it prints on the controller.

DOCUMENTATION = r"""
module: show
short_description: Show a text without quotes
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Prints an empty line, then the lines of the text without quotes and without YAML. M(ansible.builtin.debug) prints a
    table as a list of quoted strings, and prints nothing when Ansible hides results that are C(ok).
  - Prints the same with C(--check). It prints once for each node, or once for all nodes with C(run_once).
  - Prints nothing when the text is empty, or with C(no_log).
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
