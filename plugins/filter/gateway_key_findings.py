# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_key_findings
short_description: Say what stands against the keys of the front
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Sentences about keys that hold no key.
options:
  _input:
    description: The keys, each under the name of the client that it is for.
    type: dict
    required: true
  engine_key:
    description: The key that opens the engines, where they ask for one.
    type: str
    default: ""
"""

EXAMPLES = r"""
findings: "{{ gateway_keys | gpunode.llm.gateway_key_findings }}"
"""

RETURN = r"""
_value:
  description: A sentence for each thing to mend. Empty when there is nothing.
  type: list
  elements: str
"""

from ..plugin_utils import gateway


class FilterModule:
    def filters(self):
        return {"gateway_key_findings": gateway.key_findings}
