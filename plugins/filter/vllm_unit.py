# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_unit
short_description: Say what the unit of an instance starts from
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Names the unit of an instance with the files that it starts from, as M(gpunode.llm.units_current) takes it.
  - P(gpunode.llm.vllm_service#filter) says this, and all the rest of an instance, in one value.
options:
  _input:
    description: An instance, as the action plugin P(gpunode.llm.serving_plan#module) returns it.
    type: dict
    required: true
  config_dir:
    description: The folder that holds the instances' files on the node.
    type: path
    required: true
  several_keys:
    description: Whether there is more than one API key, which takes a file more.
    type: bool
    default: false
"""

EXAMPLES = r"""
units: "{{ plan.instances | map('gpunode.llm.vllm_unit', '/etc/vllm') }}"
"""

RETURN = r"""
_value:
  description: One element of the option C(units).
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import service


def vllm_unit(instance, config_dir, several_keys=False):
    try:
        return service.vllm_unit(instance, config_dir, several_keys)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.vllm_unit: this is not an instance of a plan: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"vllm_unit": vllm_unit}
