# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_card
short_description: Say how a node ends up
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Writes what a play has made of a node. Where each model answers, how long the parts of it took, a command and a line
    of Python that try it, and where to look next. Where nothing was to do, one line.
options:
  _input:
    description: The instances, as the action plugin P(gpunode.llm.serving_plan#module) returns them.
    type: list
    elements: dict
    required: true
  host:
    description: The node's name.
    type: str
    required: true
  parts:
    description:
      - What took how long. C(image) and C(weights) are seconds, C(endpoints) is what M(gpunode.llm.units_ready)
        returned as such. C(unlisted) are the names of instances that stay on the node and are no longer listed.
    type: dict
    default: {}
  keyed:
    description: Whether a key is needed. The lines then use the variable C(VLLM_API_KEY) and do not hold the key.
    type: bool
    default: false
  changed:
    description: Whether anything was done.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Show the result
  gpunode.llm.show:
    text: "{{ preflight_check.instances | gpunode.llm.vllm_card(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils.screen import plan as screen_plan


def vllm_card(instances, host, parts=None, keyed=False, changed=True):
    try:
        return screen_plan.ending(instances, host, parts or {}, keyed, changed)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.vllm_card: these are no instances of a plan: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"vllm_card": vllm_card}
