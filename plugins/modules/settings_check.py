# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since no node is asked.

DOCUMENTATION = r"""
module: settings_check
short_description: Refuse variables that are misspelt or cannot be read, all at once
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Reads every variable of this collection's roles and playbooks that the play sets, as P(gpunode.llm.typed#filter)
    does. It fails once, with a list of all that cannot be read. The value of a secret is not shown.
  - Refuses a name that looks like a variable of this collection, but that none of its roles and playbooks knows. The
    message gives the nearest known name. List the variables of other roles in C(other_variables).
  - Refuses templates of names that are no variable and will be none later, and variables behind C(-e) that only other
    playbooks of this collection read.
  - Makes no call on the node. It runs before the first task that does.
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
attributes:
  action:
    description: Runs on the controller alone.
    support: full
"""

EXAMPLES = r"""
- name: Refuse settings that are misspelt or cannot be read
  gpunode.llm.settings_check:
"""

RETURN = r"""
findings:
  description: One sentence for each variable that cannot be read. The list is empty when the task does not fail.
  returned: always
  type: list
  elements: str
"""
