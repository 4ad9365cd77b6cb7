# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: weights_seeders
short_description: Say which models a node takes from which other node
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - From the plans of a play's nodes, in the play's order. The first node that lists a snapshot fetches it from the hub,
    and hands it to the others that list the same files of it.
options:
  _input:
    description: For each node what M(gpunode.llm.serving_plan) returned. A node without a plan has no part.
    type: dict
    required: true
  node:
    description: The node that is asked about.
    type: str
    required: true
"""

EXAMPLES = r"""
elsewhere: "{{ {'a': hostvars['a'].plan, 'b': hostvars['b'].plan} | gpunode.llm.weights_seeders(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The option C(elsewhere) of M(gpunode.llm.preflight_check).
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import weights


def weights_seeders(plans, node):
    try:
        instances = {name: (found.get("plan") or {}).get("instances", []) for name, found in plans.items()}
        return weights.seeders(instances, node)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"gpunode.llm.weights_seeders: these are not plans of nodes: {error!r}") from error


class FilterModule:
    def filters(self):
        return {"weights_seeders": weights_seeders}
