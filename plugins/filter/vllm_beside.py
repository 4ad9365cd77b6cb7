# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_beside
short_description: Say what the instances are that run beside others for a while
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Turns instances that there is room for into second ones, which serve the same under the same name for a while, on
    another port of the loopback address and on other GPUs.
options:
  _input:
    description: Instances, as the action plugin P(gpunode.llm.serving_plan#module) returns them.
    type: list
    elements: dict
    required: true
  rooms:
    description: The answer of M(gpunode.llm.vllm_room_info).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
second: "{{ plan.instances | gpunode.llm.vllm_beside(room.rooms) }}"
"""

RETURN = r"""
_value:
  description: The second instances. C(beside) of each is the name of the one that it stands in for.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import service


def vllm_beside(instances, rooms):
    try:
        return service.vllm_beside(instances, rooms)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.vllm_beside: these are no instances and rooms: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"vllm_beside": vllm_beside}
