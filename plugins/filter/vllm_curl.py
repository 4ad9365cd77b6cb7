# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_curl
short_description: Write the command that tries an instance
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Writes one line for a shell on the node that gets an answer from an instance.
options:
  _input:
    description: An instance, as the action plugin P(gpunode.llm.serving_plan#module) returns it.
    type: dict
    required: true
  keyed:
    description: Whether a key is needed. The line then uses the variable C(VLLM_API_KEY) and does not hold the key.
    type: bool
    default: false
"""

EXAMPLES = r"""
msg: "{{ plan.instances | map('gpunode.llm.vllm_curl') }}"
"""

RETURN = r"""
_value:
  description: A command.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import service


def vllm_curl(instance, keyed=False):
    try:
        return service.vllm_curl(instance, keyed)
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.vllm_curl: this is not an instance of a plan: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"vllm_curl": vllm_curl}
