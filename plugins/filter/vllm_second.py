# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_second
short_description: Say what there may be of the one that ran beside an instance
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Names the unit and the files of the second one, which runs beside an instance while that is changed, as
    M(gpunode.llm.units_removed) takes them.
  - P(gpunode.llm.vllm_service#filter) says this, and all the rest of an instance, in one value.
options:
  _input:
    description: An instance, as the action plugin P(gpunode.llm.serving_plan#module) returns it.
    type: dict
    required: true
  config_dir:
    description: The folder that holds the second ones' files on the node. It is always the same one, and is not read.
    type: path
"""

EXAMPLES = r"""
units: "{{ plan.instances | map('gpunode.llm.vllm_second') }}"
"""

RETURN = r"""
_value:
  description: One element of the option C(units).
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import service


def vllm_second(instance, config_dir=None):
    try:
        return service.vllm_second(instance)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.vllm_second: this is not an instance of a plan: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"vllm_second": vllm_second}
