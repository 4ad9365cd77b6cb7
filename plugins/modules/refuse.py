# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since no node is asked.

DOCUMENTATION = r"""
module: refuse
short_description: Fail with a message that is printed once
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Fails as M(ansible.builtin.fail) does. ansible-core 2.19 and newer print that message twice, with lines of the play
    in between; this one is printed once.
  - Several findings are shown as numbered lines of text, and the failure itself says how many they are.
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  msg:
    description: The message. It is required when O(findings) is not set.
    type: str
  findings:
    description: The reasons to stop, one sentence each. The task does not fail when the list is empty.
    type: list
    elements: str
attributes:
  action:
    description: Runs on the controller alone.
    support: full
"""

EXAMPLES = r"""
- name: Stop when a check has found something
  gpunode.llm.refuse:
    findings: "{{ preflight_plan.findings + preflight_check.findings }}"

- name: Stop when the address is not known
  gpunode.llm.refuse:
    msg: This node has no default route. Set huggingface_lan_address.
  when: weights_address | length == 0
"""

RETURN = r"""
"""
