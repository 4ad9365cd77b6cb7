# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_endpoint
short_description: Say where an instance is waited for
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Names the endpoint of an instance, as M(gpunode.llm.endpoint_ready) takes it.
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
  start_timeout_s:
    description: How long its engine may take to answer, in seconds. By default what the plan says.
    type: int
  gpu_timeout_s:
    description: How long its start may wait for its GPUs before it begins, in seconds.
    type: int
    default: 0
"""

EXAMPLES = r"""
endpoints: "{{ plan.instances | map('gpunode.llm.vllm_endpoint', '/etc/vllm') }}"
"""

RETURN = r"""
_value:
  description: One element of the option C(endpoints).
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import service


def vllm_endpoint(instance, config_dir, start_timeout_s=None, gpu_timeout_s=0):
    try:
        return service.vllm_endpoint(instance, config_dir, start_timeout_s, gpu_timeout_s)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.vllm_endpoint: this is not an instance of a plan: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"vllm_endpoint": vllm_endpoint}
