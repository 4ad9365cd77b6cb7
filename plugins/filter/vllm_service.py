# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_service
short_description: Say what an instance is made of on a node
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Says in one value what the templates of the role P(gpunode.llm.vllm#role) print for an instance, and what its
    modules are handed. Unit, files, endpoint, times, GPUs, environment, and the second one that may run beside it.
  - It holds no secret.
options:
  _input:
    description: An instance, as the action plugin P(gpunode.llm.serving_plan#module) returns it.
    type: dict
    required: true
  settings:
    description:
      - The settings of the role, each by its name without C(vllm_), and C(several_keys), whether there is more than one
        API key. What is not set is as the role has it. Others are passed over.
    type: dict
    default: {}
"""

EXAMPLES = r"""
service: "{{ plan.instances[0] | gpunode.llm.vllm_service({'config_dir': '/etc/vllm', 'gpu_timeout_s': 300}) }}"
"""

RETURN = r"""
_value:
  description: >-
    The service. C(runs) is an element of the option C(units) of M(gpunode.llm.units_ready), C(endpoint) one of its
    C(endpoints), C(to_write) are files for M(gpunode.llm.rendered_files), and C(record) is what stands in
    C(/etc/vllm/NAME.json).
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import service


def vllm_service(instance, settings=None):
    try:
        return service.service(instance, settings or {})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.vllm_service: this is not an instance of a plan: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"vllm_service": vllm_service}
