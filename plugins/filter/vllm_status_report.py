# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: vllm_status_report
short_description: Lay out what nodes say of their instances
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Puts what M(gpunode.llm.vllm_status) returned on several nodes into one text, and into data for a program.
options:
  _input:
    description: For each node its name and the module's result; a node without one could not be asked.
    type: dict
    required: true
"""

EXAMPLES = r"""
text: "{{ ({'gpu-1': status} | gpunode.llm.vllm_status_report).text }}"
"""

RETURN = r"""
_value:
  description:
    - C(text), lines for a person. C(notes), sentences about what is not as it should be. C(nodes), the same as data,
      and C(schema), the number of their form. C(unhealthy), the names of the instances that do not serve, and of a
      front that does not run.
  type: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils.screen import status as screen_status


def vllm_status_report(nodes):
    try:
        return screen_status.report(nodes)
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(
            f"gpunode.llm.vllm_status_report: this is not what vllm_status returned: {error!r}"
        ) from error


class FilterModule:
    def filters(self):
        return {"vllm_status_report": vllm_status_report}
