# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_plan
short_description: Say what the front before a node's engines is to be
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Reads the settings of the role P(gpunode.llm.gateway#role) and says which paths pass to which engine, and all that
    stands against it.
  - It takes no key and returns none.
options:
  _input:
    description: The role's settings, without C(gateway_) before their names and without the keys.
    type: dict
    required: true
  instances:
    description: The instances of a plan of M(gpunode.llm.serving_plan).
    type: list
    elements: dict
    required: true
  os_family:
    description: The family of the node's system, as its facts say.
    type: str
    default: Debian
"""

EXAMPLES = r"""
front: "{{ {'port': 8443} | gpunode.llm.gateway_plan(preflight_check.instances) }}"
"""

RETURN = r"""
_value:
  description: What is to be, with every setting.
  type: dict
  contains:
    findings:
      description: What stands against it, a sentence each. Empty when nothing does.
      type: list
      elements: str
    engines:
      description: For each instance its C(upstream), its C(address), and the file of a C(second) engine beside it.
      type: list
      elements: dict
    locations:
      description: Each C(path) that passes, with its C(methods) and the address at the C(engine).
      type: list
      elements: dict
    listens:
      description: Each C(host) and C(port) that is taken on the node.
      type: list
      elements: dict
    metrics:
      description: The listener for metrics, or nothing.
      type: dict
    urls:
      description: The address that clients are told, for each instance.
      type: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import gateway


def gateway_plan(settings, instances, os_family="Debian"):
    try:
        return gateway.plan(settings, instances, os_family)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.gateway_plan: these are no settings or instances: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"gateway_plan": gateway_plan}
